"""Coarse and fine cells: neighbours by hand, and interpolation on surfaces that it keeps exactly."""

from __future__ import annotations

import pytest
import torch

from nogs.design.coarse_to_fine import coarse_cells, interpolate, neighbours
from nogs.glimpses.grid import Grid


def test_neighbours() -> None:
    grid = Grid(image_px=10, glimpse_px=4, stride_px=1)
    found = neighbours(torch.tensor([[0, 24]]), grid, 2)[0].nonzero()[:, 0].tolist()
    assert found == sorted([0, 2, 14, 16] + [7 * row + column for row in (1, 3, 5) for column in (1, 3, 5)])


@pytest.mark.parametrize(("side", "step"), [(11, 3), (11, 1), (7, 2), (5, 4), (4, 9), (1, 3)])
def test_interpolation_is_exact_on_planes(side: int, step: int) -> None:
    """a + b row + c column + d row x column is what bilinear interpolation keeps."""
    grid = Grid(image_px=side + 3, glimpse_px=4, stride_px=1)
    cells = torch.arange(side * side)
    row, column = (cells // side).double(), (cells % side).double()
    surface = 1 + 2 * row - 3 * column + 0.5 * row * column
    nodes = coarse_cells(grid, step)
    assert {0, side * side - 1} <= set(nodes.flatten().tolist())
    torch.testing.assert_close(interpolate(surface[nodes.flatten()][None], grid, step)[0], surface)
