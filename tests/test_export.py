"""ONNX graphs and the host loop against torch: the same cells, steps and probabilities, whenever an image stops."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import exported
from exported import SIDE_PX, SPECS, TIE, Exported, T, images_of, reference, thresholds
from nogs.data.decode import decode
from nogs.data.drawn import reduced
from nogs.data.frame import Frame, shown
from nogs.errors import UserError
from nogs.export import nogs_onnx
from nogs.export.description import describe
from nogs.export.interpolation import weights_along
from nogs.glimpses.fovea import look
from nogs.glimpses.grid import Grid
from nogs.stopping.rules import stop_below

EXPORTS: dict[str, Exported] = {}
IN_DEFAULT_RUN = ("heads", "gain")
NAMES = [name if name in IN_DEFAULT_RUN else pytest.param(name, marks=pytest.mark.slow) for name in SPECS]


@pytest.fixture
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The export ``request.param``, made once a process."""
    name = request.param
    if name not in EXPORTS:
        EXPORTS[name] = exported.export(name, tmp_path_factory.mktemp("exported") / name)
    return EXPORTS[name]


def check_parity(made: Exported, n: int, *, seed: int) -> None:
    """Compare n images at thresholds that stop them after every number of glimpses.

    Images whose choice hangs on less than the rounding error of float32 are left out; they are few.
    """
    images = images_of(made.spec, n, seed)
    expected = reference(made, images)
    host = nogs_onnx.Model(made.folder)
    stops = made.spec.method in ("ps-nogs", "gain")
    seen = set()
    for threshold in thresholds(expected.gains) if stops else [None]:
        steps = torch.full((n,), T)
        margins = expected.margins.amin(1)
        if made.spec.method == "act":
            steps = expected.gains[:, 0].long()
        elif threshold is not None:
            steps = stop_below(expected.gains[:, :-1], threshold)
            margins = margins.minimum((expected.gains[:, :-1] - threshold).abs().amin(1))
        clear = (margins > TIE).numpy()
        assert clear.mean() > 0.98
        answers = host.classify(images.numpy(), threshold)
        np.testing.assert_array_equal(answers.steps[clear], steps.numpy()[clear])
        taken = expected.cells.where(torch.arange(T) < steps[:, None], -1).numpy()
        np.testing.assert_array_equal(answers.cells[clear], taken[clear])
        probs = expected.probs[torch.arange(n), steps - 1].numpy()
        np.testing.assert_allclose(answers.probs[clear], probs[clear], rtol=0, atol=1e-5)
        seen |= set(steps.tolist())
    if stops:
        assert seen == set(range(1, T + 1))
    if made.spec.method == "act":
        assert len(seen) > 1
    if made.spec.method not in ("path", "centre"):
        assert len(np.unique(answers.cells[:, 1])) > 3


