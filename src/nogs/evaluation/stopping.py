"""Stopping rules compared: curves over seeds and over tasks, and the advantage of expected gains with its band.

Rules are compared at equal mean glimpses, linearly between the points of their curves, which is what drawing lots
between two neighbouring settings gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from nogs.evaluation.scores import balanced_accuracy, is_uneven
from nogs.stopping.curves import GAINS, MAP, Curve, CurvePoint, Stops, curve

RESAMPLES = 1000
LEVEL = 0.95
PER_GLIMPSE = 4
"""Points at which rules are compared between t and t + 1 mean glimpses."""
Curves = dict[str, tuple[Curve, ...]]
"""rule → its curve under each seed"""


@dataclass(frozen=True)
class Advantage:
    """Accuracy of one stopping rule minus another's at equal mean glimpses, with its simultaneous band."""

    mean_glimpses: float
    difference: float
    low: float
    high: float


class StoppedNetwork(NamedTuple):
    """The effect of every stopping rule on one network and n test images.

    ``macs``: rule → multiply-adds of an image that it stops after t = 1..T glimpses. ``held_out_accuracy``: after each
    of T glimpses, on the validation images that the heads were not fitted to.
    """

    stops: Mapping[str, Stops]
    macs: Mapping[str, Sequence[int]]
    held_out_accuracy: tuple[float, ...]


class StoppingScores(NamedTuple):
    """Fields of results.json; see `nogs.evaluation.schema.Results`."""

    stopping: dict[str, Curve]
    stopping_by_seed: Curves
    stopping_balanced_by_seed: Curves
    stopping_advantage: dict[str, dict[str, tuple[Advantage, ...]]]
    held_out_accuracy_by_glimpse: tuple[tuple[float, ...], ...]


