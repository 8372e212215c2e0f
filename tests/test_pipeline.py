"""`nogs run` as it is typed, `nogs predict` on what it made, and the same from Python."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import nogs
from nogs.attention.methods import METHODS as ALL
from nogs.pipeline import _numbered_stages, _searched_path
from nogs.runs.directory import RunDirectory, open_run
from nogs.runs.identity import as_json
from nogs.runs.progress import Numbering
from nogs.sequences.table import Sequences, save_sequences
from staged import Stages
from tiny import CLASSES, GEOMETRY, GLIMPSE_PX, IMAGE_PX, STRIDE_PX, T, driver, wait_for, write_npz

METHODS, SEEDS = ("ram", "ps-nogs"), (0, 1)
FLAGS = (
    *(*GEOMETRY, "--batch-size", 32, "--iterations", 40, "--validate-every", 20, "--posterior-iterations", 40),
    *("--annotate", 30, "--methods", ",".join(METHODS), "--seeds", "0,1", "--jobs", 2, "--no-stopping"),
)


class Pipeline:
    """A finished `nogs run`: its images, its directory, what it printed and how to type it again."""

    def __init__(self, place: Path) -> None:
        self.npz, self.out = write_npz(place / "images.npz"), place / "out"
        self.command = ("run", "--data", f"npz:{self.npz}", *FLAGS, "--out", self.out)
        done = subprocess.run(
            [str(Path(sys.executable).parent / "nogs"), *map(str, self.command)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
        )
        assert done.returncode == 0, done.stderr
        self.stdout, self.stderr = done.stdout, done.stderr

    def read(self, *parts: str) -> Any:
        return json.loads(self.out.joinpath(*parts).read_text())


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(tmp_path_factory.mktemp("pipeline"))


def test_a_run_leaves_every_stage_results_and_a_report(pipeline: Pipeline) -> None:
    stages = ["posterior", "bank", "sequences", "evaluation", *(f"train/{m}-seed{s}" for m in METHODS for s in SEEDS)]
    for name in (".", *stages):
        assert (pipeline.out / name / "COMPLETE").exists(), name
        assert {"stage", "machine"} <= pipeline.read(name, "config.json").keys()
        assert {"versions", "started", "finished"} <= pipeline.read(name, "provenance.json").keys()
    results = pipeline.read("results.json")
    assert results == pipeline.read("evaluation", "results.json")
    assert results["methods"].keys() == set(METHODS)
    for scores in results["methods"].values():
        assert scores["seeds"] == list(SEEDS)
    for seed in SEEDS:
        for method in METHODS:
            assert pipeline.read("train", f"{method}-seed{seed}", "config.json")["optimisation"]["seed"] == seed
    report = (pipeline.out / "report.html").read_text()
    assert "svg" in report
    assert pipeline.read("provenance.json")["hardware"] in html.unescape(report)
    assert not re.search(r"""(src|<link[^>]*href)=["']?(https?:|//)""", report)  # it needs no network


def test_a_run_ends_with_the_table_and_where_the_report_is(pipeline: Pipeline) -> None:
    assert pipeline.stdout.splitlines()[-1] == f"report: {pipeline.out / 'report.html'}"
    assert "Iterations to target" in pipeline.stdout
    assert "Warning" not in pipeline.stderr
    assert "Traceback" not in pipeline.stderr


def test_every_stage_of_a_run_is_numbered(pipeline: Pipeline) -> None:
    """The bars name all five stages of the run; a stage that is given or left out is not counted."""
    for bar in ("1 of 5: posterior", "2 of 5: bank", "3 of 5: sequences", "4 of 5: ram-seed0", "5 of 5: evaluate"):
        assert bar in pipeline.stderr
    config = nogs.Run(nogs.Machine(Path("out")), methods=("ram", "path"))
    counts = {
        6: config,
        5: replace(config, pooling=1.0),
        4: replace(config, posterior=Path("posterior"), bank=Path("bank")),
        7: replace(config, cnns=True),
        3: replace(config, methods=("ram", "gain"), cnn_sizes=(12,)),
    }
    assert {_numbered_stages(run) for run in counts.values()} == counts.keys()
    assert all(_numbered_stages(run) == count for count, run in counts.items())


