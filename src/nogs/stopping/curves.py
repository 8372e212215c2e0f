"""Accuracy over mean glimpses, of every stopping rule, from one record of what a network and its heads said.

A rule at k settings stops each of n images k times (`Stops`); all that follows is counting. Thresholds are
chosen on other images than the ones that a curve is drawn for, as a user has to. Rules are compared at equal
mean glimpses, linearly between the points of their curves, which is what drawing lots between two neighbouring
settings would give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
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

RULES = ("eig", "accuracy", "confidence", "act", "stochastic", "sampled_stochastic", "fixed")
THRESHOLDED = ("eig", "accuracy", "confidence")
GAINS = ("eig", "accuracy")
"""Rules of expected gain, which are set against the others."""
SETTINGS = 33
"""Thresholds of a curve."""
RESAMPLES = 1000
LEVEL = 0.95
Curve = list[list[float]]
"""Rows of [threshold, mean_glimpses, accuracy, macs]; where a cost was trained for, it stands for the threshold."""


class Outlook(NamedTuple):
    """What was recorded of n images: answers, predicted gains in nats and accuracy, logits of halting for K costs."""

    log_probs: Float[Tensor, "n T C"]
    entropy_gain: Float[Tensor, "n G"]
    accuracy_gain: Float[Tensor, "n G"]
    act_logits: Float[Tensor, "n T K"]
    stop_logits: Float[Tensor, "n T K"]

    @property
    def confidence(self) -> Float[Tensor, "n T"]:
        return self.log_probs.amax(-1).exp()


def recorded(outlook: Outlook) -> dict[str, Tensor]:
    """What an evaluation keeps of it: predicted gains, and halting probabilities for each cost."""
    return {
        "entropy_gain": outlook.entropy_gain,
        "accuracy_gain": outlook.accuracy_gain,
        "act_halting": outlook.act_logits.sigmoid(),
        "stop_probs": outlook.stop_logits.sigmoid(),
    }


class Stops(NamedTuple):
    """Where a rule stops each image at each of its k settings, and whether the answer there is right."""

    settings: Sequence[float]
    steps: Int[Tensor, "k n"]
    right: Bool[Tensor, "k n"]


def choose_thresholds(outlook: Outlook) -> dict[str, list[float]]:
    """Thresholds of the three rules that have one, for curves that are dense from 1 to T glimpses."""
    return {
        "eig": thresholds_below(outlook.entropy_gain, SETTINGS).tolist(),
        "accuracy": thresholds_below(outlook.accuracy_gain, SETTINGS).tolist(),
        "confidence": thresholds_above(outlook.confidence, SETTINGS).tolist(),
    }


def stop_by_every_rule(
    outlook: Outlook,
    labels: Int[Tensor, " n"],
    *,
    thresholds: Mapping[str, Sequence[float]],
    costs: Sequence[float],
    generator: Generator,
) -> dict[str, Stops]:
    """Every rule at every setting; ACT answers with its mean field, all others with the answer they stopped at."""
    n, T, _ = outlook.log_probs.shape
    right = outlook.log_probs.argmax(-1) == labels[:, None]

    def stops(settings: Sequence[float], steps: list[Tensor]) -> Stops:
        chosen = torch.stack(steps)
        return Stops(settings, chosen, at_step(right, chosen))

    eig, accuracy, confidence = (thresholds[rule] for rule in THRESHOLDED)
    halted = halt(outlook.act_logits.sigmoid().movedim(-1, 0))
    said = mean_field(halted.weights, outlook.log_probs).argmax(-1)
    stop_logits = outlook.stop_logits.movedim(-1, 0)
    return {
        "eig": stops(eig, [stop_below(outlook.entropy_gain, x) for x in eig]),
        "accuracy": stops(accuracy, [stop_below(outlook.accuracy_gain, x) for x in accuracy]),
        "confidence": stops(confidence, [stop_above(outlook.confidence, x) for x in confidence]),
        "act": Stops(costs, halted.steps, said == labels),
        "stochastic": stops(costs, [*stop_likely(stop_logits)]),
        "sampled_stochastic": stops(costs, [*stop_sampled(stop_logits, generator)]),
        "fixed": stops([float(t) for t in range(1, T + 1)], [stop_at(n, t) for t in range(1, T + 1)]),
    }


def curve(stops: Stops, macs_by_glimpse: Sequence[int]) -> Curve:
    """A row for each setting; ``macs_by_glimpse`` is what this rule spends on an image that stops at t."""
    macs = torch.tensor(macs_by_glimpse, dtype=torch.float64)
    columns = (stops.steps.double().mean(1), stops.right.double().mean(1), macs[stops.steps - 1].mean(1))
    return [[float(x), *row] for x, row in zip(stops.settings, torch.stack(columns, 1).tolist(), strict=True)]


def macs_by_rule(macs_by_glimpse: Sequence[int], *, answer_macs: int, head_macs: int) -> dict[str, list[int]]:
    """What each rule spends on an image that stops at t = 1..T, given what t glimpses and one answer cost.

    A fixed number needs one answer; all others look at the answer after every glimpse, and heads are asked after
    all but the last of T.
    """
    T = len(macs_by_glimpse)
    confident = [macs + t * answer_macs for t, macs in enumerate(macs_by_glimpse)]
    headed = [macs + head_macs * min(t, T - 1) for t, macs in enumerate(confident, start=1)]
    return {**dict.fromkeys(RULES, headed), "confidence": confident, "fixed": list(macs_by_glimpse)}


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean over seeds, row by row: thresholds of one place in their list let through the same share."""
    return np.mean(np.array(curves), axis=0).tolist()


