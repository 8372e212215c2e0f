"""Against enumeration over all exchanges and resamples, closed forms, and intervals worked by hand."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from nogs.evaluation.uncertainty import Speedup, bootstrap_interval, mcnemar, paired_difference, speedup


def test_a_single_value_has_no_interval_and_equal_ones_no_width() -> None:
    assert bootstrap_interval([0.9]) is None
    assert bootstrap_interval([]) is None
    assert bootstrap_interval([0.9, 0.9, 0.9]) == (0.9, 0.9)


def test_two_values_span_their_own_interval() -> None:
    """Of four equally likely resamples of {0, 1}, one has mean 0 and one has mean 1: more than 2.5 % each."""
    assert bootstrap_interval([0.0, 1.0]) == (0, 1)


def test_many_values_agree_with_the_normal_interval() -> None:
    """n = 400, symmetric: the mean ± 1.96 standard errors. A bound of 9,999 resamples strays 0.05 errors at most.

    Its standard deviation is √(0.025 · 0.975 / 9999) / φ(1.96) = 0.027 errors, so 0.15 is more than 5 of them.
    """
    values = np.random.default_rng(3).normal(0.8, 0.1, 400)
    error = values.std() / math.sqrt(400)
    for level, width in ((0.95, 1.960), (0.8, 1.2816)):
        found = bootstrap_interval(values.tolist(), level=level)
        assert found is not None
        assert found.low == pytest.approx(values.mean() - width * error, abs=0.15 * error)
        assert found.high == pytest.approx(values.mean() + width * error, abs=0.15 * error)


def test_an_interval_repeats_itself() -> None:
    values = [0.81, 0.83, 0.86, 0.9, 0.79]
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)


@pytest.mark.parametrize("pairs", [1, 2, 3, 5, 8])
def test_sign_flips_against_enumeration(pairs: int) -> None:
    rng = np.random.default_rng(pairs)
    a, b = rng.integers(0, 9, pairs), rng.integers(0, 7, pairs)
    observed = abs(int((a - b).sum()))
    flips = list(itertools.product((1, -1), repeat=pairs))
    by_hand = Fraction(sum(abs(int((np.array(f) * (a - b)).sum())) >= observed for f in flips), len(flips))
    found = paired_difference(a.astype(float).tolist(), b.astype(float).tolist())
    assert found.p_value == pytest.approx(float(by_hand), abs=1e-12)
    assert found.mean == pytest.approx((a - b).mean())


def test_many_pairs_are_drawn() -> None:
    """20 pairs, 15 one way and 5 the other, all as large: the binomial tails of 5 and fewer, 0.0414.

    65,536 draws have a standard deviation of 0.0008: 0.004 is 5 of them.
    """
    tails = 2 * sum(math.comb(20, k) for k in range(6)) / 2**20
    found = paired_difference([1.0] * 15 + [0.0] * 5, [0.0] * 15 + [1.0] * 5)
    assert found.p_value == pytest.approx(tails, abs=0.004)


def test_a_difference_in_every_seed() -> None:
    """Five pairs that all differ to one side: 2 of 32 exchanges are as far; the interval leaves 0 out."""
    found = paired_difference([0.90, 0.91, 0.89, 0.92, 0.90], [0.85, 0.84, 0.86, 0.86, 0.85])
    assert found.p_value == 2 / 32
    assert found.interval is not None
    assert 0 < found.interval.low <= found.mean <= found.interval.high
    with pytest.raises(ValueError, match="shorter"):
        paired_difference([1.0, 2.0], [1.0])


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (5, 0), (0, 3), (2, 7), (6, 6)])
def test_mcnemar_against_the_binomial_sum(only_a: int, only_b: int) -> None:
    n = only_a + only_b
    tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1))
    right_a = torch.tensor([True] * only_a + [False] * only_b + [True] * 4 + [False] * 2)
    right_b = torch.tensor([False] * only_a + [True] * only_b + [True] * 4 + [False] * 2)
    found = mcnemar(right_a, right_b)
    assert found[:2] == (only_a, only_b)
    assert found.p_value == pytest.approx(min(1.0, 2 * tail / 2**n))


def test_speedup_and_seeds_that_never_got_there() -> None:
    last = {"ram_last": [900.0, 1000.0], "other_last": [500.0, 600.0]}
    assert speedup([600, 1000], [100, 300], **last) == Speedup(4.0, "exact")
    assert speedup([600, None], [100, 300], **last) == Speedup(4.0, "at least")
    assert speedup([600, 1000], [None, 300], **last) == Speedup(2.0, "at most")
    assert speedup([None, None], [None, None], **last) == Speedup(950 / 550, "unknown")
