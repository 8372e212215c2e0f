"""Accuracy, cost and glimpses of every method over thresholds of stopping, without heads that are fitted to stop.

Each image stops on its own, by what its network computes anyway: where the answer is confident enough, or, for a
method that predicts gains, where no location promises enough. The thresholds are round numbers that are fixed before
any image is looked at, so no curve is drawn on the images that its thresholds were chosen on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from nogs.evaluation.scores import balanced_accuracy, right_by_glimpse
from nogs.stopping.curves import MAP, Stops, curve, stop_without_heads

CONFIDENCES = (
    0.0,
    0.3,
    0.4,
    0.5,
    0.6,
    0.65,
    0.7,
    0.75,
    0.8,
    0.85,
    0.9,
    0.93,
    0.95,
    0.97,
    0.98,
    0.99,
    0.995,
    0.999,
    1.0,
)
"""Probabilities of the answer above which an image stops: after the first glimpse at 0, after the last at 1."""
GAINS_NATS = (
    2.0,
    1.0,
    0.7,
    0.5,
    0.4,
    0.3,
    0.25,
    0.2,
    0.15,
    0.1,
    0.07,
    0.05,
    0.03,
    0.02,
    0.01,
    0.005,
    0.002,
    0.001,
    0.0,
)
"""Greatest predicted gains below which an image stops. `thresholds_nats` leaves out those that stop none."""


class ThresholdPoint(NamedTuple):
    """The effect on all test images of one threshold: a confidence, a gain in nats, or a number of glimpses."""

    threshold: float
    mean_glimpses: float
    accuracy: float
    balanced_accuracy: float
    macs: float


ThresholdCurve = tuple[ThresholdPoint, ...]


class Thresholded(NamedTuple):
    """The effect of every rule on one network and n test images: stops and points of each rule."""

    stops: Mapping[str, Stops]
    curves: Mapping[str, ThresholdCurve]


def thresholds_nats(classes: int) -> tuple[float, ...]:
    """Return descending thresholds of gains. The first one stops every image: no gain is above log ``classes``."""
    most = math.log(classes)
    return (max(most, *GAINS_NATS[:1]), *(gain for gain in GAINS_NATS if gain < most))


def by_threshold(
    log_probs: Float[Tensor, "n T C"],
    labels: Int[Tensor, " n"],
    *,
    map_gain: Float[Tensor, "n G"] | None,
    macs: Mapping[str, Sequence[int]],
) -> Thresholded:
    """Return what thresholds do to a network.

    ``map_gain``: of a network whose location head is a gain map (`nogs.attention.gain.greatest_gains`). ``macs``: rule
    → multiply-adds of an image that stops after t = 1..T glimpses.
    """
    right = right_by_glimpse(log_probs, labels)
    thresholds = {"confidence": CONFIDENCES, MAP: thresholds_nats(log_probs.shape[-1])}
    stops = stop_without_heads(log_probs, right, map_gain=map_gain, thresholds=thresholds)
    return Thresholded(stops, {rule: _curve(of, macs[rule], labels) for rule, of in stops.items()})


def mean_curves(seeds: Sequence[Thresholded]) -> dict[str, ThresholdCurve]:
    """Return the mean over seeds, threshold by threshold."""
    return {
        rule: tuple(ThresholdPoint(*row) for row in np.mean([of.curves[rule] for of in seeds], axis=0).tolist())
        for rule in seeds[0].curves
    }


def _curve(stops: Stops, macs_by_glimpse: Sequence[int], labels: Int[Tensor, " n"]) -> ThresholdCurve:
    balanced = balanced_accuracy(stops.right.T, labels).tolist()
    return tuple(
        ThresholdPoint(point.setting, point.mean_glimpses, point.accuracy, of_classes, point.macs)
        for point, of_classes in zip(curve(stops, macs_by_glimpse), balanced, strict=True)
    )
