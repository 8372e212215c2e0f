"""Accuracy over mean glimpses of every stopping rule, from one record of the outputs of a network and its heads.

A rule at k settings stops each of n images k times (`Stops`). Thresholds are chosen on other images than those that a
curve is drawn for, as a user has to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from nogs.stopping.rules import (
    at_step,
    halt,
    mean_field,
    stop_above,
    stop_at,
    stop_below,
    stop_likely,
    stop_sampled,
    thresholds_above,
    thresholds_below,
)

RULES = ("eig", "accuracy", "fixed", "confidence", "act", "stochastic", "sampled_stochastic")
"""Rules of every network with stopping heads."""
MAP = "map"
"""Rule of a network whose location head is a gain map: stop where no location has a predicted gain of the threshold."""
THRESHOLDED = ("eig", "accuracy", "confidence", MAP)
GAINS = ("eig", "accuracy")
"""Heads of expected gain, which are set against the other rules."""
SETTINGS = 33
"""Thresholds of a curve."""


class CurvePoint(NamedTuple):
    """Figures of one setting of a rule: a threshold, the cost of a glimpse, or a number of glimpses."""

    setting: float
    mean_glimpses: float
    accuracy: float
    macs: float


Curve = tuple[CurvePoint, ...]


class Outlook(NamedTuple):
    """Outputs for n images: answers, predicted gains in nats and in accuracy, logits of halting for K costs.

    ``map_gain``: the greatest predicted gain over all locations after t = 1..T-1 glimpses, in nats; None for a network
    whose location head is no gain map.
    """

    log_probs: Float[Tensor, "n T C"]
    entropy_gain: Float[Tensor, "n G"]
    accuracy_gain: Float[Tensor, "n G"]
    act_logits: Float[Tensor, "n T K"]
    stop_logits: Float[Tensor, "n T K"]
    map_gain: Float[Tensor, "n G"] | None = None

    @property
    def confidence(self) -> Float[Tensor, "n T"]:
        return self.log_probs.amax(-1).exp()


def recorded(outlook: Outlook) -> dict[str, Tensor]:
    """Return the tensors that an evaluation keeps: predicted gains, and halting probabilities for each cost."""
    tensors = {
        "entropy_gain": outlook.entropy_gain,
        "accuracy_gain": outlook.accuracy_gain,
        "act_halting": outlook.act_logits.sigmoid(),
        "stop_probs": outlook.stop_logits.sigmoid(),
    }
    if outlook.map_gain is not None:
        tensors["map_gain"] = outlook.map_gain
    return tensors


class Stops(NamedTuple):
    """Where a rule stops each image at each of its k settings, and whether the answer there is right."""

    settings: Sequence[float]
    steps: Int[Tensor, "k n"]
    right: Bool[Tensor, "k n"]


def choose_thresholds(outlook: Outlook) -> dict[str, list[float]]:
    """Return thresholds of the rules that have one, for curves that are dense from 1 to T glimpses."""
    thresholds = {
        "eig": thresholds_below(outlook.entropy_gain, SETTINGS).tolist(),
        "accuracy": thresholds_below(outlook.accuracy_gain, SETTINGS).tolist(),
        "confidence": thresholds_above(outlook.confidence, SETTINGS).tolist(),
    }
    if outlook.map_gain is not None:
        thresholds[MAP] = thresholds_below(outlook.map_gain, SETTINGS).tolist()
    return thresholds


def stop_by_every_rule(
    outlook: Outlook,
    labels: Int[Tensor, " n"],
    *,
    thresholds: Mapping[str, Sequence[float]],
    costs: Sequence[float],
    generator: Generator,
) -> dict[str, Stops]:
    """Return every rule at every setting. ACT answers with its mean field, all others with the answer they stop at."""
    right = outlook.log_probs.argmax(-1) == labels[:, None]
    eig, accuracy = thresholds["eig"], thresholds["accuracy"]
    halted = halt(outlook.act_logits.sigmoid().movedim(-1, 0))
    answers = mean_field(halted.weights, outlook.log_probs).argmax(-1)
    stop_logits = outlook.stop_logits.movedim(-1, 0)
    return {
        "eig": _stops(eig, [stop_below(outlook.entropy_gain, x) for x in eig], right),
        "accuracy": _stops(accuracy, [stop_below(outlook.accuracy_gain, x) for x in accuracy], right),
        **stop_without_heads(outlook.log_probs, right, map_gain=outlook.map_gain, thresholds=thresholds),
        "act": Stops(costs, halted.steps, answers == labels),
        "stochastic": _stops(costs, [*stop_likely(stop_logits)], right),
        "sampled_stochastic": _stops(costs, [*stop_sampled(stop_logits, generator)], right),
    }


def stop_without_heads(
    log_probs: Float[Tensor, "n T C"],
    right: Bool[Tensor, "n T"],
    *,
    map_gain: Float[Tensor, "n G"] | None,
    thresholds: Mapping[str, Sequence[float]],
) -> dict[str, Stops]:
    """Return the rules that need no fitted heads: a fixed number, confidence, and the gain map if there is one."""
    n, T, _ = log_probs.shape
    confidence, fixed, confidences = log_probs.amax(-1).exp(), range(1, T + 1), thresholds["confidence"]
    rules = {
        "fixed": _stops([float(t) for t in fixed], [stop_at(n, t) for t in fixed], right),
        "confidence": _stops(confidences, [stop_above(confidence, x) for x in confidences], right),
    }
    if map_gain is not None:
        rules[MAP] = _stops(thresholds[MAP], [stop_below(map_gain, x) for x in thresholds[MAP]], right)
    return rules


def _stops(settings: Sequence[float], steps: list[Tensor], right: Bool[Tensor, "n T"]) -> Stops:
    chosen = torch.stack(steps)
    return Stops(settings, chosen, at_step(right, chosen))


def curve(stops: Stops, macs_by_glimpse: Sequence[int]) -> Curve:
    """Return a point for each setting. ``macs_by_glimpse``: cost of an image that stops after t = 1..T glimpses."""
    macs = torch.tensor(macs_by_glimpse, dtype=torch.float64)
    columns = (stops.steps.double().mean(1), stops.right.double().mean(1), macs[stops.steps - 1].mean(1))
    rows = torch.stack(columns, 1).tolist()
    return tuple(CurvePoint(float(setting), *row) for setting, row in zip(stops.settings, rows, strict=True))


def macs_by_rule(
    macs_by_glimpse: Sequence[int], *, answer_macs: int, head_macs: int, locator_macs: int = 0
) -> dict[str, list[int]]:
    """Return the multiply-adds of each rule for an image that stops at t = 1..T.

    ``macs_by_glimpse``: t glimpses and one answer. A fixed number needs one answer. All other rules compute the answer
    after every glimpse; those with heads (``head_macs``) run them after all glimpses but the last of T. The gain map
    (``locator_macs``; 0 without a policy) runs before every glimpse in any case, and once more for an image that it
    stops.
    """
    T = len(macs_by_glimpse)
    confident = [macs + t * answer_macs for t, macs in enumerate(macs_by_glimpse)]
    headed = [macs + head_macs * min(t, T - 1) for t, macs in enumerate(confident, start=1)]
    mapped = [macs + locator_macs * (t < T) for t, macs in enumerate(confident, start=1)]
    return {**dict.fromkeys(RULES, headed), "confidence": confident, MAP: mapped, "fixed": list(macs_by_glimpse)}
