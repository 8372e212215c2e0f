"""Choosers: functions from location logits to the cell that each image is looked at next."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn import functional as F

from nogs.attention.methods import Method
from nogs.glimpses.grid import Grid

Chooser = Callable[[Float[Tensor, "B L"], int], Int[Tensor, " B"]]
"""(location logits, t) → the cell each image is looked at; t counts from 0."""
BELOW_ONE = 1 - torch.finfo(torch.float32).eps
"""The largest factor that leaves a number in single precision smaller than it was."""


def greedy(logits: Float[Tensor, "B L"], t: int) -> Int[Tensor, " B"]:
    """Look at the likeliest cell."""
    return logits.argmax(-1)


def sampling(generator: Generator) -> Chooser:
    """Draw the cell from q(l_t | h_t-1): its row of the grid, then its place in the row, each by inverse cumulation.

    One random number an image, of which what is left within the row is uniform there: at 961 cells a twelfth of the
    cost of `multinomial`, or of `Categorical`, which draw one a cell.
    """

    def choose(logits: Tensor, t: int) -> Tensor:
        side = math.isqrt(logits.shape[1])
        probs = logits.detach().softmax(-1).unflatten(1, (side, side))
        rows = probs.sum(-1).cumsum(-1)
        # Sums may miss 1 by a rounding: the draw is scaled to them, and stays below, where there is a likely cell.
        draw = torch.rand(len(logits), 1, generator=generator, device=logits.device) * rows[:, -1:] * BELOW_ONE
        row = torch.searchsorted(rows, draw, right=True)
        cells = probs.take_along_dim(row[..., None], dim=1)[:, 0].cumsum(-1)
        left = draw - F.pad(rows, (1, 0)).gather(1, row)
        column = torch.searchsorted(cells, left.minimum(cells[:, -1:] * BELOW_ONE), right=True)
        return (row * side + column)[:, 0]

    return choose


def following(cells: Int[Tensor, "B T"], otherwise: Chooser) -> Chooser:
    """Look where ``cells`` say; images whose cell is negative look where ``otherwise`` says."""

    def choose(logits: Tensor, t: int) -> Tensor:
        given = cells[:, t]
        return torch.where(given < 0, otherwise(logits, t), given)

    return choose


def anywhere(locations: int, generator: Generator) -> Chooser:
    """Look at a cell drawn uniformly: the control that says what choosing is worth."""

    def choose(logits: Tensor, t: int) -> Tensor:
        return torch.randint(locations, (len(logits),), generator=generator, device=logits.device)

    return choose


def at(cell: int) -> Chooser:
    """Always look at this cell: the control that says what moving is worth."""

    def choose(logits: Tensor, t: int) -> Tensor:
        return logits.new_full((len(logits),), cell, dtype=torch.long)

    return choose


def along(path: Sequence[int]) -> Chooser:
    """Look at cell ``path[t]`` of every image at step t: the control for what choosing per image is worth."""

    def choose(logits: Tensor, t: int) -> Tensor:
        return logits.new_full((len(logits),), path[t], dtype=torch.long)

    return choose


def chooser(
    method: Method,
    grid: Grid,
    *,
    generator: Generator,
    path: Sequence[int] | None = None,
    policy: Chooser = greedy,
) -> Chooser:
    """Return how ``method`` chooses cells, in training and in test.

    ``path``: the T cells of a method that looks along one path, None for every other. ``policy`` turns location
    logits into cells; methods without a policy ignore it.
    """
    if method.looks == "path":
        if path is None:
            raise ValueError("path=None: this method looks along one path; give its T cells")
        return along(path)
    if method.looks == "random":
        return anywhere(len(grid), generator)
    if method.looks == "centre":
        from_centre = grid.centres(torch.arange(len(grid))).square().sum(-1)
        return at(int(from_centre.argmin()))
    return policy
