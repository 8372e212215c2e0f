"""Synthetic slides: pyramids against means of the picture, lesions of the share and the texture, and the command."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

import nogs
from nogs.config.groups import Machine, Source
from nogs.config.stages import Slides
from nogs.data import load
from nogs.data.frame import Box
from nogs.data.tiled import tiff
from nogs.data.tiled.pyramid import TILE_PX, halved, tile_of, write_pyramid
from nogs.data.tiled.slide import Slide
from nogs.data.tiled.tiles import TiledImages
from nogs.data.tiled.tissue import KINDS, Drawing, Stock, core_px, stock
from nogs.errors import UserError
from nogs.stages.slides import write_slides

pytest.importorskip("tifffile")


@pytest.fixture(scope="module")
def tiles() -> Stock:
    return stock(0)


@pytest.mark.parametrize("side", [256, 515, 1000, 1300])
def test_every_level_is_the_mean_of_the_one_before(tmp_path: Path, side: int) -> None:
    """Against a picture in memory; JPEG changes a smooth one by a few steps."""
    count = -(-side // TILE_PX)
    y, x = np.mgrid[: count * TILE_PX, : count * TILE_PX]
    whole = np.stack((y * 255 // y.max(), x * 255 // x.max(), (x + y) * 255 // (x + y).max()), -1).astype(np.uint8)

    def tile_at(row: int, column: int) -> object:
        return tile_of(
            whole[row * TILE_PX : (row + 1) * TILE_PX, column * TILE_PX : (column + 1) * TILE_PX],
        )

    write_pyramid(tmp_path / "a.tif", side, tile_at)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]
    slide, expected, px = Slide(tmp_path / "a.tif"), whole, side
    for number, level in enumerate(slide.levels):
        assert level[:2] == (px, px)
        found = np.asarray(slide.region(number, Box(0, 0, px, px), 3)).astype(int)
        assert np.abs(found - expected[:px, :px]).max() <= 12
        assert np.abs(found - expected[:px, :px]).mean() < 2
        expected, px = halved(expected), px // 2
    assert slide.levels[-1].width <= 256
    slide.close()


def test_halved_is_the_rounded_mean() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    mean = pixels.reshape(4, 2, 3, 2, 3).astype(float).mean((1, 3))
    assert np.array_equal(halved(pixels), np.floor(mean + 0.5))


def whole(drawing: Drawing) -> np.ndarray:
    count = -(-drawing.side_px // TILE_PX)
    rows = [np.concatenate([drawing.tile(i, j).pixels for j in range(count)], axis=1) for i in range(count)]
    return np.concatenate(rows)[: drawing.side_px, : drawing.side_px].astype(float)


def test_a_lesion_has_its_share_and_differs_from_other_nodules_in_texture_alone(tiles: Stock) -> None:
    """Means and deviations of cores agree; the striped one repeats along one direction, and no other does."""
    side, share = 1000, 1e-3
    core = core_px(side, share)
    assert np.pi * core**2 / 4 / side**2 == pytest.approx(share)
    drawing = Drawing(side, core, kind="striped", stock=tiles, seed=(0, 1, 0))
    pixels = whole(drawing)
    y, x = np.mgrid[:side, :side] + 0.5
    means, deviations = {}, {}
    for nodule in drawing.nodules:
        core_of = pixels[np.hypot(y - nodule.row, x - nodule.column) < core / 2]
        assert len(core_of) / side**2 == pytest.approx(share, rel=0.05)
        means.setdefault(nodule.kind, []).append(core_of.mean())
        deviations.setdefault(nodule.kind, []).append(core_of.std(0).mean())
    assert np.ptp([*means["striped"], *means["none"]]) < 10
    assert np.ptp([*deviations["striped"], *deviations["none"]]) < 6
    lesion = drawing.lesion
    assert lesion is not None
    assert lesion.kind == "striped"
    # Along the middle of a stripe nothing changes.
    sine, cosine, quarter = np.sin(lesion.angle), np.cos(lesion.angle), drawing.grain_px / 4
    steps = np.arange(-core / 3, core / 3)
    rows = (lesion.row + quarter * cosine - steps * sine).astype(int)
    columns = (lesion.column + quarter * sine + steps * cosine).astype(int)
    line = pixels[rows, columns, 0]
    assert np.mean(np.abs(np.diff(line)) > 40) < 0.15


def test_a_seed_gives_a_slide_and_another_another(tiles: Stock) -> None:
    one, again, other = (
        whole(Drawing(600, 20.0, kind="none", stock=tiles, seed=(0, 1, number))) for number in (0, 0, 1)
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert Drawing(600, 20.0, kind="none", stock=tiles, seed=(0, 1, 0)).lesion is None


@pytest.mark.parametrize(("share", "reason"), [(1e-6, "texture needs 16: give at least 0.0002"), (0.1, "do not fit")])
def test_a_lesion_that_is_too_small_or_too_large_is_refused(tmp_path: Path, share: float, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        write_slides(Slides(Machine(tmp_path / "out"), 5, side=1000, lesion_share=share))
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("cached")
def test_the_command_writes_what_csv_reads_and_goes_on_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff, "LARGE_PX", 0)
    config = Slides(Machine(tmp_path / "out"), 15, side=600, lesion_share=1e-3)

    def dies(step: int, note: str) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_slides(config, dies)
    assert len(list((tmp_path / "out" / "slides").iterdir())) == 4
    assert not (tmp_path / "out" / "labels.csv").exists()
    before = (tmp_path / "out" / "slides" / "00.tif").stat().st_mtime_ns
    resumed = Slides(Machine(tmp_path / "out", resume=True), 15, side=600, lesion_share=1e-3)
    assert write_slides(resumed).complete
    assert (tmp_path / "out" / "slides" / "00.tif").stat().st_mtime_ns == before
    write_slides(Slides(Machine(tmp_path / "again"), 15, side=600, lesion_share=1e-3))
    for path in (tmp_path / "out" / "slides").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / "slides" / path.name).read_bytes()
    data = load(Source(data=f"csv:{tmp_path / 'out' / 'labels.csv'}"))
    assert isinstance(data.images, TiledImages)
    assert data.images.shape == (15, 3, 600, 600)
    assert data.classes == KINDS
    assert [len(data.members(split)) for split in ("train", "val", "test")] == [9, 3, 3]
    assert data.labels.bincount().tolist() == [5, 5, 5]
    with (tmp_path / "out" / "lesions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    row = rows[0]
    side = int(row["side_px"])
    corner = torch.tensor([[[int(row["row"]), int(row["column"])]]])
    at = data.names.index(row["file"])
    square = data.images.squares(corner, torch.tensor([at]), side)[0, 0].float()
    assert square[1].mean() < 130  # darker than tissue and halo


def test_it_is_a_command_and_a_function() -> None:
    assert nogs.write_slides is write_slides
    assert nogs.Slides is Slides
