"""Choosers: functions from location logits to the cell of each image's next glimpse."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn import functional as F

from nogs.glimpses.grid import Grid

Chooser = Callable[[Float[Tensor, "B L"], int], Int[Tensor, " B"]]
"""(location logits, t) → the cell of each image's glimpse t; t counts from 0."""
BELOW_ONE = 1 - torch.finfo(torch.float32).eps
"""The largest factor that makes any single-precision number smaller."""


def greedy(logits: Float[Tensor, "B L"], t: int) -> Int[Tensor, " B"]:
    """Return the likeliest cell."""
    return logits.argmax(-1)


def sampling(generator: Generator) -> Chooser:
    """Return a chooser that draws from q(l_t | h_t-1): first one of √L rows of cells, then the column within the row.

    Both are inverted from cumulative sums with one random number per image: its remainder within the row is uniform
    there. With 961 cells this costs a twelfth of `torch.multinomial` or `Categorical`, which draw a number per cell.
    """

    def choose(logits: Tensor, t: int) -> Tensor:
        L = logits.shape[1]
        side = math.isqrt(L)
        probs = F.pad(logits.detach().softmax(-1), (0, -L % side)).unflatten(1, (-1, side))
        rows = probs.sum(-1).cumsum(-1)
        # Rounding may leave the sums short of 1. The draw is scaled to stay below the last sum, where a cell exists.
        draw = torch.rand(len(logits), 1, generator=generator, device=logits.device) * rows[:, -1:] * BELOW_ONE
        row = torch.searchsorted(rows, draw, right=True)
        cells = probs.take_along_dim(row[..., None], dim=1)[:, 0].cumsum(-1)
        remainder = draw - F.pad(rows, (1, 0)).gather(1, row)
        column = torch.searchsorted(cells, remainder.minimum(cells[:, -1:] * BELOW_ONE), right=True)
        return (row * side + column)[:, 0]

    return choose


def anywhere(locations: int, generator: Generator) -> Chooser:
    """Return a chooser that draws uniformly from ``locations`` cells: the control for what a policy is worth."""

    def choose(logits: Tensor, t: int) -> Tensor:
        return torch.randint(locations, (len(logits),), generator=generator, device=logits.device)

    return choose


def at(cell: int) -> Chooser:
    """Return a chooser of always the same cell: the control for what looking at several places is worth."""

    def choose(logits: Tensor, t: int) -> Tensor:
        return logits.new_full((len(logits),), cell, dtype=torch.long)

    return choose


def centre_cell(grid: Grid) -> int:
    """Return the cell whose glimpse is nearest to the image's centre."""
    return int(grid.centres(torch.arange(len(grid))).square().sum(-1).argmin())


def along(path: Sequence[int]) -> Chooser:
    """Return a chooser of cell ``path[t]`` at step t: the control for what choosing per image is worth."""

    def choose(logits: Tensor, t: int) -> Tensor:
        return logits.new_full((len(logits),), path[t], dtype=torch.long)

    return choose
