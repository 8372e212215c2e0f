"""`nogs predict` on an exported network: the answers of the network, without importing torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nogs
from exported import traceable
from staged import Stages
from tiny import pictures
from typed import save

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("cached")
PROGRAM = """
import sys
import nogs.cli
code = nogs.cli.main(sys.argv[1:])
print(*({"torch", "tyro", "scipy", "matplotlib"} & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def export(stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("onnx") / "model"
    with traceable():
        nogs.export_onnx(nogs.Export(stages.folder / "nogs-0", out))
    return out


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Five photographs, one of them wide."""
    images: list[Any] = list(pictures(np.arange(5) % 3, seed=7))
    images[1] = np.hstack([images[1], images[1]])
    return [save(image, tmp_path / f"{number}.png") for number, image in enumerate(images)]


def answers(capsys: pytest.CaptureFixture[str], model: Path, files: list[Path]) -> list[dict[str, Any]]:
    nogs.predict(nogs.Predict(model, tuple(files), json=True, device="cpu"))
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_an_export_answers_as_its_network(
    stages: Stages, export: Path, files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    expected, found = answers(capsys, stages.folder / "nogs-0", files), answers(capsys, export, files)
    for one, other in zip(expected, found, strict=True):
        assert other.pop("probs") == pytest.approx(one.pop("probs"), abs=1e-5)
        assert other == one


def test_an_export_predicts_without_torch(export: Path, files: list[Path]) -> None:
    """With a file that is reported and skipped."""
    (files[0].parent / "bad.png").write_bytes(b"no image")
    words = ["predict", export, files[0], files[0].parent / "bad.png", files[0].parent, "--json"]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert [json.loads(line)["file"] for line in done.stdout.splitlines()] == [str(files[0]), *map(str, files)]
    *problems, imported = done.stderr.splitlines()
    assert imported == "tyro"
    assert [line.partition("bad.png: ")[2] for line in problems[:2]] == ["is not an image that Pillow can read"] * 2
    assert problems[2] == "nogs: 2 of 8 images cannot be read; they are named above"


@pytest.mark.parametrize("harm", ["json", "graph", "missing"])
def test_a_damaged_export_is_one_line(export: Path, files: list[Path], tmp_path: Path, harm: str) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(export, damaged)
    if harm == "json":
        (damaged / "model.json").write_text("{")
    elif harm == "graph":
        (damaged / "step.onnx").write_bytes((damaged / "step.onnx").read_bytes()[:1000])
    else:
        (damaged / "step.onnx").unlink()
    with pytest.raises(nogs.UserError, match=r"is an export that cannot be run \(.*\): export it again") as caught:
        nogs.predict(nogs.Predict(damaged, tuple(files)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ({"save_overlays": Path("x")}, "save_overlays=x: .* is an export; give the run directory of train"),
        ({"stopping": Path("x"), "threshold": 0.1}, "stopping=x: .* is an export"),
        ({"threshold": 0.1}, "threshold=0.1: this export predicts no gain; export it with `stopping`"),
    ],
    ids=["overlays", "stopping", "threshold"],
)
def test_what_an_export_cannot_do_is_one_line(
    export: Path, files: list[Path], how: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(nogs.UserError, match=complaint):
        nogs.predict(nogs.Predict(export, tuple(files), **how))
