"""The grid of glimpse locations: the only place that turns cells into pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor

from nogs.config.bounds import Checked, Pixels, Scales
from nogs.errors import UserError

MAX_LOCATIONS = 2**24
"""Largest number of locations, for which a location head with 64 hidden units has a billion weights."""


class OfLevel(NamedTuple):
    """One zoom level: its grid, ``here``: which of some cells are on it, and their numbers on its grid."""

    grid: Grid
    here: Bool[Tensor, "*batch"]
    cells: Int[Tensor, "*batch"]


@dataclass(frozen=True)
class Grid(Checked):
    """A square grid of glimpse locations over square images; its last row and column touch the border.

    ``image_px`` and ``glimpse_px`` are side lengths, ``stride_px`` the step between neighbouring cells,
    ``scales`` the number of concentric squares in a glimpse.

    ``zoom``: number of levels that a location can have. A glimpse of level k = 0, 1, ... is a square of glimpse_px 2^k
    pixels a side, reduced to glimpse_px, and neighbouring cells of the level are stride_px 2^k apart. Cells are
    numbered level after level, the finest first.
    """

    image_px: Pixels
    glimpse_px: Pixels
    stride_px: Pixels
    scales: Scales = 1
    zoom: Scales = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        image_px, glimpse_px = self.image_px, self.glimpse_px
        if glimpse_px > image_px:
            raise UserError(f"glimpse_px={glimpse_px} exceeds image_px={image_px}: choose at most {image_px}")
        # A square twice as wide as the image covers the image from every location, so a wider one adds nothing.
        widest = 1 + math.ceil(math.log2(max(1, 2 * image_px / glimpse_px)))
        if self.scales > widest:
            raise UserError(
                f"scales={self.scales} with glimpse_px={glimpse_px} makes squares of "
                f"{glimpse_px * 2 ** (self.scales - 1)} px on image_px={image_px}: choose at most {widest}"
            )
        if self.zoom > 1 and self.scales > 1:
            raise UserError(f"zoom={self.zoom} with scales={self.scales}: choose one of the two, and 1 for the other")
        coarsest_px = glimpse_px * 2 ** (self.zoom - 1)
        if coarsest_px > image_px:
            raise UserError(
                f"zoom={self.zoom} with glimpse_px={glimpse_px} makes squares of {coarsest_px} px on "
                f"image_px={image_px}: choose at most {1 + int(math.log2(image_px / glimpse_px))}"
            )
        if len(self) > MAX_LOCATIONS:
            fewest = math.ceil((image_px - glimpse_px) / (math.isqrt(MAX_LOCATIONS) - 1))
            raise UserError(f"stride_px={self.stride_px} makes {len(self)} locations: choose at least {fewest}")

    @cached_property
    def offsets_px(self) -> tuple[int, ...]:
        """First pixel of each row (and column) of cells of the finest level, ascending to image_px - glimpse_px."""
        last = self.image_px - self.glimpse_px
        regular = range(0, last + 1, self.stride_px)
        return (*regular, last) if regular[-1] != last else tuple(regular)

    @property
    def side(self) -> int:
        """Number of cells of the finest level along one side."""
        return len(self.offsets_px)

    def __len__(self) -> int:
        return sum(level.side**2 for level in self.levels)

    @cached_property
    def levels(self) -> tuple[Grid, ...]:
        """The grid of each level, of the same images, with squares that are not reduced."""
        if self.zoom == 1:
            return (self,)
        widths = (2**k for k in range(self.zoom))
        return tuple(Grid(self.image_px, self.glimpse_px * widen, self.stride_px * widen) for widen in widths)

    @cached_property
    def first_cells(self) -> tuple[int, ...]:
        """Number of the first cell of each level."""
        return (0, *accumulate(level.side**2 for level in self.levels[:-1]))

    def by_level(self, cells: Int[Tensor, "*batch"]) -> Iterator[OfLevel]:
        """Yield, for each level, its grid and which of ``cells`` it has."""
        for level, first in zip(self.levels, self.first_cells, strict=True):
            own = cells - first
            yield OfLevel(level, (own >= 0) & (own < len(level)), own)

    def squares_px(self, cells: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch 3"]:
        """Return row and column of the top-left pixel of the square that each cell shows, and its side, in pixels."""
        squares = cells.new_zeros(*cells.shape, 3)
        for level, here, own in self.by_level(cells):
            side = torch.full_like(own, level.glimpse_px)[..., None]
            squares = torch.where(here[..., None], torch.cat((level._corners(own), side), dim=-1), squares)
        return squares

    def top_left_px(self, cells: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch 2"]:
        """Return (row, column), in pixels, of the top-left pixel of each cell."""
        return self._corners(cells) if self.zoom == 1 else self.squares_px(cells)[..., :2]

    def _corners(self, cells: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch 2"]:
        """Return (row, column) of the top-left pixel of each cell of the finest level."""
        row_column = torch.stack((cells // self.side, cells % self.side), dim=-1)
        return (row_column * self.stride_px).clamp_max(self.image_px - self.glimpse_px)

    def around(self, pixels: Int[Tensor, "*batch"], *, overview_px: int) -> Int[Tensor, "*batch 2"]:
        """Return (row, column) of the top-left pixel of the glimpse around each pixel of an overview.

        ``pixels``: indices in the overview of ``overview_px`` pixels a side, row by row. A glimpse that would reach
        beyond the image is moved inside.
        """
        row_column = torch.stack((pixels // overview_px, pixels % overview_px), dim=-1)
        first = (row_column + 0.5) * (self.image_px / overview_px) - self.glimpse_px / 2
        return first.round().long().clamp(0, self.image_px - self.glimpse_px)

    def centres(self, cells: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch 2"]:
        """Return (row, column) of the centre of each cell's glimpse, scaled so that the image spans [-1, 1]."""
        if self.zoom == 1:
            return (self._corners(cells) + self.glimpse_px / 2) * (2 / self.image_px) - 1
        row, column, side = self.squares_px(cells).unbind(-1)
        return (torch.stack((row, column), dim=-1) + side[..., None] / 2) * (2 / self.image_px) - 1

    def covers(self, cells: Int[Tensor, "*batch"], others: Int[Tensor, "*batch"]) -> Bool[Tensor, "*batch"]:
        """Return whether the square at each of ``cells`` has the centre of that at the cell of ``others``."""
        squares, other = self.squares_px(cells), self.squares_px(others)
        inside = other[..., :2] + other[..., 2:] / 2 - squares[..., :2]
        return ((inside >= 0) & (inside < squares[..., 2:])).all(-1)

    def nearest_cells(self, top_left_px: Real[Tensor, "*batch 2"]) -> Int[Tensor, "*batch"]:
        """Return the cell of the finest level whose top-left pixel is nearest to each (row, column), in pixels."""
        offsets = torch.tensor(self.offsets_px, device=top_left_px.device)
        row_column = (top_left_px[..., None] - offsets).abs().argmin(-1)
        return row_column[..., 0] * self.side + row_column[..., 1]
