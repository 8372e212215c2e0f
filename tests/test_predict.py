"""Prediction reads image files exactly as training does, and answers in pixels of the file."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
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
from typed import NOGS, save

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
    """A network trained for one iteration; the tests compare its answers with each other."""
    config = nogs.Train(
        nogs.Machine(place, device="cpu"),
        nogs.Source(data=f"folder:{data}", **source),
        GEOMETRY,
        nogs.Optimisation(iterations=1, validate_every=1),
        network=nogs.AttentionNetwork(8),
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
    printed = capsys.readouterr()
    assert "it is a FIFO, not a file" in printed.err
    assert len(printed.out.splitlines()) == 1


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


def test_files_come_from_patterns_and_from_standard_input(
    stages: Stages,
    tmp_path: Path,
    photographs: np.ndarray[Any, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a file whose name has the characters of a pattern, which is itself."""
    names = ["a.png", "b.png", "in/c.png", "[d].png"]
    files = [save(image, tmp_path / name) for image, name in zip(photographs, names, strict=False)]
    (tmp_path / "folder.png").mkdir()

    def named(*arguments: Path) -> list[str]:
        predict(nogs.Predict(stages.folder / "ram-0", arguments, json=True, device="cpu"))
        return [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()]

    assert named(tmp_path / "?.png") == [str(file) for file in files[:2]]
    assert named(tmp_path / "**" / "*.png") == sorted(map(str, files))
    assert named(files[3], tmp_path / "in") == [str(files[3]), str(files[2])]
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{files[1]}\n\n{files[0]}\r\n"))
    assert named(Path("-")) == [str(files[1]), str(files[0])]
    assert "no file has a name of this pattern" in refusal(stages.folder / "ram-0", tmp_path / "*.jpg")
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert refusal(stages.folder / "ram-0", Path("-")) == "standard input names no file; give one path a line"


def test_overlays_show_each_image_with_its_glimpses(
    stages: Stages, tmp_path: Path, photographs: np.ndarray[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two files of one name: 16 pixels become 480, and the border of every glimpse is red."""
    files = [save(photographs[0], tmp_path / "a.png"), save(photographs[1], tmp_path / "b" / "a.png")]
    save(photographs[0], tmp_path / "bad.png").write_bytes(b"no image")
    out = tmp_path / "out" / "overlays"
    ask = nogs.Predict(stages.folder / "ram-0", (*files, tmp_path / "bad.png"), json=True, save_overlays=out)
    with pytest.raises(nogs.RunError, match="1 of 3 images cannot be read"):
        predict(ask)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(file.name for file in out.iterdir()) == ["a-2.png", "a.png"]
    for name, answer, image in zip(("a.png", "a-2.png"), lines, photographs, strict=False):
        drawn = np.asarray(Image.open(out / name)).astype(int)
        assert drawn.shape == (480, 480, 3)
        red = (drawn == (255, 0, 0)).all(-1)
        inside = np.zeros((480, 480), dtype=bool)
        for (row, column), side in zip(answer["glimpses"], answer["sides"], strict=True):
            edge = red[30 * row : 30 * (row + side), 30 * column : 30 * (column + side)]
            assert edge[-1].all()
            assert edge[:, -1].all()
            inside[30 * row : 30 * (row + side), 30 * column : 30 * (column + side)] = True
        enlarged = np.kron(image, np.ones((30, 30), dtype=int))
        assert (drawn[~inside] == enlarged[~inside][:, None]).all()


@pytest.mark.slow
def test_a_closed_pipe_ends_prediction_quietly(
    stages: Stages, tmp_path: Path, photographs: np.ndarray[Any, Any]
) -> None:
    """As in `nogs predict ... --json | head -n 1`, with more images than a pipe holds answers."""
    file = save(photographs[0], tmp_path / "a.png")
    names = "\n".join([str(file)] * 1500)
    command = f"{NOGS} predict {stages.folder / 'ram-0'} - --json | head -n 1"
    done = subprocess.run(command, shell=True, input=names, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


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