def test_a_run_is_not_overwritten_and_a_finished_one_is_left_as_it_is(pipeline: Pipeline) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        return {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in pipeline.out.rglob("*")}

    before = state()
    refused = driver().run(*pipeline.command)
    assert refused.code == 2
    assert (
        refused.err
        == f"nogs: --out {pipeline.out} holds another run: add --resume to go on with it, or choose another\n"
    )
    other = driver().run(*pipeline.command, "--resume", "--stride", 3)
    assert other.code == 2
    assert "--stride (had 5, now 3)" in other.err
    again = driver().run(*pipeline.command, "--resume", "--jobs", 1)  # how many at once changes nothing
    assert again.code == 0, again.err
    assert driver().changes() == 0
    assert again.out.splitlines()[-1] == pipeline.stdout.splitlines()[-1]
    assert state() == before


@pytest.mark.slow
def test_a_run_takes_more_methods_and_seeds_later(pipeline: Pipeline, tmp_path: Path) -> None:
    """Finished trainings keep their bytes, evaluation and report are redone, and fewer methods or seeds are refused."""
    out = tmp_path / "grown"
    shutil.copytree(pipeline.out, out)
    trained = {file: file.read_bytes() for file in (out / "train").rglob("model.safetensors")}
    more = ("--methods", "random,ram,ps-nogs", "--seeds", "2,0,1")
    done = driver().run(*pipeline.command[:-1], out, "--resume", *more)
    assert done.code == 0, done.err
    assert {file: file.read_bytes() for file in trained} == trained
    results = json.loads((out / "results.json").read_text())
    assert results["methods"].keys() == {"random", *METHODS}
    assert all(scores["seeds"] == [2, 0, 1] for scores in results["methods"].values())
    was = pipeline.read("results.json")["methods"]["ram"]["test_accuracy"]
    assert results["methods"]["ram"]["test_accuracy"][1:] == was
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    for flags, complaint in ((("--methods", "ram,random"), "--methods (had"), (("--seeds", "0,1"), "--seeds (had")):
        refused = driver().run(*pipeline.command[:-1], out, "--resume", *more, *flags)
        assert refused.code == 2
        assert complaint in refused.err
    assert driver().run(*pipeline.command[:-1], out, "--resume", *more, "--stride", 3).code == 2
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before


@pytest.mark.slow
def test_a_run_that_was_moved_is_still_whole(pipeline: Pipeline, tmp_path: Path) -> None:
    """Its report is drawn again from another directory, and two of its networks are evaluated again."""
    pipeline.out.rename(tmp_path / "moved")
    try:
        ended = driver().run("report", "--run", "moved", cwd=tmp_path)
        assert ended.code == 0, ended.err
        models = ("moved/train/ram-seed1", "moved/train/ps-nogs-seed0")
        command = ("evaluate", "--models", *models, "--sequences", "moved/sequences", "--out", "moved/again")
        judged = driver().run(*command, cwd=tmp_path)
        assert judged.code == 0, judged.err
        once, again = (json.loads((tmp_path / "moved" / name / "results.json").read_text()) for name in (".", "again"))
        assert again["sequences"] == once["sequences"]
        for name, seed in (("ram", 1), ("ps-nogs", 0)):
            assert again["methods"][name]["test_nll_nats"] == [once["methods"][name]["test_nll_nats"][seed]]
    finally:
        (tmp_path / "moved").rename(pipeline.out)
        shutil.rmtree(pipeline.out / "again", ignore_errors=True)