def advantage(
    by_seed: Sequence[Mapping[str, Stops]], *, of: str, glimpses: int, generator: Generator
) -> dict[str, list[dict[str, float]]]:
    """Accuracy of rule ``of`` minus that of each which expects no gain, at equal mean glimpses, with a paired interval.

    Test images are drawn anew, the same ones for all rules and seeds (Efron and Tibshirani 1993, percentile
    interval): it speaks of other images, not of other trainings. A rival is compared where both curves reach.
    """
    grid = np.linspace(1, glimpses, 4 * (glimpses - 1) + 1)
    n = by_seed[0][of].steps.shape[1]
    drawn = [torch.randint(n, (n,), generator=generator).bincount(minlength=n).double() for _ in range(RESAMPLES)]
    counts = torch.stack([torch.ones(n).double(), *drawn])  # first the images as they are
    rules = [rule for rule in by_seed[0] if rule == of or rule not in GAINS]
    accuracy = {rule: _accuracies([seed[rule] for seed in by_seed], counts, grid) for rule in rules}
    return {rule: _intervals(grid, accuracy[of] - rival) for rule, rival in accuracy.items() if rule not in GAINS}


def summary(
    by_seed: Sequence[Mapping[str, Stops]], macs: Sequence[Mapping[str, Sequence[int]]], generator: Generator
) -> dict[str, object]:
    """The parts of results.json on stopping, from what every rule did to the network of each seed."""
    curves = [
        {rule: curve(stops, spent[rule]) for rule, stops in seed.items()}
        for seed, spent in zip(by_seed, macs, strict=True)
    ]
    T = len(by_seed[0]["fixed"].settings)
    return {
        "stopping": {rule: mean_curve([seed[rule] for seed in curves]) for rule in RULES},
        "stopping_by_seed": {rule: [seed[rule] for seed in curves] for rule in RULES},
        "stopping_advantage": {of: advantage(by_seed, of=of, glimpses=T, generator=generator) for of in GAINS},
    }


def over_tasks(
    tasks: Sequence[Mapping[str, Sequence[Curve]]], validation: Sequence[Sequence[float]]
) -> dict[str, Curve]:
    """The curve of each rule over several tasks of T glimpses at most, one setting for all of them; a mean over tasks.

    ``tasks``: of each, a rule's curves, one a seed. Between the settings of a curve its rows are linear. With
    ``validation``, of each task the accuracy after t = 1..T glimpses there, "fixed_per_task" is a number of glimpses
    for each task, chosen on validation at one price of a glimpse for all; its setting is that price.
    """
    shared = [rule for rule in tasks[0] if all(rule in task for task in tasks)]
    found = {rule: _at_one_setting([curve for task in tasks for curve in task[rule]]) for rule in shared}
    if "fixed" in found:
        found["fixed_per_task"] = _chosen_for_each([mean_curve(task["fixed"]) for task in tasks], validation)
    return found


def _at_one_setting(curves: Sequence[Curve]) -> Curve:
    settings = np.unique([row[0] for rows in curves for row in rows])
    spent = []
    for rows in curves:
        known = np.array(sorted(rows))
        spent.append([np.interp(settings, known[:, 0], known[:, column]) for column in (1, 2, 3)])
    return np.stack((settings, *np.mean(spent, axis=0)), 1).tolist()


def _chosen_for_each(fixed: Sequence[Curve], validation: Sequence[Sequence[float]]) -> Curve:
    accuracy = np.array(validation)
    t = np.arange(accuracy.shape[1])
    pairs = [(early, late) for early in t for late in t[early + 1 :]]
    slopes = {float(of[late] - of[early]) / int(late - early) for of in accuracy for early, late in pairs}
    # What is best for a task changes at a slope of its own: between two of all, every choice stays.
    bounds = np.array([0.0, *sorted(slope for slope in slopes if slope > 0), 1.0])
    prices = (bounds[:-1] + bounds[1:]) / 2
    rows: Curve = []
    for price in prices[::-1]:
        chosen = (accuracy - price * t).argmax(1)
        row = np.mean([of[step][1:] for of, step in zip(fixed, chosen, strict=True)], axis=0).tolist()
        if not rows or rows[-1][1:] != row:
            rows.append([float(price), *row])
    return rows


def _intervals(grid: Float[np.ndarray, " g"], difference: Float[np.ndarray, "r g"]) -> list[dict[str, float]]:
    """A row for each mean number of glimpses where there is a difference; the first draw gives its value."""
    reached = np.isfinite(difference[0])
    low, high = np.quantile(difference[1:, reached], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    columns = {"mean_glimpses": grid[reached], "difference": difference[0, reached], "low": low, "high": high}
    return [dict(zip(columns, row, strict=True)) for row in np.stack([*columns.values()], 1).tolist()]


def _accuracies(
    seeds: Sequence[Stops], counts: Float[Tensor, "r n"], grid: Float[np.ndarray, " g"]
) -> Float[np.ndarray, "r g"]:
    """Accuracy at each mean number of glimpses, under each draw of the images, averaged over seeds.

    NaN where the images as they are, the first draw, do not reach.
    """
    per_seed = []
    for stops in seeds:
        glimpses = (counts @ stops.steps.T.double()).numpy() / counts.shape[1]
        right = (counts @ stops.right.T.double()).numpy() / counts.shape[1]
        reached = (grid >= glimpses[0].min()) & (grid <= glimpses[0].max())
        orders = glimpses.argsort(1, kind="stable")
        values = [np.interp(grid, x[o], y[o]) for x, y, o in zip(glimpses, right, orders, strict=True)]
        per_seed.append(np.where(reached, np.stack(values), np.nan))
    return np.mean(per_seed, axis=0)
