"""Iterations and seconds to convergence and to targets, from the validations that trainings logged.

A run has converged at its first validation whose cross-entropy is within 0.01 nats of the best of that run
(*Near-Optimal Glimpse Sequences*, Harvey, Teng, Wood, section 5). The target is the mean over seeds of the
reference's best validation cross-entropy, plus 0.01 nats; the target of its best seed has the least in place of the
mean. A run that never reaches a target has None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

from jaxtyping import Int
from torch import Tensor

from nogs.evaluation.typed_json import Number
from nogs.information import empirical_entropy

Row = Mapping[str, Any]
"""One validation: iteration, seconds and wall_seconds of training so far, nll_nats."""
MARGIN_NATS = 0.01


class Targets(NamedTuple):
    """Validation losses in nats that methods are raced to."""

    mean_nll_nats: Number
    best_seed_nll_nats: Number


def best_nll(rows: Sequence[Row]) -> Number:
    """Return the least validation loss of a run, in nats."""
    return min(row["nll_nats"] for row in rows)


def chance_nll(labels: Int[Tensor, " n"]) -> float:
    """Return the least loss in nats of one answer for all images: the entropy of their class frequencies."""
    return empirical_entropy(labels[:, None]).item()


def targets(logs: Sequence[Sequence[Row]]) -> Targets:
    """Return the target losses: `MARGIN_NATS` above the mean, and above the least, of the seeds' best losses."""
    best = [best_nll(rows) for rows in logs]
    return Targets(mean(best) + MARGIN_NATS, min(best) + MARGIN_NATS)


def first_at_or_under(rows: Sequence[Row], nll_nats: Number) -> Row | None:
    """Return the first validation whose loss is at or under ``nll_nats``, or None."""
    return next((row for row in rows if row["nll_nats"] <= nll_nats), None)


class Convergence(NamedTuple):
    """Figures of each seed."""

    iterations_to_converge: tuple[Number, ...]
    seconds_to_converge: tuple[Number, ...]
    iterations_to_target: tuple[Number | None, ...]
    seconds_to_target: tuple[Number | None, ...]
    iterations_to_best_seed: tuple[Number | None, ...]
    iterations_trained: tuple[Number, ...]
    seconds_trained: tuple[Number, ...]
    wall_seconds_trained: tuple[Number, ...]
    best_validation_nll_nats: tuple[Number, ...]


def convergence(logs: Sequence[Sequence[Row]], to: Targets | None) -> Convergence:
    """Return iterations and seconds of each seed until convergence, until each target, and of its whole training.

    ``to``: None if the reference was not trained, so that there is no target.
    """
    best = tuple(best_nll(rows) for rows in logs)
    converged = [
        next(row for row in rows if row["nll_nats"] <= least + MARGIN_NATS)
        for rows, least in zip(logs, best, strict=True)
    ]
    mean_nll, least_nll = to or (float("-inf"), float("-inf"))
    reached = [first_at_or_under(rows, mean_nll) for rows in logs]
    reached_least = [first_at_or_under(rows, least_nll) for rows in logs]
    return Convergence(
        iterations_to_converge=tuple(row["iteration"] for row in converged),
        seconds_to_converge=tuple(row["seconds"] for row in converged),
        iterations_to_target=_column(reached, "iteration"),
        seconds_to_target=_column(reached, "seconds"),
        iterations_to_best_seed=_column(reached_least, "iteration"),
        iterations_trained=tuple(rows[-1]["iteration"] for rows in logs),
        seconds_trained=tuple(rows[-1]["seconds"] for rows in logs),
        wall_seconds_trained=tuple(rows[-1]["wall_seconds"] for rows in logs),
        best_validation_nll_nats=best,
    )


def _column(rows: Sequence[Row | None], key: str) -> tuple[Number | None, ...]:
    return tuple(None if row is None else row[key] for row in rows)