def test_predictions_are_those_of_the_evaluation(pipeline: Pipeline, tmp_path: Path) -> None:
    record = load_file(pipeline.out / "evaluation" / "ps-nogs-seed1.safetensors")
    x = np.load(pipeline.npz)["x"]
    files = [tmp_path / f"{image} é.png" for image in record["images"].tolist()]
    for file, image in zip(files, record["images"].tolist(), strict=True):
        Image.fromarray(x[image]).save(file)
    model = pipeline.out / "train" / "ps-nogs-seed1"
    predicted = driver().run("predict", model, *files, "--json")
    assert predicted.code == 0, predicted.err
    predictions = [json.loads(line) for line in predicted.out.splitlines()]
    macs = pipeline.read("results.json")["methods"]["ps-nogs"]["macs_by_glimpse"][-1]
    for one, file, log_probs, cells in zip(predictions, files, record["log_probs"], record["cells"], strict=True):
        assert one.keys() == {"file", "label", "probs", "glimpses", "sides", "steps", "macs"}
        assert one["sides"] == [GLIMPSE_PX] * T
        assert one["file"] == str(file)
        assert list(one["probs"]) == list(CLASSES)
        assert sum(one["probs"].values()) == pytest.approx(1, abs=1e-5)
        assert list(one["probs"].values()) == pytest.approx(log_probs[-1].exp().tolist(), abs=1e-5)
        assert one["label"] == CLASSES[log_probs[-1].argmax()]
        assert one["steps"] == T
        assert one["macs"] == macs
        row_column = torch.stack((cells // 3, cells % 3), dim=1) * STRIDE_PX
        assert one["glimpses"] == row_column.tolist()
        assert all(0 <= corner <= IMAGE_PX - GLIMPSE_PX for glimpse in one["glimpses"] for corner in glimpse)
    plain = driver().run("predict", model, files[0])
    assert re.fullmatch(rf"{re.escape(str(files[0]))}: {predictions[0]['label']} \(\d+\.\d %\)\n", plain.out)


def imported(out: Path, source: nogs.Source) -> Path:
    """Sequences as `nogs sequences import` leaves them."""
    images = nogs.load(source).annotated(30, 0)
    run = open_run(out, "sequences import", source, resume=False)
    save_sequences(
        run,
        "sequences",
        Sequences(images, torch.tensor([[1, 2]]).expand(len(images), -1)),
        source=as_json(source),
        geometry=as_json(nogs.Geometry(GLIMPSE_PX, STRIDE_PX, T)),
        task=None,
        origin="sequences import",
    )
    run.finish()
    return out


def glimpsed(place: int) -> range:
    """The pixels of a glimpse along one axis, at one of three places."""
    return range(place * STRIDE_PX, place * STRIDE_PX + GLIMPSE_PX)


@pytest.mark.slow
def test_every_rival_in_one_run(tmp_path: Path) -> None:
    """PS-RAM is the first method of the list, and must wait for the RAM that it learns from."""
    npz, out, methods = write_npz(tmp_path / "images.npz"), tmp_path / "out", ("ps-ram", *sorted({*ALL} - {"ps-ram"}))
    given = imported(tmp_path / "given", nogs.Source(data=f"npz:{npz}"))
    ended = driver().run(
        *("run", "--data", f"npz:{npz}", *FLAGS, "--out", out, "--iterations", 20, "--seeds", 1),
        *("--methods", ",".join(methods), "--sequences", given, "--stopping"),
    )
    assert ended.code == 0, ended.err

    def read(*parts: str) -> Any:
        return json.loads(out.joinpath(*parts).read_text())

    results = read("results.json")
    assert tuple(results["methods"]) == methods
    learns_from = {
        name: Path(of).name for name in methods if (of := read("train", f"{name}-seed1", "config.json")["sequences"])
    }
    assert learns_from == {
        "ps-nogs": "sequences",
        "act": "sequences",
        "gain-nogs": "sequences",
        "path": "path",
        "ps-ram": "ram-seed1",
        "ps-hgs": "given",
    }
    assert (read("sequences", "config.json")["pooling"], read("path", "config.json")["pooling"]) == (0.75, 1)
    assert read("path", "config.json")["posterior"] == read("sequences", "config.json")["posterior"]
    recorded, ram, taught = (
        read(*parts, "provenance.json")
        for parts in (("recorded", "ram-seed1"), ("train", "ram-seed1"), ("train", "ps-ram-seed1"))
    )
    assert ram["finished"] <= recorded["started"] <= recorded["finished"] <= taught["started"]
    cells = {name: load_file(out / "evaluation" / f"{name}-seed1.safetensors")["cells"] for name in methods}
    assert cells["centre"].unique().tolist() == [4]
    assert len(cells["random"].unique()) == 9  # a cell is missed by 60 draws in one of 1,000 seeds
    designed = load_file(out / "path" / "sequences.safetensors")["cells"]
    assert torch.equal(cells["path"], designed[:1].expand_as(cells["path"]))
    read_once = len({(r, c) for cell in designed[0].tolist() for r in glimpsed(cell // 3) for c in glimpsed(cell % 3)})
    assert results["methods"]["path"]["pixels_read_share"] == pytest.approx([read_once / IMAGE_PX**2])
    for control in ("centre", "path", "random"):
        assert results["methods"][control]["adaptivity_nats_by_glimpse"] == [[0.0] * T]
    for name, scores in results["methods"].items():  # only a policy can be sampled
        assert ("sampled_test_accuracy" in scores) == (ALL[name].looks == "policy")
    spared = {
        name: results["methods"]["ram"]["macs_by_glimpse"][0] - scores["macs_by_glimpse"][0]
        for name, scores in results["methods"].items()
    }
    head = results["methods"]["ram"]["macs_by_part"]["locator"]
    assert spared == {name: 0 if ALL[name].policy != "none" else head for name in methods}
    assert set(results["end_to_end"]["path"]) >= {"posterior", "bank", "search"}
    assert (out / "stopping" / "ps-nogs-seed1" / "COMPLETE").exists()
    assert (out / "report.html").exists()


@pytest.mark.slow
def test_one_posterior_and_bank_serve_every_label(tmp_path: Path) -> None:
    """Fitted once over two labels, they are used as they are; and not for other images, grids or sequences."""
    npz = write_npz(tmp_path / "images.npz", multilabel=True)
    many = Stages(tmp_path, npz)
    posterior, bank = many.posterior(iterations=20).path, many.bank().path
    flags = ("--data", f"npz:{npz}", *FLAGS, "--iterations", 20, "--seeds", 0, "--jobs", 1, "--bank", bank)
    flags += ("--methods", "ps-nogs")
    for task in ("striped", "across"):
        out = tmp_path / task
        ended = driver().run("run", *flags, "--task", task, "--posterior", posterior, "--out", out)
        assert ended.code == 0, ended.err
        assert json.loads((out / "results.json").read_text())["classes"] == [f"not {task}", task]
        assert not (out / "posterior").exists()
        assert not (out / "bank").exists()
    elsewhere = Stages(tmp_path, write_npz(tmp_path / "others.npz")).bank("others").path
    for more, complaint in (
        (
            ("--posterior", posterior, "--stride", 4),
            r"--posterior \S+ was fitted with another --stride \(had 5, now 4\)",
        ),
        (("--posterior", posterior, "--annotate", 20), r"another --annotate \(had 30, now 20\)"),
        (("--posterior", bank), "is a run directory of `nogs build-bank`, not of `nogs fit-posterior`"),
        (("--bank", elsewhere), r"--bank \S+ was built with another --data"),
    ):
        wrong = driver().run("run", *flags, "--task", "across", *more, "--out", tmp_path / "never")
        assert wrong.code == 2
        assert re.search(complaint, wrong.err), wrong.err
        assert len(wrong.err.splitlines()) == 1
        assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--methods", "ps-ram,ps-nogs"), "ps-ram learns from RAM: add ram to --methods"),
        (("--methods", "ram,ps-hgs"), "ps-hgs learns from sequences that you give: add --sequences, a run of"),
        (("--methods", "ram", "--sequences", "given"), "--sequences given: no method learns from it; add ps-hgs"),
        (("--methods", "ps-hgs", "--sequences", "given"), "is not a run directory of `nogs sequences import`"),
        (("--methods", "gain", "--detail", "0.5"), "--detail 0.5 needs an overview: give --overview, or --detail 0"),
    ],
)
def test_what_a_training_will_miss_is_said_at_once(flags: tuple[str, ...], complaint: str, tmp_path: Path) -> None:
    npz = write_npz(tmp_path / "images.npz")
    ended = driver().run("run", "--data", f"npz:{npz}", *GEOMETRY, *flags, "--out", tmp_path / "out", cwd=tmp_path)
    assert ended.code == 2
    assert complaint in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_training_that_is_killed_is_one_line(tmp_path: Path) -> None:
    """By SIGKILL, as the system does when memory is short. The run can be resumed."""
    flags = (*FLAGS[: FLAGS.index("--iterations")], "--iterations", 20_000, "--posterior-iterations", 20)
    out = tmp_path / "out"
    command = ("run", "--data", f"npz:{write_npz(tmp_path / 'images.npz')}", *flags, "--annotate", 30, "--out", out)
    pid = driver().start(*command, "--methods", "ram", "--seeds", "0,1", "--jobs", 2)
    wait_for((out / "train" / "ram-seed0" / "log.jsonl").exists, "a training's first validation")
    listed = subprocess.run(["pgrep", "-f", "-P", str(pid), "spawn_main"], capture_output=True, text=True, check=True)
    for worker in listed.stdout.split():
        os.kill(int(worker), signal.SIGKILL)
    ended = driver().wait(pid)
    assert ended.code == 1
    assert "Traceback" not in ended.err
    line = ended.err.splitlines()[-1]
    assert line.startswith("nogs: a training process was killed, perhaps for memory: use --jobs 1")
    assert "--resume" in line
    assert not (out / "COMPLETE").exists()


@pytest.mark.parametrize(("pooling", "methods"), [(1.0, ("ram", "path")), (0.75, ("ram", "ps-nogs"))])
def test_a_second_search_runs_only_if_a_method_needs_it(
    stages: Stages, tmp_path: Path, pooling: float, methods: tuple[str, ...]
) -> None:
    searched = RunDirectory(stages.folder / "sequences")
    config = nogs.Run(nogs.Machine(tmp_path / "out"), stages.source, methods=methods, pooling=pooling)
    assert _searched_path(config, searched, Numbering(1)) == searched.path
    assert not (tmp_path / "out").exists()
