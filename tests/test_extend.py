"""Runs that are resumed with more iterations, patience, methods or seeds equal runs that had them from the start."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

import nogs
import nogs.training.loop
from nogs import pipeline
from nogs.runs.directory import RunDirectory, open_run
from nogs.runs.extend import LONGER, extend_run
from staged import Stages, rows_but_time, same_bits
from test_resume import but_time
from tiny import GEOMETRY, driver, write_npz


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """One set of images, to fit and to train on."""
    folder = tmp_path_factory.mktemp("extended")
    return Stages(folder, write_npz(folder / "images.npz"))


def optimised(iterations: int, *, patience: int = 0) -> nogs.Optimisation:
    return nogs.Optimisation(iterations=iterations, batch_size=32, validate_every=10, patience=patience)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["train", "posterior"])
@pytest.mark.parametrize("checkpoint_seconds", [0.0, 3600.0])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (optimised(20), optimised(40)),
        (optimised(40, patience=1), optimised(40, patience=1000)),
        (optimised(40, patience=1), optimised(50, patience=0)),
    ],
    ids=["iterations", "patience", "both"],
)
def test_a_longer_training_equals_one_that_was_never_shorter(
    few: Stages,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    checkpoint_seconds: float,
    before: nogs.Optimisation,
    after: nogs.Optimisation,
) -> None:
    monkeypatch.setattr(nogs.training.loop, "CHECKPOINT_SECONDS", checkpoint_seconds)
    out, whole = str(tmp_path / "out"), str(tmp_path / "whole")

    def fit(out: str, optimisation: nogs.Optimisation, *, resume: bool = False) -> RunDirectory:
        machine = few.machine(out, resume=resume)
        if stage == "posterior":
            return few.posterior(out, machine=machine, optimisation=optimisation)
        return few.train(out, "ram", machine=machine, optimisation=optimisation)

    shorter = rows_but_time(fit(out, before))
    longer, direct = fit(out, after, resume=True), fit(whole, after)
    assert rows_but_time(longer) == rows_but_time(direct)
    assert rows_but_time(longer)[: len(shorter)] == shorter
    assert same_bits(longer, direct, "model.safetensors", "best.safetensors")
    assert longer.complete
    assert longer.config["optimisation"] == direct.config["optimisation"]


@pytest.mark.parametrize(
    "after",
    [optimised(10), optimised(20, patience=5), replace(optimised(40), seed=1), replace(optimised(40), batch_size=16)],
    ids=["fewer iterations", "an end to patience", "another seed", "another batch"],
)
def test_what_does_not_only_add_is_refused(few: Stages, tmp_path: Path, after: nogs.Optimisation) -> None:
    out = str(tmp_path / "out")
    run = few.train(out, "ram", optimisation=optimised(20))
    before = {file.name: file.read_bytes() for file in run.path.iterdir()}
    with pytest.raises(nogs.UserError, match="holds another run, which differs in"):
        few.train(out, "ram", machine=few.machine(out, resume=True), optimisation=after)
    assert {file.name: file.read_bytes() for file in run.path.iterdir()} == before


@pytest.mark.parametrize(("method", "schedule"), [("ram", "cosine"), ("dime", "constant"), ("gdfs", "constant")])
def test_iterations_of_a_scheduled_training_do_not_grow(
    few: Stages, tmp_path: Path, method: str, schedule: Literal["constant", "cosine"]
) -> None:
    """Its first steps would have been others; a pipeline trains it again (`nogs.pipeline`)."""
    out, before = str(tmp_path / "out"), replace(optimised(20), schedule=schedule)
    few.train(out, method, sequences=None, optimisation=before)
    with pytest.raises(nogs.UserError, match=r"`iterations` \(had 20, now 40\)"):
        few.train(
            out,
            method,
            sequences=None,
            machine=few.machine(out, resume=True),
            optimisation=replace(before, iterations=40),
        )


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_pipeline_trains_scheduled_methods_again_when_iterations_grow(
    schedule: Literal["constant", "cosine"], tmp_path: Path
) -> None:
    config = nogs.Run(nogs.Machine(tmp_path), methods=("ram", "ps-ram", "dime"), seeds=(0,), schedule=schedule)
    outdated = pipeline._outdated(config)
    again = {place for place in outdated["iterations"] if place.startswith("train/")}
    assert again == {
        f"train/{name}-seed0" for name in (("ps-ram", "dime") if schedule == "constant" else config.methods)
    }
    assert [place for place in outdated["patience"] if place.startswith("train/")] == ["train/ps-ram-seed0"]


def test_iterations_grow_from_a_multiple_of_the_validations_alone(few: Stages, tmp_path: Path) -> None:
    """At iteration 25, its last, the shorter run has validated where no longer run does."""
    out = str(tmp_path / "out")
    few.train(out, "ram", optimisation=optimised(25))
    with pytest.raises(nogs.UserError, match=r"`iterations` \(had 25, now 40\)"):
        few.train(out, "ram", machine=few.machine(out, resume=True), optimisation=optimised(40))


def test_a_damaged_run_is_not_extended(few: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nogs.training.loop, "CHECKPOINT_SECONDS", 0.0)
    out = str(tmp_path / "out")
    run = few.train(out, "ram", optimisation=optimised(20))
    checkpoint = run.path / "checkpoint.safetensors"
    content = bytearray(checkpoint.read_bytes())
    content[-1] ^= 1
    checkpoint.write_bytes(content)
    with pytest.raises(nogs.UserError, match=r"checkpoint\.safetensors is damaged"):
        few.train(out, "ram", machine=few.machine(out, resume=True), optimisation=optimised(40))
    assert run.complete


def test_directories_that_depend_on_a_field_are_removed_with_its_growth(tmp_path: Path) -> None:
    config = nogs.Run(nogs.Machine(tmp_path / "run"), seeds=(0,), iterations=100)
    run = open_run(config.machine.out, "run", config, resume=False)
    for name in ("evaluation", "stopping", "train"):
        (run.path / name).mkdir()
    run.finish()
    outdated = {"seeds": ("evaluation",), "iterations": ("evaluation", "stopping")}
    extend_run(run.path, "run", replace(config, seeds=(1, 0)), outdated=outdated)
    assert sorted(path.name for path in run.path.iterdir() if path.is_dir()) == ["stopping", "train"]
    assert not run.complete
    extend_run(run.path, "run", replace(config, seeds=(1, 0), iterations=200), outdated=outdated)
    assert sorted(path.name for path in run.path.iterdir() if path.is_dir()) == ["train"]
    assert (run.config["seeds"], run.config["iterations"]) == ([1, 0], 200)
    for refused in (replace(config, seeds=(1,)), replace(config, seeds=(1, 0), iterations=200, jobs=1, annotate=3)):
        extend_run(run.path, "run", refused, outdated={**outdated, **LONGER})
        assert (run.config["seeds"], run.config["iterations"], run.config["annotate"]) == ([1, 0], 200, 600)


@pytest.mark.slow
def test_a_pipeline_takes_more_iterations(tmp_path: Path) -> None:
    """Networks, heads and recordings equal those of a run that had as many from the start."""
    flags: tuple[Any, ...] = (
        *("run", "--data", f"npz:{write_npz(tmp_path / 'images.npz')}", *GEOMETRY, "--annotate", 30, "--jobs", 1),
        *("--posterior-iterations", 20, "--batch-size", 32, "--validate-every", 20, "--seeds", 0),
        *("--methods", "ram,ps-ram,ps-nogs", "--patience", 0),
    )
    for out, more in (("out", ("--iterations", 20)), ("out", ("--iterations", 40, "--resume"))):
        ended = driver().run(*flags, *more, "--out", tmp_path / out)
        assert ended.code == 0, ended.err
    direct = driver().run(*flags, "--iterations", 40, "--out", tmp_path / "direct")
    assert direct.code == 0, direct.err
    for name in ("train/ram-seed0", "train/ps-ram-seed0", "train/ps-nogs-seed0", "stopping/ps-nogs-seed0"):
        one, other = (RunDirectory(tmp_path / out / name) for out in ("out", "direct"))
        tensors, expected = one.load_tensors("model"), other.load_tensors("model")
        assert all(torch.equal(tensors[key], expected[key]) for key in expected), name
    results = [but_time(json.loads((tmp_path / out / "results.json").read_text())) for out in ("out", "direct")]
    assert results[0]["methods"].keys() == results[1]["methods"].keys()
    for name, scores in results[1]["methods"].items():
        assert results[0]["methods"][name]["test_nll_nats"] == scores["test_nll_nats"]
