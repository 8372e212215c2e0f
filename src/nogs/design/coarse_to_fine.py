"""Coarse and fine cells of the grid, between which a gain map is interpolated: the pilot of a race.

Maps are smooth, since neighbouring glimpses overlap, so a few cells estimate all of them.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nogs.glimpses.grid import Grid


def coarse_cells(grid: Grid, step: int) -> Int[Tensor, "m m"]:
    """Return every ``step``-th cell of the grid along both axes, and the last."""
    along = torch.tensor(sorted({*range(0, grid.side, step), grid.side - 1}))
    return along[:, None] * grid.side + along


def interpolate(values: Float[Tensor, "B nodes"], grid: Grid, step: int) -> Float[Tensor, "B L"]:
    """Return values of all cells, interpolated linearly along both axes from those of `coarse_cells`."""
    along = coarse_cells(grid, step)[0].to(values.device)
    m = len(along)
    if m == 1:
        return values.expand(-1, len(grid)).clone()
    every = torch.arange(grid.side, device=values.device)
    after = torch.searchsorted(along, every).clamp(1, m - 1)
    share = (every - along[after - 1]).to(values.dtype) / (along[after] - along[after - 1])
    mix = values.new_zeros(grid.side, m)
    mix[every, after - 1], mix[every, after] = 1 - share, share
    return (mix @ values.unflatten(1, (m, m)) @ mix.T).flatten(1)


def neighbours(cells: Int[Tensor, "B k"], grid: Grid, apart: int) -> Bool[Tensor, "B L"]:
    """Return the mask of each of ``cells`` and of the eight that are ``apart`` rows, columns or both away."""
    every = torch.arange(len(grid), device=cells.device)
    rows = (every // grid.side - (cells // grid.side)[..., None]).abs()
    columns = (every % grid.side - (cells % grid.side)[..., None]).abs()
    return (((rows == 0) | (rows == apart)) & ((columns == 0) | (columns == apart))).any(1)
