"""Counted in the records of an evaluation, which hold what each network said of every test image after each glimpse.

Accuracy over cost, balanced over classes where they are not even; and of two networks, which images only one is right
about.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nogs.evaluation.uncertainty import McNemar, mcnemar
from nogs.report.figures.costs import Costs, Spending, networks
from nogs.runs.directory import RunDirectory
from nogs.stopping.rules import at_step, stop_below

UNEVEN = 1.5
"""How many times more images the greatest class has than the smallest, where accuracy alone would mislead."""


def costs_of(
    evaluation: RunDirectory, results: dict[str, Any], cnns: dict[str, Any], stopping_method: str | None
) -> Costs:
    """What accuracy costs by the number of glimpses, with adaptive stopping, and by the CNNs of ``cnns``."""
    balanced = any(_uneven(_record(evaluation, name, seed)) for name, seed in _models(evaluation, results)[:1])
    fixed = {}
    for name, scores in results["methods"].items():
        accuracy = scores["test_accuracy_by_glimpse"]
        if balanced:
            said = [_record(evaluation, name, seed) for seed in scores["seeds"] if evaluation.has(f"{name}-seed{seed}")]
            accuracy = [balanced_accuracy(_right(record), record["labels"]).tolist() for record in said]
        if accuracy:
            fixed[name] = Spending(scores["macs_by_glimpse"], accuracy)
    column = "test_balanced_accuracy" if balanced else "test_accuracy"
    bound = cnns.get("upper_bound")
    return Costs(
        fixed=fixed,
        adaptive=_adaptive(evaluation, results, stopping_method, balanced=balanced),
        cnn=networks(cnns.get("cnn") or [], column),
        upper_bound=networks([bound], column)[0] if bound else None,
        balanced=balanced,
    )


def paired_answers(evaluation: RunDirectory, results: dict[str, Any], *, reference: str) -> dict[str, list[McNemar]]:
    """Of each method, seed by seed, the last answers beside those of the ``reference`` with that seed."""
    right = {model: _right(_record(evaluation, *model))[:, -1] for model in _models(evaluation, results)}
    found: dict[str, list[McNemar]] = {}
    for name, seed in right:
        if name != reference and (reference, seed) in right:
            found.setdefault(name, []).append(mcnemar(right[name, seed], right[reference, seed]))
    return found


def stopping_method_of(evaluation: RunDirectory) -> str | None:
    """The method whose networks the stopping rules were fitted to, which the run directories tell."""
    for path in evaluation.config.get("stopping", ()):
        fitted = RunDirectory(Path(path))
        if fitted.complete:
            trained = RunDirectory(Path(fitted.config["model"]))
            return trained.config["method"] if trained.complete else None
    return None


def balanced_accuracy(right: Bool[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, " k"]:
    """The mean over classes of the share of their images that is right."""
    return torch.stack([right[labels == label].double().mean(0) for label in labels.unique()]).mean(0)


def _adaptive(
    evaluation: RunDirectory, results: dict[str, Any], method: str | None, *, balanced: bool
) -> tuple[str, Spending] | None:
    """The curve of stopping by the entropy gain; its costs a mean over seeds."""
    seeds_of = results.get("stopping_by_seed", {}).get("eig")
    if not seeds_of or method is None or method not in results["methods"]:
        return None
    macs = [row[3] for row in results["stopping"]["eig"]]
    accuracy = [[row[2] for row in rows] for rows in seeds_of]
    if balanced:
        records = [_record(evaluation, method, seed) for seed in results["methods"][method]["seeds"]]
        records = [record for record in records if "entropy_gain" in record]
        if len(records) != len(seeds_of):
            return None
        accuracy = [
            _balanced_curve(record, [row[0] for row in rows]) for record, rows in zip(records, seeds_of, strict=True)
        ]
    order = sorted(range(len(macs)), key=macs.__getitem__)
    return method, Spending([macs[k] for k in order], [[seed[k] for k in order] for seed in accuracy])


def _balanced_curve(record: dict[str, Tensor], thresholds: list[float]) -> list[float]:
    steps = torch.stack([stop_below(record["entropy_gain"], threshold) for threshold in thresholds])
    return balanced_accuracy(at_step(_right(record), steps).T, record["labels"]).tolist()


def _models(evaluation: RunDirectory, results: dict[str, Any]) -> list[tuple[str, int]]:
    every = [(name, seed) for name, scores in results["methods"].items() for seed in scores["seeds"]]
    return [(name, seed) for name, seed in every if evaluation.has(f"{name}-seed{seed}")]


def _record(evaluation: RunDirectory, name: str, seed: int) -> dict[str, Tensor]:
    return evaluation.load_tensors(f"{name}-seed{seed}")


def _right(record: dict[str, Tensor]) -> Bool[Tensor, "n T"]:
    return record["log_probs"].argmax(-1) == record["labels"][:, None]


def _uneven(record: dict[str, Tensor]) -> bool:
    counts = record["labels"].bincount()
    present = counts[counts > 0]
    return bool(present.max() > UNEVEN * present.min())
