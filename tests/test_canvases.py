"""Canvases that are drawn where they are looked at, against the same canvases drawn whole, stamp by stamp."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from nogs.data.canvases import Canvases
from nogs.data.pixels import mean_image, overview
from nogs.glimpses.fovea import fovea
from nogs.glimpses.grid import Grid

N, H, S = 5, 40, 6


def canvases(seed: int = 0) -> Canvases:
    """Stamps of three sides, at random places; the last stamp of each canvas has side 0."""
    rng = np.random.default_rng(seed)
    pictures = rng.integers(1, 256, (4, 12, 12), dtype=np.uint8)
    side = rng.choice([3, 7, 12], (N, S, 1))
    side[:, -1] = 0
    picture = rng.integers(0, 4, (N, S, 1))
    stamps = np.concatenate(
        (picture, rng.integers(0, 12 - side + 1, (N, S, 2)), side, rng.integers(0, H - side + 1, (N, S, 2))), axis=-1
    )
    return Canvases(torch.from_numpy(pictures), torch.from_numpy(stamps.astype(np.int32)), image_px=H)


def drawn(canvases: Canvases) -> Tensor:
    """All canvases, with plain loops."""
    whole = np.zeros((len(canvases), 1, H, H), dtype=np.uint8)
    for canvas, stamps in zip(whole[:, 0], canvases.stamps.tolist(), strict=True):
        for picture, top, left, side, row, column in stamps:
            for i in range(side):
                for j in range(side):
                    pixel = canvases.pictures[picture, top + i, left + j].item()
                    canvas[row + i, column + j] = max(canvas[row + i, column + j], pixel)
    return torch.from_numpy(whole)


def test_whole_canvases_are_their_stamps_the_brighter_pixel_kept() -> None:
    found = canvases()
    assert found.shape == (N, 1, H, H)
    assert len(found) == N
    torch.testing.assert_close(found[:], drawn(found))
    torch.testing.assert_close(found[torch.tensor([3, 1])], drawn(found)[[3, 1]])
    torch.testing.assert_close(found.index_select(0, torch.tensor([2])), drawn(found)[2:3])
    torch.testing.assert_close(torch.cat(list(found.chunks(8))), drawn(found))


@pytest.mark.parametrize(("glimpse_px", "scales"), [(5, 1), (16, 1), (6, 2), (8, 3), (16, 3)])
def test_glimpses_are_those_of_the_whole_canvas_beyond_its_border_too(glimpse_px: int, scales: int) -> None:
    found, chance = canvases(1), Generator().manual_seed(0)
    rows = torch.randint(N, (7,), generator=chance)
    top_left_px = torch.randint(-12, H + 5, (7, 4, 2), generator=chance)
    grid = Grid(H, glimpse_px, 4, scales)
    torch.testing.assert_close(
        fovea(found, grid, top_left_px, rows).int(), fovea(drawn(found), grid, top_left_px, rows).int(), rtol=0, atol=0
    )


@pytest.mark.parametrize("px", [1, 8, 7])
def test_an_overview_is_the_rounded_mean_of_what_each_pixel_covers(px: int) -> None:
    found, rows = canvases(2), torch.tensor([4, 4, 0])
    whole = drawn(found)[rows].double()
    expected = torch.empty(3, 1, px, px, dtype=torch.float64)
    for i in range(px):
        for j in range(px):
            (top, bottom), (left, right) = ((k * H // px, -(-(k + 1) * H // px)) for k in (i, j))
            expected[:, :, i, j] = whole[:, :, top:bottom, left:right].mean((2, 3))
    torch.testing.assert_close(overview(found, rows, px).double(), expected, rtol=0, atol=0.5001)
    torch.testing.assert_close(overview(found, rows, px), overview(drawn(found), rows, px))


def test_a_canvas_takes_no_more_memory_when_it_is_larger() -> None:
    stamps = canvases().stamps
    large = Canvases(canvases().pictures, stamps, image_px=100_000)
    patches = large.squares(stamps[:, :1, 4:].long() + 90_000, torch.arange(N), 32)
    assert patches.shape == (N, 1, 1, 32, 32)
    assert not patches.any()
    near = large.squares(stamps[:, :1, 4:].long(), torch.arange(N), 12)
    torch.testing.assert_close(near[:, 0], fovea(drawn(canvases()), Grid(H, 12, 1), stamps[:, :1, 4:].long())[:, 0])


def test_the_mean_image_is_that_of_the_canvases_drawn_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nogs.data.pixels.DRAWN_AT_ONCE", 2 * H**2)
    found, rows = canvases(), torch.tensor([0, 3, 4])
    for images in (found, drawn(found)):
        torch.testing.assert_close(mean_image(images, rows), drawn(found)[rows].float().mean(0))
