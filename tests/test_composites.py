"""Photographs with pasted objects, against the same composites pasted whole, pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from nogs.data.composites import FADE, Composites
from nogs.data.pixels import overview
from nogs.glimpses.fovea import fovea
from nogs.glimpses.grid import Grid

N, H, S = 6, 48, 3


def composites(seed: int = 0) -> Composites:
    """Three photographs; pastes of 5 to 20 pixels at random places, bright and dark; the last of each has side 0."""
    rng = np.random.default_rng(seed)
    side = rng.integers(5, 21, (N, S))
    side[:, -1] = 0
    first = rng.integers(1, H - side[..., None], (N, S, 2))
    pastes = np.concatenate(
        (rng.integers(0, 4, (N, S, 1)), first, side[..., None], rng.integers(60, 160, (N, S, 1))), axis=-1
    )
    return Composites(
        torch.from_numpy(rng.integers(0, 256, (3, 3, H, H), dtype=np.uint8)),
        torch.from_numpy(rng.integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)),
        torch.tensor([True, False, True, False]),
        torch.from_numpy(rng.integers(0, 3, N)),
        torch.from_numpy(pastes),
    )


def pasted(composites: Composites) -> Tensor:
    """All composites, with plain loops."""
    whole = composites.photographs[composites.photograph].clone()
    for image, pastes in zip(whole, composites.pastes.tolist(), strict=True):
        for cutout, row, column, side, percent in pastes:
            if not side:
                continue
            picture = composites.cutouts[None, cutout].float()
            small = F.interpolate(picture, (side, side), mode="bilinear", antialias=True)
            for i in range(side):
                for j in range(side):
                    opacity = 1.0
                    if composites.round[cutout]:
                        radius = math.dist((i + 0.5, j + 0.5), (side / 2, side / 2)) / side
                        opacity = min(1.0, max(0.0, (0.5 - radius) / FADE))
                    else:
                        for k in (i, j):
                            opacity *= min(1.0, min(k + 0.5, side - k - 0.5) / side / FADE)
                    for c in range(3):
                        value = min(255.0, small[0, c, i, j].item() * percent / 100)
                        below = image[c, row + i, column + j].item()
                        image[c, row + i, column + j] = round(below + opacity * (value - below))
    return whole


def test_whole_composites_are_photographs_with_pastes_later_ones_above() -> None:
    found = composites()
    assert found.shape == (N, 3, H, H)
    torch.testing.assert_close(found[:].int(), pasted(found).int(), rtol=0, atol=1)
    torch.testing.assert_close(found[torch.tensor([3, 1])], found[:][[3, 1]])


@pytest.mark.parametrize(("glimpse_px", "scales"), [(5, 1), (16, 1), (8, 3)])
def test_glimpses_are_those_of_the_whole_composite_beyond_its_border_too(glimpse_px: int, scales: int) -> None:
    found, chance = composites(1), Generator().manual_seed(0)
    rows = torch.randint(N, (7,), generator=chance)
    top_left_px = torch.randint(-12, H + 5, (7, 4, 2), generator=chance)
    grid = Grid(H, glimpse_px, 4, scales)
    torch.testing.assert_close(
        fovea(found, grid, top_left_px, rows), fovea(found[:], grid, top_left_px, rows), rtol=0, atol=0
    )


@pytest.mark.parametrize("px", [16, 12, 7])
def test_overviews_are_means_of_whole_composites(px: int) -> None:
    found, rows = composites(2), torch.tensor([4, 0, 5])
    torch.testing.assert_close(found.overview(rows, px), overview(found[:], rows, px), rtol=0, atol=0)


@pytest.mark.parametrize(("px", "view_px"), [(16, 16), (13, 16), (17, 24), (25, 48)])
def test_views_are_reduced_by_a_whole_number(px: int, view_px: int) -> None:
    found, rows = composites(2), torch.tensor([4, 0, 5])
    assert found.view_px(px) == view_px
    torch.testing.assert_close(found.view(rows, px), overview(found[:], rows, view_px), rtol=0, atol=0)


def test_a_paste_changes_nothing_outside_of_it() -> None:
    found = composites(3)
    plain = found.photographs[found.photograph]
    changed = (found[:] != plain).any(1)
    for image, pastes in zip(changed, found.pastes.tolist(), strict=True):
        for _, row, column, side, _ in pastes:
            image[row : row + side, column : column + side] = False
    assert not changed.any()


def test_content_tells_composites_apart() -> None:
    one, other = composites(4), composites(4)
    assert b"".join(one.content()) == b"".join(other.content())
    other.pastes[0, 0, 1] += 1
    assert b"".join(one.content()) != b"".join(other.content())
    other.pastes[0, 0, 1] -= 1
    other.round[0] = False
    assert b"".join(one.content()) != b"".join(other.content())
