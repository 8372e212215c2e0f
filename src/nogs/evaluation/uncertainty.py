"""Exact paired tests over seeds and over test images, and ratios of times that may be cut short.

- Over paired seeds, the sign-flip permutation test (Fisher 1935): of the 2^n ways to exchange the two values of each
  pair, the share whose mean difference is at least as far from 0.
- Over test images, McNemar's exact test (1947): of the images that only one of two classifiers gets right, the
  binomial test that either side has half.
- Of times to a target, the ratio of means over seeds, where some seeds never reached it.

A spread over a few seeds has no interval here: the seeds themselves are shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from nogs.evaluation.typed_json import Number

Bound = Literal["exact", "at least", "at most", "unknown"]
"""How the true value compares with a figure; unknown if either is possible."""
EXACT_UP_TO = 16
"""Pairs whose exchanges are enumerated. Of more pairs, 2^16 exchanges are drawn."""


@dataclass(frozen=True)
class Bounded:
    """A mean over seeds or a ratio of two, and how the true value compares with it."""

    value: Number
    bound: Bound = "exact"


@dataclass(frozen=True)
class McNemar:
    """Numbers of images that only the method and only the reference gets right, and the p-value."""

    only_method: int
    only_reference: int
    p_value: float


def sign_flip_p_value(differences: Sequence[Number], *, seed: int = 0) -> float:
    """Return the two-sided p-value of paired differences. Of n pairs, 2 / 2^n is the least possible.

    ``seed``: of the drawn exchanges, for more than ``EXACT_UP_TO`` pairs.
    """
    observed: Float[np.ndarray, " n"] = np.array(differences, dtype=float)
    n = len(observed)
    if n <= EXACT_UP_TO:
        exchanged = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    else:  # the pairs as they are count as one of the draws, so that no p-value is 0
        exchanged = np.random.default_rng(seed).integers(0, 2, (2**EXACT_UP_TO, n))
        exchanged[0] = 0
    distances = np.abs((1 - 2 * exchanged) @ observed)
    # The same sum in another order differs by rounding, and counts as equally far.
    return float((distances >= distances[0] - 1e-9 * np.abs(observed).sum()).mean())


def mcnemar(method: Bool[Tensor, " n"], reference: Bool[Tensor, " n"]) -> McNemar:
    """Return the exact two-sided test that two classifiers are right about equally many of the same images."""
    from scipy import stats  # takes a second to import

    only_method, only_reference = int((method & ~reference).sum()), int((reference & ~method).sum())
    discordant = only_method + only_reference
    p_value = float(stats.binomtest(only_method, discordant).pvalue) if discordant else 1.0
    return McNemar(only_method, only_reference, p_value)


def bounded_mean(values: Sequence[Number | None], last: Sequence[Number]) -> Bounded:
    """Return the mean of the times that seeds needed to reach a target.

    A seed that never reached it (None) would have needed more than the time ``last`` that it was trained for. It
    counts as that time, so the mean is then a lower bound.
    """
    counted = [end if value is None else value for value, end in zip(values, last, strict=True)]
    return Bounded(mean(counted), "at least" if None in values else "exact")


def ratio(numerator: Bounded, denominator: Bounded) -> Bounded:
    """Return the ratio of two means that are exact or lower bounds."""
    bounds: dict[tuple[bool, bool], Bound] = {
        (True, True): "exact",
        (False, True): "at least",
        (True, False): "at most",
        (False, False): "unknown",
    }
    bound = bounds[numerator.bound == "exact", denominator.bound == "exact"]
    return Bounded(numerator.value / denominator.value, bound)


def geometric_mean(ratios: Sequence[Bounded]) -> Bounded | None:
    """Return the geometric mean of ratios: a bound if some are bounds of one side, None if of both or unknown."""
    bounds = {of.bound for of in ratios} - {"exact"}
    if len(bounds) > 1 or "unknown" in bounds:
        return None
    return Bounded(math.exp(mean(math.log(of.value) for of in ratios)), bounds.pop() if bounds else "exact")
