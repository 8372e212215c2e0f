"""Tiled TIFFs: levels, squares and overviews against the whole picture; prediction from them; damaged files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

import nogs
from nogs.data.frame import Box, Frame
from nogs.data.pixels import overview
from nogs.data.tiled import tiff
from nogs.data.tiled.opening import open_large
from nogs.data.tiled.slide import Slide
from nogs.data.tiled.tiles import TiledImages
from nogs.errors import UserError
from nogs.glimpses.fovea import look
from nogs.glimpses.grid import Grid
from nogs.prediction.model import Model
from nogs.specs import HardAttentionSpec

tifffile = pytest.importorskip("tifffile")
TILE = 16
Opened = Callable[..., Slide]


@pytest.fixture(autouse=True)
def every_tiled_tiff_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "LARGE_PX", 0)


@pytest.fixture
def opened() -> Iterator[Callable[..., Slide]]:
    """Open slides, and close them at the end."""
    slides: list[Slide] = []

    def open_one(path: Path, *how: Any) -> Slide:
        slides.append(Slide(path, *how))
        assert slides[-1].levels  # read when they are first needed
        return slides[-1]

    yield open_one
    for slide in slides:
        slide.close()


def picture(height: int, width: int, channels: int = 3) -> np.ndarray[Any, Any]:
    """A picture of blobs, so that a reduced view is no noise."""
    rng = np.random.default_rng(height * width)
    coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), channels), dtype=np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)[:height, :width]


def halved(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    h, w = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
    mean = pixels[:h, :w].reshape(h // 2, 2, w // 2, 2, -1).astype(float).mean((1, 3))
    return mean.round().astype(pixels.dtype)


def write(path: Path, pixels: np.ndarray[Any, Any], *, levels: int = 3, **how: Any) -> Path:
    """A pyramid whose level k is the mean of 2^k x 2^k pixels."""
    how = {"tile": (TILE, TILE), "compression": "deflate", "photometric": "rgb", **how}
    if pixels.shape[2] == 1:
        how["photometric"] = "minisblack"
    with tifffile.TiffWriter(path) as file:
        for level in range(levels):
            stored = pixels[..., 0] if pixels.shape[2] == 1 else pixels
            options = {"subifds": levels - 1} if level == 0 else {"subfiletype": 1}
            file.write(stored, **how, **options)
            pixels = halved(pixels)
    return path


def test_any_box_of_any_level_is_that_of_the_picture(tmp_path: Path, opened: Opened) -> None:
    pixels = picture(70, 90)
    slide = opened(write(tmp_path / "a.tif", pixels))
    assert [level[:2] for level in slide.levels] == [(90, 70), (45, 35), (22, 17)]
    for number in range(3):
        h, w = pixels.shape[:2]
        for left, top, right, bottom in (
            (0, 0, w, h),
            (3, 5, 20, 17),
            (15, 15, 17, 17),
            (-4, -2, 6, w),
            (w - 1, 0, w + 5, 3),
        ):
            expected = np.zeros((bottom - top, right - left, 3), dtype=np.uint8)
            rows, columns = slice(max(top, 0), min(bottom, h)), slice(max(left, 0), min(right, w))
            expected[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = pixels[
                rows, columns
            ]
            found = np.asarray(slide.region(number, Box(left, top, right, bottom), 3))
            assert np.array_equal(found, expected)
        pixels = halved(pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_glimpses_and_overview_are_those_of_the_picture_in_memory(
    tmp_path: Path, channels: int, opened: Opened
) -> None:
    """At the size of level 1, of a square slide: bit for bit, borders and scales included."""
    pixels = picture(96, 96, channels)
    slide = opened(write(tmp_path / "a.tif", pixels))
    tiled = TiledImages([slide], Frame(channels, 48))
    whole = torch.from_numpy(halved(pixels)).permute(2, 0, 1)[None]
    grid = Grid(48, 10, 7, scales=2)
    cells = torch.arange(len(grid))[None]
    assert torch.equal(look(tiled, grid, cells).patches, look(whole, grid, cells).patches)
    # Level 2 is stored rounded, so a view computed from it may differ by one step from one computed from level 1.
    difference = overview(tiled, torch.tensor([0]), 12).int() - overview(whole, torch.tensor([0]), 12).int()
    assert difference.abs().max() <= 1
    assert torch.equal(tiled[torch.tensor([0])], whole)
    assert tiled.shape == whole.shape


@pytest.mark.parametrize("stride_px", [4, 7])
def test_zoom_levels_are_those_of_the_picture_in_memory(tmp_path: Path, stride_px: int, opened: Opened) -> None:
    """Within a step of 255, as stored levels are rounded; every square of an odd corner is read from a finer level."""
    pixels = picture(128, 128)
    tiled = TiledImages([opened(write(tmp_path / "a.tif", pixels))], Frame(3, 128))
    whole = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    grid = Grid(128, 8, stride_px, zoom=3)
    cells = torch.arange(len(grid))[None]
    difference = look(tiled, grid, cells).patches.int() - look(whole, grid, cells).patches.int()
    assert difference.abs().max() <= 1
    together = look(tiled, grid, cells).patches[0]
    for cell in (0, grid.side**2, len(grid) - 1):
        assert torch.equal(look(tiled, grid, torch.tensor([[cell]])).patches[0, 0], together[cell])


def test_a_zoomed_glimpse_reads_the_level_that_shows_it(tmp_path: Path, opened: Opened) -> None:
    rng = np.random.default_rng(0)
    slide = opened(write(tmp_path / "a.tif", rng.integers(0, 256, (512, 512, 3), dtype=np.uint8), tile=(64, 64)))
    tiled = TiledImages([slide], Frame(3, 512))
    grid = Grid(512, 16, 16, zoom=3)
    before = slide.bytes_read
    look(tiled, grid, torch.tensor([[len(grid) - 1]]))  # the last square, of 64 pixels, is 16 pixels of level 2
    assert slide.bytes_read - before == slide.levels[2].counts[3]


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_a_slide_that_is_not_square_is_seen_as_a_small_image_is(tmp_path: Path, fit: Any, opened: Opened) -> None:
    """Against the usual way: decoded whole, fitted and resized with another filter."""
    pixels = picture(64, 128)
    slide = opened(write(tmp_path / "a.tif", pixels))
    tiled = TiledImages([slide], Frame(3, 32, fit))[torch.tensor([0])][0].float()
    file = tmp_path / "a.png"
    PIL.Image.fromarray(pixels).save(file)
    from nogs.data.decode import decode

    usual = torch.from_numpy(next(iter(decode([file], Frame(3, 32, fit))))).float()
    assert (tiled - usual).abs().mean() < 12
    assert np.corrcoef(tiled.flatten(), usual.flatten())[0, 1] > 0.97


def test_only_the_tiles_that_are_looked_at_are_read(tmp_path: Path, opened: Opened) -> None:
    rng = np.random.default_rng(0)
    path = write(tmp_path / "a.tif", rng.integers(0, 256, (512, 512, 3), dtype=np.uint8), tile=(64, 64))
    slide = opened(path)
    before = slide.bytes_read
    assert before < path.stat().st_size / 50
    tiled = TiledImages([slide], Frame(3, 512))
    tiled.squares(torch.tensor([[[70, 70], [80, 90]]]), torch.tensor([0]), 20)
    counts = slide.levels[0].counts
    assert slide.bytes_read - before == counts[9]  # both squares lie in the tile of row 1, column 1
    tiled.squares(torch.tensor([[[64, 64]]]), torch.tensor([0]), 64)
    assert slide.bytes_read - before == counts[9]  # kept


def small_model(image_px: int = 48) -> Model:
    torch.manual_seed(0)
    spec = HardAttentionSpec(Grid(image_px, 10, 7), 3, ("a", "b"), 8, 3, "ram", None, "crop", None, 12)
    return Model(spec, spec.build())


def test_the_answer_for_a_slide_is_that_for_its_level(tmp_path: Path) -> None:
    """The network's size is that of level 1: the same label and glimpses as for that picture, in pixels of level 0."""
    pixels = picture(96, 96)
    path, level = write(tmp_path / "slide.tif", pixels), halved(pixels)
    model = small_model()
    of_slide, of_level = model.predict([path, level])
    assert of_slide.probs == pytest.approx(of_level.probs, abs=1e-3)
    assert [(2 * row, 2 * column, 2 * side) for row, column, side in of_level.glimpses] == list(of_slide.glimpses)
    assert of_level.read is None
    assert of_slide.read is not None
    assert 0 < of_slide.read.bytes <= path.stat().st_size
    assert of_slide.read.bytes_share == of_slide.read.bytes / path.stat().st_size
    assert of_slide.size == (96, 96)
    assert of_slide.overlay().size[0] >= 96
    assert of_slide.plot() is not None


