"""Prediction reads image files exactly as training does, and answers in pixels of the file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nogs
from nogs.runs.directory import RunDirectory
from nogs.stages.predict import predict
from staged import GEOMETRY, Stages, silent
from tiny import pictures
from typed import save

pytestmark = pytest.mark.usefixtures("cached")


def answers(capsys: pytest.CaptureFixture[str], model: Path, *files: Path) -> list[dict[str, Any]]:
    """The answer for each path alone, because those of a batch may differ by rounding."""
    capsys.readouterr()
    for file in files:
        predict(nogs.Predict(model, (file,), json=True, device="cpu"))
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def refusal(model: Path, *files: Path) -> str:
    with pytest.raises(nogs.UserError) as caught:
        predict(nogs.Predict(model, files, device="cpu"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def trained(place: Path, data: Path, **source: Any) -> RunDirectory:
    """A network trained for one iteration: what it answers does not matter, but that it answers the same."""
    config = nogs.Train(
        nogs.Machine(place, device="cpu"),
        nogs.Source(data=f"folder:{data}", **source),
        GEOMETRY,
        nogs.Optimisation(iterations=1, validate_every=1),
        hidden=8,
    )
    return nogs.train(config, silent)


@pytest.fixture
def photographs() -> np.ndarray[Any, Any]:
    """uint8 [8, 16, 16]."""
    return pictures(np.arange(8) % 3, seed=7)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["fifo", "folder of folders", "device", "missing", "empty", "folder without files"])
def test_a_path_that_is_no_image_is_one_line(stages: Stages, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.jpg"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "folder without files":
        path.mkdir()
    elif kind == "folder of folders":
        (path / "inner.jpg").mkdir(parents=True)
    complaint = {
        "fifo": "it is a FIFO, not a file",
        "device": "it is a device, not a file",
        "missing": "No such file",
        "empty": "is empty",
    }.get(kind, "this folder has no files")
    problem = refusal(stages.folder / "ram-0", path)
    assert str(path) in problem
    assert complaint in problem


def test_a_fifo_among_images_is_left_out_and_reported(
    stages: Stages, tmp_path: Path, photographs: np.ndarray[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    save(photographs[0], tmp_path / "set" / "a.png")
    os.mkfifo(tmp_path / "set" / "b.png")
    with pytest.raises(nogs.RunError, match="1 of 2 images cannot be read"):
        answers(capsys, stages.folder / "ram-0", tmp_path / "set")
    said = capsys.readouterr()
    assert "it is a FIFO, not a file" in said.err
    assert len(said.out.splitlines()) == 1


@pytest.mark.parametrize(
    ("suffix", "values"),
    [
        ("png", np.arange(256, dtype=np.uint16).reshape(16, 16) * 200),
        ("tif", np.arange(256, dtype=np.uint16).reshape(16, 16) * 200),
        ("tif", np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)),
        ("tif", np.arange(256, dtype=np.int32).reshape(16, 16)),
    ],
)
def test_what_training_refuses_prediction_refuses(
    stages: Stages, tmp_path: Path, suffix: str, values: np.ndarray[Any, Any]
) -> None:
    file = save(values, tmp_path / f"deep.{suffix}")
    assert f"{file}: has more than 8 bits a channel" in refusal(stages.folder / "ram-0", file)


def test_the_range_of_training_is_that_of_prediction(
    tmp_path: Path, photographs: np.ndarray[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Microscopy of 12 bits: 100 + 16 v is read with range 100,4180 as v, which is also what an 8-bit file holds."""
    for number, image in enumerate(photographs):
        save(image.astype(np.uint16) * 16 + 100, tmp_path / "set" / "ab"[number % 2] / f"{number}.png")
    run = trained(tmp_path / "run", tmp_path / "set", range=(100.0, 4180.0))
    meta = run.load_metadata("model")
    assert (meta["fit"], meta["range"]) == ("crop", [100.0, 4180.0])
    deep, shallow = answers(
        capsys, run.path, tmp_path / "set" / "a" / "0.png", save(photographs[0], tmp_path / "shallow.png")
    )
    assert deep["probs"] == shallow["probs"]
    assert deep["glimpses"] == shallow["glimpses"]


def test_glimpses_are_in_pixels_of_a_cropped_file(
    stages: Stages, tmp_path: Path, photographs: np.ndarray[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The same square alone, and in the middle of a wide and of a tall image."""
    square = photographs[0]
    wide = np.zeros((16, 48), dtype=np.uint8)
    wide[:, 16:32] = square
    files = [
        save(square, tmp_path / "square.png"),
        save(wide, tmp_path / "wide.png"),
        save(np.vstack([np.zeros_like(square), square, np.zeros_like(square)]), tmp_path / "tall.png"),
    ]
    alone, in_wide, in_tall = answers(capsys, stages.folder / "ram-0", *files)
    assert alone["probs"] == in_wide["probs"] == in_tall["probs"]
    assert in_wide["glimpses"] == [[row, column + 16] for row, column in alone["glimpses"]]
    assert in_tall["glimpses"] == [[row + 16, column] for row, column in alone["glimpses"]]
    predict(nogs.Predict(stages.folder / "ram-0", tuple(files), device="cpu"))
    assert "removes more than a third of 2 of 3 images (67 % at most), as in training" in capsys.readouterr().err


@pytest.mark.parametrize("fit", ["pad", "squash"])
def test_glimpses_are_in_pixels_of_a_padded_or_squashed_file(
    tmp_path: Path, photographs: np.ndarray[Any, Any], capsys: pytest.CaptureFixture[str], fit: str
) -> None:
    """A 16 x 48 image: padded, it is its third on the middle of a square; squashed, a third as wide."""
    for number, image in enumerate(photographs):
        save(image, tmp_path / "set" / "ab"[number % 2] / f"{number}.png")
    run = trained(tmp_path / "run", tmp_path / "set", fit=fit)
    wide = save(np.hstack(list(photographs[:3])), tmp_path / "wide.png")
    image = Image.open(wide)
    square = np.zeros((16, 16), dtype=np.uint8)
    if fit == "pad":
        square[5:10] = np.asarray(image.resize((16, 5), Image.Resampling.LANCZOS))
    else:
        square = np.asarray(image.resize((16, 16), Image.Resampling.LANCZOS))
    alone, in_wide = answers(capsys, run.path, save(square, tmp_path / "square.png"), wide)
    assert alone["probs"] == in_wide["probs"]
    down, above = (3, 16) if fit == "pad" else (1, 0)
    assert in_wide["glimpses"] == [[down * row - above, 3 * column] for row, column in alone["glimpses"]]
    assert "removes" not in capsys.readouterr().err


def test_an_image_is_upright_in_prediction(
    stages: Stages, tmp_path: Path, photographs: np.ndarray[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    upright = save(photographs[0], tmp_path / "upright.png")
    Image.fromarray(np.ascontiguousarray(np.rot90(photographs[0]))).save(tmp_path / "turned.png", exif=turned)
    one, other = answers(capsys, stages.folder / "ram-0", upright, tmp_path / "turned.png")
    assert one["probs"] == other["probs"]
    assert one["glimpses"] == other["glimpses"]
