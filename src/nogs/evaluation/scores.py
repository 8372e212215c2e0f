"""results.json from what training logged and evaluation recorded: the contract's figures, nothing recomputed.

A run has converged at its first validation whose cross-entropy is within 0.01 nats of the best of that run
(*Near-Optimal Glimpse Sequences*, section 5). The target that methods are raced to is the mean over seeds of
RAM's best validation cross-entropy, plus 0.01 nats; a run that never reaches it has null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

Row = Mapping[str, Any]
MARGIN_NATS = 0.01


def accuracy(log_probs: Float[Tensor, "n C"], labels: Int[Tensor, " n"]) -> float:
    """The share of images whose likeliest class is theirs."""
    return (log_probs.argmax(-1) == labels).float().mean().item()


def scores(log_probs: Float[Tensor, "n C"], labels: Int[Tensor, " n"]) -> dict[str, float]:
    """Accuracy, balanced accuracy and area under the ROC curve (mean over classes) of test images."""
    # Seconds to import, for these figures alone.
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_auroc

    probs, C = log_probs.exp(), log_probs.shape[-1]
    return {
        "test_accuracy": accuracy(log_probs, labels),
        "test_balanced_accuracy": multiclass_accuracy(probs, labels, C, average="macro").item(),
        "test_auroc": multiclass_auroc(probs, labels, C, average="macro").item(),
    }


def scores_by_glimpse(log_probs: Float[Tensor, "n T C"], labels: Int[Tensor, " n"]) -> dict[str, Any]:
    """Scores and NLL of the last prediction; accuracy after each glimpse."""
    last = log_probs[:, -1]
    return {
        **scores(last, labels),
        "test_nll_nats": -last.gather(1, labels[:, None]).mean().item(),
        "test_accuracy_by_glimpse": (log_probs.argmax(-1) == labels[:, None]).float().mean(0).tolist(),
    }


def first_at_or_under(rows: Sequence[Row], nll_nats: float) -> Row | None:
    """The first validation whose loss is at or under ``nll_nats``, or None."""
    return next((row for row in rows if row["nll_nats"] <= nll_nats), None)


def best_nll(rows: Sequence[Row]) -> float:
    """The best validation loss of a run, in nats."""
    return min(row["nll_nats"] for row in rows)


def target_nll(logs: Sequence[Sequence[Row]]) -> float:
    """The loss in nats that methods are raced to, from the logs of RAM's seeds."""
    return mean(best_nll(rows) for rows in logs) + MARGIN_NATS


def convergence(logs: Sequence[Sequence[Row]], target_nll_nats: float | None) -> dict[str, list[Any]]:
    """Iterations and seconds of each seed: to converge by the paper's rule, and to the target."""
    converged = [first_at_or_under(rows, best_nll(rows) + MARGIN_NATS) for rows in logs]
    reached = [first_at_or_under(rows, target_nll_nats) if target_nll_nats is not None else None for rows in logs]
    return {
        "iterations_to_converge": _column(converged, "iteration"),
        "seconds_to_converge": _column(converged, "seconds"),
        "iterations_to_target": _column(reached, "iteration"),
        "seconds_to_target": _column(reached, "seconds"),
        "best_validation_nll_nats": [best_nll(rows) for rows in logs],
    }


def _column(rows: Sequence[Row | None], key: str) -> list[Any]:
    return [None if row is None else row[key] for row in rows]
