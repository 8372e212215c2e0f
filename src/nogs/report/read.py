"""Read what a report shows: the evaluation of a run, the logs of its trainings, and the CNNs beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float, Int, UInt8
from torch import Tensor

from nogs.config.stages import Baselines, Evaluate
from nogs.config.table import stage_of
from nogs.errors import UserError
from nogs.evaluation.convergence import Row
from nogs.evaluation.schema import CNNScores, MethodScores, Results, read_results
from nogs.glimpses.grid import Grid
from nogs.runs.directory import RunDirectory, read_run

DESIGNED = "designed"
"""Key of `Material.looks` for designed sequences."""


class Step(NamedTuple):
    """One step of the search for one test image: a few of its completions, heaviest first, and their maps in nats.

    ``cells``: the glimpses before it and, last, the one it chose. ``mean_nats``: the map over all completions.
    """

    completions: UInt8[Tensor, "k c H H"]
    weights: Float[Tensor, " k"]
    gains_nats: Float[Tensor, "k L"]
    mean_nats: Float[Tensor, " L"]
    cells: Int[Tensor, " t"]


class Example(NamedTuple):
    """A test image that a sequence was designed for, the map in nats at each step, and the posterior after it.

    ``completions``: the heaviest before each glimpse but the first, with their ``weights``; None of one glimpse alone.
    """

    picture: UInt8[Tensor, "c H H"]
    label: int
    cells: Int[Tensor, " T"]
    eig: Float[Tensor, "T L"]
    log_probs: Float[Tensor, "T C"]
    step: Step | None
    """the step half way, unless that is the first"""
    completions: UInt8[Tensor, "G k c H H"] | None = None
    weights: Float[Tensor, "G k"] | None = None


class Design(NamedTuple):
    """The settings that sequences were designed with."""

    criterion: str
    pooling: float


class Answers(NamedTuple):
    """Single test images with the glimpses and class log-probabilities of one trained network."""

    method: str
    seed: int
    pixels: UInt8[Tensor, "n c H H"]
    labels: Int[Tensor, " n"]
    cells: Int[Tensor, "n T"]
    log_probs: Float[Tensor, "n T C"]


class Walk(NamedTuple):
    """Few test images under one network: its glimpses, class log-probabilities, maps, and when each rule stops.

    ``maps``: what each glimpse was chosen by, predicted gains in nats (``gains``) or probabilities; None of a method
    that chooses nothing. ``stops``: rule → glimpses of each image at each of k thresholds.
    """

    seed: int
    gains: bool
    cells: Int[Tensor, "n T"]
    log_probs: Float[Tensor, "n T C"]
    maps: Float[Tensor, "n T L"] | None
    stops: dict[str, Int[Tensor, "n k"]]


class Steps(NamedTuple):
    """Test images to step through, those of `Material.examples` first, under each method."""

    pixels: UInt8[Tensor, "n c H H"]
    labels: Int[Tensor, " n"]
    walks: dict[str, Walk]


@dataclass(frozen=True)
class Material:
    """All that figures, captions and tables are drawn from.

    ``design``: None, and no ``examples``, if nothing was designed. ``logs``: method → validations of each seed whose
    run is still there. ``looks``: method, or "designed" → share of images that look at each cell in each glimpse.
    ``mean_image`` is in [0, 255]. ``steps``: None of a run that an older version evaluated. ``publishable``: draw on
    the mean image in place of photographs.
    """

    results: Results
    provenance: dict[str, Any]
    logs: dict[str, list[list[Row]]]
    looks: dict[str, Float[Tensor, "T L"]]
    grid: Grid
    design: Design | None
    examples: tuple[Example, ...]
    mean_image: Float[Tensor, "c H H"]
    answers: Answers
    steps: Steps | None
    publishable: bool

    @property
    def methods(self) -> dict[str, MethodScores]:
        return dict(self.results.methods)


def evaluation_of(path: Path, *, argument: str = "run") -> RunDirectory:
    """Return the evaluation of the run in ``path``. Raises UserError, in the name of ``argument``, without one."""
    if not (path / stage_of(Evaluate).directory).is_dir():
        raise UserError(f"{argument}={path} holds no evaluation: give the directory of a `nogs run` or `nogs demo`")
    return read_run(path / stage_of(Evaluate).directory, "evaluate")


def gather(path: Path, *, argument: str = "run", publishable: bool = False) -> Material:
    """Read the run in ``path``. Raises UserError, in the name of ``argument``, if it holds no finished evaluation."""
    evaluation, whole = evaluation_of(path, argument=argument), RunDirectory(path)
    if whole.complete:
        whole.check()
    results = read_results(evaluation, Results)
    cnns = RunDirectory(path / stage_of(Baselines).directory)
    designed = evaluation.config["sequences"] is not None
    saved = evaluation.load_tensors("examples") if designed else {}
    meta = evaluation.load_metadata("examples") if designed else {}
    looks = evaluation.load_tensors("looks")
    answers, network = evaluation.load_tensors("answers"), evaluation.load_metadata("answers")
    return Material(
        results=results.with_cnns(read_results(cnns, CNNScores)) if cnns.complete else results,
        provenance=evaluation.provenance | (whole.provenance if (path / "provenance.json").exists() else {}),
        logs=_logs(evaluation),
        looks={name: looks[name] for name in (*([DESIGNED] if designed else []), *results.methods)},
        grid=Grid(**network["grid"]),
        design=Design(meta["criterion"], meta["pooling"]) if designed else None,
        examples=_examples(saved) if designed else (),
        mean_image=answers["mean_image"],
        answers=Answers(network["method"], network["seed"], *(answers[key] for key in Answers._fields[2:])),
        steps=_steps(evaluation) if evaluation.has("steps") else None,
        publishable=publishable,
    )


def _logs(evaluation: RunDirectory) -> dict[str, list[list[Row]]]:
    logs: dict[str, list[list[Row]]] = {}
    for path in evaluation.config["models"]:
        trained = RunDirectory(Path(path))
        if trained.complete:
            logs.setdefault(trained.config["method"], []).append(list(trained.rows()))
    return logs


def _steps(evaluation: RunDirectory) -> Steps:
    saved, methods = evaluation.load_tensors("steps"), evaluation.load_metadata("steps")["methods"]
    walks = {}
    for name, meta in methods.items():
        own = {key.removeprefix(f"{name}."): tensor for key, tensor in saved.items() if key.startswith(f"{name}.")}
        stops = {key.removeprefix("stops."): steps for key, steps in own.items() if key.startswith("stops.")}
        walks[name] = Walk(meta["seed"], meta["gains"], own["cells"], own["log_probs"], own.get("maps"), stops)
    return Steps(saved["pixels"], saved["labels"], walks)


def _examples(saved: dict[str, Tensor]) -> tuple[Example, ...]:
    columns = (saved[key] for key in ("pixels", "labels", "cells", "eig", "log_probs"))
    completed = [saved.get(f"completion{key}_by_glimpse") for key in ("s", "_weights")]
    return tuple(
        Example(
            picture,
            int(label),
            cells,
            eig,
            log_probs,
            _step(saved, number),
            *(of_all if of_all is None else of_all[number] for of_all in completed),
        )
        for number, (picture, label, cells, eig, log_probs) in enumerate(zip(*columns, strict=True))
    )


def _step(saved: dict[str, Tensor], number: int) -> Step | None:
    """Return the step of which an evaluation keeps the map of each completion: half way through the sequence."""
    if "completions_by_glimpse" not in saved:
        return None
    t = saved["cells"].shape[1] // 2
    return Step(
        completions=saved["completions_by_glimpse"][number, t - 1],
        weights=saved["completion_weights_by_glimpse"][number, t - 1],
        gains_nats=saved["completion_gains"][number],
        mean_nats=saved["eig"][number, t],
        cells=saved["cells"][number, : t + 1],
    )
