"""What the report is made of: everything it shows, read from a run directory and from nowhere else.

Only the evaluation must be there. What else is missing, or not finished, is left out of the report.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from nogs.config.stages import Baselines, Evaluate, Search, Train
from nogs.config.table import stage_of
from nogs.errors import UserError
from nogs.evaluation.uncertainty import McNemar
from nogs.glimpses.grid import Grid
from nogs.report.figures.costs import Costs
from nogs.report.notation import Real
from nogs.report.records import costs_of, paired_answers, stopping_method_of
from nogs.runs.directory import RunDirectory, read_run

Row = dict[str, Any]
Logs = dict[str, list[list[Row]]]
"""Of each method, the validations of each seed, in the order of results.json; empty where there is no log."""


class Step(NamedTuple):
    """A step of the search for one test image: a few of its completions, heaviest first, and their maps in nats.

    ``cells`` has the glimpses before it and, last, the one it chose; ``mean_nats`` is over all completions.
    """

    completions: UInt8[Tensor, "k c H H"]
    weights: Float[Tensor, " k"]
    gains_nats: Float[Tensor, "k L"]
    mean_nats: Float[Tensor, " L"]
    cells: Int[Tensor, " t"]


class Example(NamedTuple):
    """A test image that a sequence was designed for, with the maps in nats that the search saw."""

    picture: UInt8[Tensor, "c H H"]
    label: int
    cells: Int[Tensor, " T"]
    eig: Float[Tensor, "T L"]
    log_probs: Float[Tensor, "T C"]
    step: Step | None
    """One step of its design in detail, where completions were kept."""


class States(NamedTuple):
    """The posterior's states after each designed glimpse."""

    states: Float[Tensor, "n T h"]
    labels: Int[Tensor, " n"]


@dataclass(frozen=True)
class Material:
    """All that figures, captions and tables are drawn from.

    ``looks`` is, of each method, the share of test images that look at each cell in each glimpse, a mean over
    seeds; ``designed`` the same of the sequences. ``mean_image`` is in [0, 255]; ``stopping_method`` is the method
    that stopping rules were fitted to. ``against_ram`` is, of each other method, which test images only it and only
    RAM is right about, a seed each.
    """

    results: dict[str, Any]
    provenance: dict[str, Any]
    logs: Logs
    looks: dict[str, Float[Tensor, "T L"]]
    designed: Float[Tensor, "T L"] | None
    examples: tuple[Example, ...]
    grid: Grid | None
    mean_image: Float[Tensor, "c H H"] | None
    criterion: str | None
    pooling: float
    hidden: int | None
    costs: Costs
    stopping_method: str | None
    states: States | None
    against_ram: dict[str, list[McNemar]]

    @property
    def methods(self) -> dict[str, dict[str, Any]]:
        return self.results["methods"]

    def trained(self, method: str, key: str) -> list[Real | None]:
        """``key`` of each seed's last validation: how far it was trained. None where it was not logged."""
        return [rows[-1].get(key) if rows else None for rows in self.logs[method]]


def gather(path: Path, *, argument: str = "run") -> Material:
    """Read the run in ``path``. Raises UserError, in the name of ``argument``, if it holds no finished evaluation."""
    if not (path / stage_of(Evaluate).directory).is_dir():
        raise UserError(f"{argument}={path} holds no evaluation: give the directory of a `nogs run` or `nogs demo`")
    if (whole := RunDirectory(path)).complete:
        whole.check()
    evaluation = read_run(path / stage_of(Evaluate).directory, "evaluate")
    results = evaluation.load_json("results.json")
    runs = {
        name: [_finished(path / stage_of(Train).directory / f"{name}-seed{seed}") for seed in scores["seeds"]]
        for name, scores in results["methods"].items()
    }
    trained = [run for of_method in runs.values() for run in of_method if run is not None]
    searched = _finished(path / stage_of(Search).directory)
    examples, grid, mean_image = _examples(evaluation)
    stopping_method = stopping_method_of(evaluation)
    locations = len(grid) if grid is not None else 0
    return Material(
        results=results,
        provenance={**_provenance(evaluation.path), **_provenance(path)},
        logs={name: [[] if run is None else run.rows() for run in of_method] for name, of_method in runs.items()},
        looks=_looks(evaluation, results, locations),
        designed=_shares([_cells(searched, "sequences")], locations) if searched and locations else None,
        examples=examples,
        grid=grid,
        mean_image=mean_image,
        criterion=searched.config.get("criterion") if searched else None,
        pooling=searched.config.get("pooling", 0.0) if searched else 0.0,
        hidden=trained[0].config.get("hidden") if trained else None,
        costs=costs_of(evaluation, results, _cnns(path, results), stopping_method),
        stopping_method=stopping_method,
        states=States(**evaluation.load_tensors("states")) if evaluation.has("states") else None,
        against_ram=paired_answers(evaluation, results, reference="ram"),
    )


def _finished(path: Path) -> RunDirectory | None:
    run = RunDirectory(path)
    return run if run.complete else None


def _provenance(path: Path) -> dict[str, Any]:
    return RunDirectory(path).provenance if (path / "provenance.json").exists() else {}


def _cnns(path: Path, results: dict[str, Any]) -> dict[str, Any]:
    """What `nogs baselines` found, if it is part of this run."""
    baselines = _finished(path / stage_of(Baselines).directory)
    return baselines.load_json("results.json") if baselines else results


def _examples(
    evaluation: RunDirectory,
) -> tuple[tuple[Example, ...], Grid | None, Float[Tensor, "c H H"] | None]:
    if not evaluation.has("examples"):
        return (), None, None
    saved = evaluation.load_tensors("examples")
    columns = (saved[key] for key in ("pixels", "labels", "cells", "eig", "log_probs"))
    examples = tuple(
        Example(picture, int(label), cells, eig, log_probs, _step(saved, number))
        for number, (picture, label, cells, eig, log_probs) in enumerate(zip(*columns, strict=True))
    )
    return examples, Grid(**evaluation.load_metadata("examples")["grid"]), saved["mean_image"]


def _step(saved: dict[str, Tensor], number: int) -> Step | None:
    """Half way through a sequence, which is where an evaluation keeps completions."""
    if "completions" not in saved:
        return None
    t = saved["cells"].shape[1] // 2
    return Step(
        completions=saved["completions"][number],
        weights=saved["completion_weights"][number],
        gains_nats=saved["completion_gains"][number],
        mean_nats=saved["eig"][number, t],
        cells=saved["cells"][number, : t + 1],
    )


def _looks(evaluation: RunDirectory, results: dict[str, Any], locations: int) -> dict[str, Float[Tensor, "T L"]]:
    looks = {}
    for name, scores in results["methods"].items():
        records = [f"{name}-seed{seed}" for seed in scores["seeds"]]
        seeds = [_cells(evaluation, record) for record in records if evaluation.has(record)]
        if seeds and locations:
            looks[name] = _shares(seeds, locations)
    return looks


def _cells(run: RunDirectory, name: str) -> Int[Tensor, "n T"]:
    """The cells alone: the maps beside them may be large."""
    return run.load_tensors(name, keys=("cells",))["cells"]


def _shares(seeds: list[Int[Tensor, "n T"]], locations: int) -> Float[Tensor, "T L"]:
    """Share of images that look at each cell in each glimpse, averaged over seeds."""
    counts = [torch.stack([torch.bincount(at, minlength=locations) / len(at) for at in cells.T]) for cells in seeds]
    return torch.stack(counts).mean(0)