def damaged(path: Path, name: str) -> Path:
    """A pyramid with one fault."""
    pixels = picture(96, 96)
    if name == "truncated":
        write(path, np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif name == "no small level":
        write(path, pixels, levels=1)
    elif name == "a level that lies":
        write(path, pixels)
        with tifffile.TiffFile(path, mode="r+b") as file:
            file.series[0].levels[1].keyframe.tags["ImageLength"].overwrite(40)
    elif name == "a level that claims more":
        write(path, pixels)
        with tifffile.TiffFile(path, mode="r+b") as file:
            for tag in ("ImageLength", "ImageWidth"):
                file.series[0].levels[0].keyframe.tags[tag].overwrite(9600)
    elif name == "a tile that is none":
        write(path, pixels)
        with tifffile.TiffFile(path) as file:
            page = file.series[0].levels[1].keyframe
        raw = bytearray(path.read_bytes())
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            raw[offset : offset + count] = bytes(count)
        path.write_bytes(raw)
    elif name == "16 bits":
        write(path, pixels.astype(np.uint16) * 257)
    elif name == "floating point":
        write(path, pixels.astype(np.float32))
    return path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("truncated", "truncated|cannot be read|cannot be decoded|not an image"),
        ("a level that claims more", "lacks tiles"),
        ("a tile that is none", "damaged tile"),
        ("16 bits", "more than 8 bits a channel"),
        ("floating point", "more than 8 bits a channel"),
    ],
)
def test_a_damaged_slide_is_one_line(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as found:
        small_model().predict(damaged(tmp_path / "a.tif", name))
    assert "\n" not in str(found.value)


def test_a_level_that_lies_about_its_size_is_left_out(tmp_path: Path, opened: Opened) -> None:
    slide = opened(damaged(tmp_path / "a.tif", "a level that lies"))
    assert [level[:2] for level in slide.levels] == [(96, 96), (24, 24)]
    assert small_model().predict(slide.path).size == (96, 96)


def test_a_slide_without_a_small_level_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nogs.data.tiled.large.WHOLE_PX", 40 * 40)
    with pytest.raises(UserError, match="has no level between 12 and 96 pixels"):
        small_model().predict(damaged(tmp_path / "a.tif", "no small level"))


def test_deep_pixels_are_mapped_by_the_range(tmp_path: Path, opened: Opened) -> None:
    pixels = picture(64, 64)
    slide = opened(write(tmp_path / "a.tif", pixels.astype(np.uint16) * 256), (0.0, 255 * 256.0))
    assert np.array_equal(np.asarray(slide.region(0, Box(0, 0, 64, 64), 3)), pixels)


def test_tiles_may_have_any_size_and_be_absent(tmp_path: Path, opened: Opened) -> None:
    pixels = picture(70, 90)
    slide = opened(write(tmp_path / "a.tif", pixels, tile=(48, 32)))
    assert np.array_equal(np.asarray(slide.region(0, Box(0, 0, 90, 70), 3)), pixels)
    slide.levels[1].counts[:] = 0
    assert not np.asarray(slide.region(1, Box(0, 0, 45, 35), 3)).any()


@pytest.mark.parametrize("change", ["vanishes", "changes"])
def test_a_file_that_changes_while_it_is_read(tmp_path: Path, change: str, opened: Opened) -> None:
    """An open file can be read after it was removed; a change is refused."""
    path = write(tmp_path / "a.tif", picture(64, 64))
    slide = opened(path)
    if change == "vanishes":
        path.unlink()
        assert slide.region(0, Box(0, 0, 5, 5), 3).size == (5, 5)
    else:
        os.utime(path, ns=(1, 1))
        with pytest.raises(UserError, match="changed while it was read"):
            slide.region(0, Box(0, 0, 5, 5), 3)


def test_an_image_smaller_than_the_network_sees_is_enlarged(tmp_path: Path, opened: Opened) -> None:
    slide = opened(write(tmp_path / "a.tif", np.full((32, 32, 3), 77, dtype=np.uint8), levels=1))
    assert (TiledImages([slide], Frame(3, 48))[torch.tensor([0])] == 77).all()


def test_small_tiffs_and_strips_go_the_usual_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "strips.tif", picture(32, 32), photometric="rgb")
    assert open_large(tmp_path / "strips.tif", None) is None
    path = write(tmp_path / "a.tif", picture(32, 32))
    monkeypatch.setattr(tiff, "LARGE_PX", 2**24)
    assert open_large(path, None) is None


def test_predict_prints_what_it_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "slide.tif", picture(96, 96))
    small_model().save(tmp_path / "model")

    def printed(**how: Any) -> str:
        nogs.predict(nogs.Predict(tmp_path / "model", (path,), **how))
        return capsys.readouterr().out

    answer = json.loads(printed(json=True, save_overlays=tmp_path / "drawn"))
    assert answer["read_bytes"] / path.stat().st_size == answer["read_bytes_share"]
    assert len(answer["glimpses"]) == len(answer["sides"]) == 3
    lines = printed().splitlines()
    assert "% of the file" in lines[1]
    assert len(lines) == 2 + 3
    with PIL.Image.open(tmp_path / "drawn" / "slide.png") as drawn:
        assert drawn.size[0] >= 96
