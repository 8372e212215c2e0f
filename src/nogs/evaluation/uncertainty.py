"""What a handful of seeds and a set of test images can say: intervals, paired differences, and how much faster.

- over seeds, the bootstrap interval of a mean: BCa (Efron 1987, section 4), percentile where BCa is undefined;
- over paired seeds, the mean difference and the exact sign-flip permutation test (Fisher 1935): of the 2^n ways
  to exchange the two of each pair, the share whose mean difference is at least as far from 0;
- over test images, the exact test of McNemar (1947): of the images that only one of two is right about, are
  as many on either side as a fair coin would give?
- of iterations to a target, the ratio of means, where some seeds never got there.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

Number = float | int
RESAMPLES = 9999
EXACT_UP_TO = 16
"""Pairs; of more, as many exchanges are drawn as 16 pairs have."""


class Interval(NamedTuple):
    low: float
    high: float


class PairedDifference(NamedTuple):
    """Mean of a - b over pairs; the smallest p-value that n pairs can give is 2 / 2^n."""

    mean: float
    interval: Interval | None
    p_value: float


class McNemar(NamedTuple):
    """How many images only the one, and only the other, is right about."""

    only_a: int
    only_b: int
    p_value: float


class Speedup(NamedTuple):
    """How many times fewer; ``bound`` says how the true ratio compares, ``unknown`` where both are cut short."""

    ratio: float
    bound: Literal["exact", "at least", "at most", "unknown"]


def bootstrap_interval(values: Sequence[Number], *, level: float = 0.95, seed: int = 0) -> Interval | None:
    """The interval of the mean of ``values``, one a seed; None for a single value, which has no spread."""
    if len(values) < 2:
        return None
    if min(values) == max(values):
        return Interval(float(values[0]), float(values[0]))
    from scipy import stats  # a second to import, and most commands need none of it

    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            found = stats.bootstrap(
                (np.asarray(values, dtype=float),),
                np.mean,
                n_resamples=RESAMPLES,
                confidence_level=level,
                method=method,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        if np.isfinite(found).all():
            break
    return Interval(float(found.low), float(found.high))


def paired_difference(
    a: Sequence[Number], b: Sequence[Number], *, level: float = 0.95, seed: int = 0
) -> PairedDifference:
    """Mean difference of a - b over paired seeds, its bootstrap interval, and the sign-flip p-value (two-sided)."""
    differences = np.array([x - y for x, y in zip(a, b, strict=True)], dtype=float)
    interval = bootstrap_interval(differences.tolist(), level=level, seed=seed)
    return PairedDifference(float(differences.mean()), interval, _sign_flip(differences, seed))


def mcnemar(right_a: Bool[Tensor, " n"], right_b: Bool[Tensor, " n"]) -> McNemar:
    """Exact two-sided test that two classifiers are right about as many of the same images."""
    from scipy import stats

    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    p_value = float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a, only_b, p_value)


def speedup(
    ram: Sequence[Number | None],
    other: Sequence[Number | None],
    *,
    ram_last: Sequence[Number],
    other_last: Sequence[Number],
) -> Speedup:
    """Mean of RAM's iterations (or seconds) to the target over the mean of another's; None: not reached by ``last``.

    A seed that did not reach the target would have taken longer than it ran, so it counts as its last. Where
    only RAM was cut short the ratio is a lower bound, where only the other was, an upper one.
    """
    taken = [
        float(np.mean([last if n is None else n for n, last in zip(numbers, lasts, strict=True)]))
        for numbers, lasts in ((ram, ram_last), (other, other_last))
    ]
    bounds: dict[tuple[bool, bool], Literal["exact", "at least", "at most", "unknown"]] = {
        (False, False): "exact",
        (True, False): "at least",
        (False, True): "at most",
        (True, True): "unknown",
    }
    return Speedup(taken[0] / taken[1], bounds[None in ram, None in other])


def _sign_flip(differences: Float[np.ndarray, " n"], seed: int) -> float:
    n = len(differences)
    if n <= EXACT_UP_TO:
        exchanged = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    else:  # the pairs as they are count as one of the draws, so that no p-value is 0
        exchanged = np.random.default_rng(seed).integers(0, 2, (2**EXACT_UP_TO, n))
        exchanged[0] = 0
    distances = np.abs((1 - 2 * exchanged) @ differences)
    # The same sum in another order differs by roundings: it is as far.
    return float((distances >= distances[0] - 1e-9 * np.abs(differences).sum()).mean())