def stopping_scores(
    networks: Sequence[StoppedNetwork], labels: Int[Tensor, " n"], generator: Generator
) -> StoppingScores:
    """Return the scores of all rules on one method's networks, one a seed; empty without any. All have the same rules.

    Balanced accuracies are computed where the classes of ``labels`` are uneven. ``generator``: of the bootstrap.
    """
    if not networks:
        return StoppingScores({}, {}, {}, {}, ())
    pairs = [(network.stops, network.macs) for network in networks]
    by_seed = {rule: tuple(curve(stops[rule], macs[rule]) for stops, macs in pairs) for rule in networks[0].stops}
    T = len(networks[0].held_out_accuracy)
    stops = [network.stops for network in networks]
    return StoppingScores(
        stopping={rule: mean_curve(curves) for rule, curves in by_seed.items()},
        stopping_by_seed=by_seed,
        stopping_balanced_by_seed=balanced(by_seed, stops, labels) if is_uneven(labels) else {},
        stopping_advantage={
            of: advantage(stops, of=of, glimpses=T, generator=generator) for of in (*GAINS, MAP) if of in by_seed
        },
        held_out_accuracy_by_glimpse=tuple(network.held_out_accuracy for network in networks),
    )


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Return the mean over seeds, setting by setting."""
    return tuple(CurvePoint(*row) for row in np.mean(np.array(curves), axis=0).tolist())


def balanced(curves: Curves, seeds: Sequence[Mapping[str, Stops]], labels: Int[Tensor, " n"]) -> Curves:
    """Return the curves with balanced accuracies, for test images of these labels."""
    return {
        rule: tuple(
            tuple(
                point._replace(accuracy=accuracy)
                for point, accuracy in zip(points, balanced_accuracy(stops[rule].right.T, labels).tolist(), strict=True)
            )
            for points, stops in zip(of_rule, seeds, strict=True)
        )
        for rule, of_rule in curves.items()
    }


def advantage(
    seeds: Sequence[Mapping[str, Stops]], *, of: str, glimpses: int, generator: Generator
) -> dict[str, tuple[Advantage, ...]]:
    """Return the accuracy of rule ``of`` minus that of each rule but the heads of gain, at equal mean glimpses.

    The bootstrap resamples test images, the same ones for all rules and seeds, and seeds. Its band holds for all mean
    glimpses together: difference ± c standard errors, where c is the 95 % quantile over resamples of the greatest
    deviation in standard errors (sup-t). With few seeds it underestimates their share, by (seeds - 1) / seeds in
    variance; with one seed it is about test images alone. A rival is compared where both curves reach.
    """
    grid = np.linspace(1, glimpses, PER_GLIMPSE * (glimpses - 1) + 1)
    n = seeds[0][of].steps.shape[1]
    image_counts = _resampled_counts(n, generator)
    seed_shares = _resampled_counts(len(seeds), generator).numpy() / len(seeds)
    accuracy = {
        rule: np.einsum(
            "rs,srg->rg", seed_shares, np.stack([_accuracies(of[rule], image_counts, grid) for of in seeds])
        )
        for rule in seeds[0]
        if rule == of or rule not in GAINS
    }
    return {rule: _band(grid, accuracy[of] - rival) for rule, rival in accuracy.items() if rule not in (of, *GAINS)}


def over_tasks(
    tasks: Sequence[Mapping[str, Sequence[Curve]]], validation: Sequence[Sequence[float]]
) -> dict[str, Curve]:
    """Return the mean curve of each rule over several tasks, with one setting for all of them.

    ``tasks``: of each, a rule's curves, one a seed. Between the settings of a curve its rows are interpolated.
    ``validation``: of each task, the accuracy after t = 1..T glimpses on validation images. "fixed_per_task" is a
    number of glimpses for each task, chosen there at one price of a glimpse for all; its setting is that price.
    """
    shared = [rule for rule in tasks[0] if all(rule in task for task in tasks)]
    means = {rule: _at_one_setting([points for task in tasks for points in task[rule]]) for rule in shared}
    if "fixed" in means:
        means["fixed_per_task"] = _chosen_for_each([mean_curve(task["fixed"]) for task in tasks], validation)
    return means


def _resampled_counts(n: int, generator: Generator) -> Float[Tensor, "r n"]:
    """Return how often each of n items is in each resample; the first row is the sample itself."""
    drawn = [torch.randint(n, (n,), generator=generator).bincount(minlength=n).double() for _ in range(RESAMPLES)]
    return torch.stack([torch.ones(n).double(), *drawn])


def _accuracies(stops: Stops, counts: Float[Tensor, "r n"], grid: Float[np.ndarray, " g"]) -> Float[np.ndarray, "r g"]:
    """Return the accuracy at each mean number of glimpses under each resample; NaN where the sample does not reach."""
    glimpses = (counts @ stops.steps.T.double()).numpy() / counts.shape[1]
    right = (counts @ stops.right.T.double()).numpy() / counts.shape[1]
    reached = (grid >= glimpses[0].min()) & (grid <= glimpses[0].max())
    orders = glimpses.argsort(1, kind="stable")
    values = [np.interp(grid, x[o], y[o]) for x, y, o in zip(glimpses, right, orders, strict=True)]
    return np.where(reached, np.stack(values), np.nan)


def _band(grid: Float[np.ndarray, " g"], difference: Float[np.ndarray, "r g"]) -> tuple[Advantage, ...]:
    """Return the simultaneous band of a difference whose first row is the sample's and the others resamples'."""
    reached = np.isfinite(difference[0])
    observed, deviations = difference[0, reached], difference[1:, reached] - difference[0, reached]
    errors = np.sqrt((deviations**2).mean(0))
    varying = errors > 0
    farthest = (np.abs(deviations[:, varying]) / errors[varying]).max(1, initial=0.0)
    half_width = np.quantile(farthest, LEVEL) * errors
    columns = (grid[reached], observed, observed - half_width, observed + half_width)
    return tuple(Advantage(*row) for row in np.stack(columns, 1).tolist())


def _at_one_setting(curves: Sequence[Curve]) -> Curve:
    settings = np.unique([point.setting for points in curves for point in points])
    rows = []
    for points in curves:
        known = np.array(sorted(points))
        rows.append([np.interp(settings, known[:, 0], known[:, column]) for column in (1, 2, 3)])
    return tuple(CurvePoint(*row) for row in np.stack((settings, *np.mean(rows, axis=0)), 1).tolist())


def _chosen_for_each(fixed: Sequence[Curve], validation: Sequence[Sequence[float]]) -> Curve:
    accuracy = np.array(validation)
    t = np.arange(accuracy.shape[1])
    pairs = [(early, late) for early in t for late in t[early + 1 :]]
    slopes = {float(of[late] - of[early]) / int(late - early) for of in accuracy for early, late in pairs}
    # The best number for a task changes at one of its slopes: between two neighbouring slopes every choice stays.
    bounds = np.array([0.0, *sorted(slope for slope in slopes if slope > 0), 1.0])
    prices = (bounds[:-1] + bounds[1:]) / 2
    rows: list[CurvePoint] = []
    for price in prices[::-1]:
        chosen = (accuracy - price * t).argmax(1)
        row = np.mean([of[step][1:] for of, step in zip(fixed, chosen, strict=True)], axis=0).tolist()
        if not rows or list(rows[-1][1:]) != row:
            rows.append(CurvePoint(float(price), *row))
    return tuple(rows)
