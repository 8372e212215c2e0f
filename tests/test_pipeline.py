"""`nogs run` as it is typed, `nogs predict` on what it made, and the same from Python."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tiny import CLASSES, GEOMETRY, GLIMPSE_PX, IMAGE_PX, STRIDE_PX, T, driver, pictures, write_npz

EXAMPLE = Path(__file__).parents[1] / "examples" / "pipeline.py"
METHODS, SEEDS = ("ram", "ps-nogs"), (0, 1)
FLAGS = (
    *(*GEOMETRY, "--batch-size", 32, "--iterations", 40, "--validate-every", 20, "--posterior-iterations", 40),
    *("--annotate", 30, "--methods", ",".join(METHODS), "--seeds", "0,1", "--jobs", 2),
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
    assert not re.search(r"""(src|<link[^>]*href)=["']?(https?:|//)""", report)  # it needs no network


def test_a_run_ends_with_the_table_and_where_the_report_is(pipeline: Pipeline) -> None:
    assert pipeline.stdout.splitlines()[-1] == f"report: {pipeline.out / 'report.html'}"
    assert "Iterations to target" in pipeline.stdout
    assert "Warning" not in pipeline.stderr
    assert "Traceback" not in pipeline.stderr


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


def test_predictions_are_those_of_the_evaluation(pipeline: Pipeline, tmp_path: Path) -> None:
    record = load_file(pipeline.out / "evaluation" / "ps-nogs-seed1.safetensors")
    x = np.load(pipeline.npz)["x"]
    files = [tmp_path / f"{image} é.png" for image in record["images"].tolist()]
    for file, image in zip(files, record["images"].tolist(), strict=True):
        Image.fromarray(x[image]).save(file)
    model = pipeline.out / "train" / "ps-nogs-seed1"
    said = driver().run("predict", model, *files, "--json")
    assert said.code == 0, said.err
    predictions = [json.loads(line) for line in said.out.splitlines()]
    macs = pipeline.read("results.json")["methods"]["ps-nogs"]["macs_by_glimpse"][-1]
    for one, file, log_probs, cells in zip(predictions, files, record["log_probs"], record["cells"], strict=True):
        assert one.keys() == {"file", "label", "probs", "glimpses", "steps", "macs"}
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


def test_the_example_runs_on_a_folder_of_images(tmp_path: Path) -> None:
    for label, name in enumerate(("across", "down", "chess")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for place, image in enumerate(pictures(np.full(12, label), seed=label)):
            Image.fromarray(image).resize((70, 64 + place)).save(tmp_path / "images" / name / f"{place}.jpg")
    ended = driver().run(EXAMPLE, tmp_path / "images", tmp_path / "out", 20)
    assert ended.code == 0, ended.err
    *methods, prediction, report = ended.out.splitlines()
    assert [line.split(" ")[0] for line in methods] == list(METHODS)
    assert json.loads(prediction)["probs"].keys() == {"across", "down", "chess"}
    assert report == f"open {tmp_path / 'out' / 'report.html'}"
    assert (tmp_path / "out" / "report.html").exists()
