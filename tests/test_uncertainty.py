"""Exact tests against enumeration over all exchanges and binomial sums; ratios by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from nogs.evaluation.uncertainty import Bound, Bounded, bounded_mean, geometric_mean, mcnemar, ratio, sign_flip_p_value


@pytest.mark.parametrize("pairs", [1, 2, 3, 5, 8])
def test_sign_flips_against_enumeration(pairs: int) -> None:
    rng = np.random.default_rng(pairs)
    a, b = rng.integers(0, 9, pairs), rng.integers(0, 7, pairs)
    observed = abs(int((a - b).sum()))
    flips = list(itertools.product((1, -1), repeat=pairs))
    by_hand = Fraction(sum(abs(int((np.array(f) * (a - b)).sum())) >= observed for f in flips), len(flips))
    found = sign_flip_p_value((a - b).astype(float).tolist())
    assert found == pytest.approx(float(by_hand), abs=1e-12)


def test_many_pairs_are_drawn() -> None:
    """20 pairs, 15 one way and 5 the other, all as large: the binomial tails of 5 and fewer, 0.0414.

    65,536 draws have a standard deviation of 0.0008: 0.004 is 5 of them.
    """
    tails = 2 * sum(math.comb(20, k) for k in range(6)) / 2**20
    assert sign_flip_p_value([1.0] * 15 + [-1.0] * 5) == pytest.approx(tails, abs=0.004)


def test_a_difference_in_every_seed() -> None:
    """Five pairs that all differ to one side: 2 of 32 exchanges are as far."""
    assert sign_flip_p_value([0.05, 0.07, 0.03, 0.06, 0.05]) == 2 / 32


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (5, 0), (0, 3), (2, 7), (6, 6)])
def test_mcnemar_against_the_binomial_sum(only_a: int, only_b: int) -> None:
    n = only_a + only_b
    tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1))
    right_a = torch.tensor([True] * only_a + [False] * only_b + [True] * 4 + [False] * 2)
    right_b = torch.tensor([False] * only_a + [True] * only_b + [True] * 4 + [False] * 2)
    found = mcnemar(right_a, right_b)
    assert (found.only_method, found.only_reference) == (only_a, only_b)
    assert found.p_value == pytest.approx(min(1.0, 2 * tail / 2**n))


def test_ratios_with_seeds_that_never_reached_the_target() -> None:
    ram, ram_cut = bounded_mean([600, 1000], [900, 1000]), bounded_mean([600, None], [900, 1000])
    other, other_cut = bounded_mean([100, 300], [500, 600]), bounded_mean([None, 300], [500, 600])
    assert (ram, ram_cut) == (Bounded(800), Bounded(800, "at least"))
    assert ratio(ram, other) == Bounded(4.0, "exact")
    assert ratio(ram_cut, other) == Bounded(4.0, "at least")
    assert ratio(ram, other_cut) == Bounded(2.0, "at most")
    assert ratio(ram_cut, other_cut) == Bounded(2.0, "unknown")


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        (("exact", "exact"), Bounded(4.0)),
        (("exact", "at least"), Bounded(4.0, "at least")),
        (("at most", "at most"), Bounded(4.0, "at most")),
        (("at least", "at most"), None),
        (("exact", "unknown"), None),
    ],
)
def test_a_geometric_mean_is_a_bound_if_its_parts_are(bounds: tuple[Bound, Bound], expected: Bounded | None) -> None:
    found = geometric_mean([Bounded(2.0, bounds[0]), Bounded(8.0, bounds[1])])
    assert (found and replace(found, value=round(found.value, 9))) == expected