@pytest.mark.parametrize("made", NAMES, indirect=True)
def test_the_host_loop_equals_torch(made: Exported) -> None:
    check_parity(made, 200, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("made", list(SPECS), indirect=True)
def test_the_host_loop_equals_torch_on_thousands_of_images(made: Exported) -> None:
    for seed in range(4):
        check_parity(made, 1000, seed=10 + seed)


WITHOUT_TORCH = """
import runpy
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "nogs", "onnx", "timm"):
            raise ImportError(name)

sys.meta_path.insert(0, Refused())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("made", ["heads"], indirect=True)
def test_the_host_loop_runs_without_torch_and_nogs(made: Exported, tmp_path: Path) -> None:
    """On a wide file, whose centre is what the network sees; glimpses are in pixels of the file."""
    pixels = images_of(made.spec, 1, 5)
    wide = np.zeros((80, 200, 3), np.uint8)
    wide[:, 60:140] = pixels[0].permute(1, 2, 0).numpy().repeat(2, 0).repeat(2, 1)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    command = [sys.executable, "-I", "-c", WITHOUT_TORCH, made.folder / "nogs_onnx.py", tmp_path / "wide.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    seen = next(decode([tmp_path / "wide.png"], Frame(3, SIDE_PX)))
    assert not isinstance(seen, str)
    expected = reference(made, torch.from_numpy(seen.copy())[None])
    assert list(answer["probs"].values()) == pytest.approx(expected.probs[0, -1].tolist(), abs=1e-5)
    first = made.spec.grid.top_left_px(expected.cells[0]).tolist()
    assert answer["glimpses"] == [[2 * row, 60 + 2 * column] for row, column in first]
    assert (answer["steps"], answer["macs"]) == (T, 4)
    assert answer["label"] == max(answer["probs"], key=answer["probs"].get)


@pytest.mark.parametrize("made", ["heads"], indirect=True)
def test_a_graph_has_a_batch_of_any_size_and_no_paths(made: Exported) -> None:
    model = onnx.load(made.folder / "step.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {value.name for value in model.graph.input} == {"patches", "cells", "t", "h"}
    assert all(value.type.tensor_type.shape.dim[0].dim_param == "batch" for value in model.graph.output)
    assert b".py" not in (made.folder / "step.onnx").read_bytes()


@pytest.mark.parametrize("made", ["gain", "zoom"], indirect=True)
def test_a_graph_computes_nothing_that_is_not_used(made: Exported) -> None:
    for file in ("begin.onnx", "step.onnx"):
        graph = onnx.load(made.folder / file).graph
        used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        assert [node.op_type for node in graph.node if not used.intersection(node.output)] == []


def host(**about: Any) -> nogs_onnx.Model:
    """A host with a description and no network."""
    model = object.__new__(nogs_onnx.Model)
    model.about = {"channels": 3, "image_px": SIDE_PX, "fit": "crop", "scales": 1, **about}
    model.squares_px = nogs_onnx.squares_px(about.get("levels", [[0]]), about.get("glimpse_px", 1))
    return model


@pytest.mark.parametrize("scales", [1, 2, 3])
@pytest.mark.parametrize("glimpse_px", [1, 5, 8, 40])
def test_glimpses_of_the_host_are_those_of_the_fovea(glimpse_px: int, scales: int) -> None:
    widest = {1: 3, 5: 3, 8: 3, 40: 2}[glimpse_px]
    grid = Grid(SIDE_PX, glimpse_px, 3, min(scales, widest))
    images = torch.randint(0, 256, (5, 3, SIDE_PX, SIDE_PX), dtype=torch.uint8)
    rows, cells = torch.tensor([4, 0, 2]), torch.tensor([0, len(grid) // 2, len(grid) - 1])
    model = host(glimpse_px=glimpse_px, scales=grid.scales, levels=[list(level.offsets_px) for level in grid.levels])
    expected = look(images, grid, cells[:, None], rows).patches[:, 0]
    np.testing.assert_array_equal(model.fovea(images.numpy(), rows.numpy(), cells.numpy()), expected.numpy())


def test_glimpses_of_the_host_have_the_levels_of_the_grid() -> None:
    grid = Grid(SIDE_PX, 8, 3, zoom=3)
    images = torch.randint(0, 256, (2, 3, SIDE_PX, SIDE_PX), dtype=torch.uint8)
    cells = torch.arange(len(grid))
    model = host(glimpse_px=8, levels=[list(level.offsets_px) for level in grid.levels])
    np.testing.assert_array_equal(model.squares_px[cells.numpy()], grid.squares_px(cells).numpy())
    rows = torch.ones_like(cells)
    expected = look(images, grid, cells[:, None], rows).patches[:, 0]
    np.testing.assert_array_equal(model.fovea(images.numpy(), rows.numpy(), cells.numpy()), expected.numpy())


@pytest.mark.parametrize("px", [1, 7, 13, 16, 39, 40])
def test_overviews_of_the_host_are_those_of_the_network(px: int) -> None:
    images = torch.randint(0, 256, (20, 3, SIDE_PX, SIDE_PX), dtype=torch.uint8)
    images[10:] = images[10:] // 128  # means that are often halves
    np.testing.assert_array_equal(nogs_onnx.reduced(images.numpy(), px), reduced(images, px).numpy())


MODES = ["1", "L", "P", "RGB", "CMYK", "LA", "RGBA"]


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_host_reads_files_as_training_does(tmp_path: Path, channels: int, fit: Any) -> None:
    """Every mode, a palette with a transparent colour, a large JPEG, a JPEG stored on its side, another shape."""
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 256, (33, 61, 4), dtype=np.uint8), "RGBA")
    files = []
    for mode in MODES:
        files.append(tmp_path / f"{mode}.{'tif' if mode == 'CMYK' else 'png'}")
        (pixels if mode in ("RGBA", "LA") else pixels.convert("RGB")).convert(mode).save(files[-1])
    pixels.convert("RGB").convert("P").save(tmp_path / "clear.png", transparency=3)
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels.convert("RGB").resize((640, 300)).save(tmp_path / "large.jpg", exif=exif)
    files += [tmp_path / "clear.png", tmp_path / "large.jpg"]
    model = host(channels=channels, fit=fit)
    for file, expected in zip(files, decode(files, Frame(channels, SIDE_PX, fit)), strict=True):
        found, box = model.read(file)
        assert not isinstance(expected, str), expected
        np.testing.assert_array_equal(found, expected, err_msg=file.name)
        size = (300, 640) if file.suffix == ".jpg" else (61, 33)
        assert box == shown(*size, fit), file.name


@pytest.mark.parametrize("colour", [0, 2], ids=["grey", "rgb"])
def test_the_host_refuses_files_of_16_bits(tmp_path: Path, colour: int) -> None:
    """A PNG of 2 x 2 pixels, written by hand, because Pillow writes no colours of 16 bits."""
    lines = 2 * (b"\0" + bytes(2 * 2 * (1 if colour == 0 else 3)))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, colour, 0, 0, 0)), (b"IDAT", zlib.compress(lines))]
    data = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in [*chunks, (b"IEND", b"")]
    )
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.raises(ValueError, match=r"deep\.png has more than 8 bits"):
        host().read(tmp_path / "deep.png")


def test_random_cells_are_not_exported() -> None:
    spec = exported.spec_of("random", glimpse_px=8, channels=1, scales=1)
    with pytest.raises(UserError, match="method=random draws its cells by torch"):
        describe(spec, spec.build(), threshold_nats=None, macs=[1, 2, 3, 4])


@pytest.mark.parametrize("pixels", [1, 5, 12])
def test_two_matrix_products_interpolate_as_grid_sample(pixels: int) -> None:
    """At places within the map, on its border and beyond it."""
    places = torch.linspace(-1.2, 1.2, 9)
    image = torch.randn(2, 1, pixels, pixels)
    points = torch.stack(torch.meshgrid(places, places, indexing="ij"), dim=-1).flip(-1).expand(2, -1, -1, -1)
    expected = torch.nn.functional.grid_sample(image, points, padding_mode="border", align_corners=False)
    weights = weights_along(places, pixels)
    torch.testing.assert_close(weights @ image @ weights.T, expected, rtol=0, atol=1e-6)
    assert ((weights != 0).sum(1) <= 2).all()
