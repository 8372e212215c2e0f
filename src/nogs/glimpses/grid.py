"""The grid of glimpse locations: the only place that turns cells into pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor

from nogs.errors import UserError


@dataclass(frozen=True)
class Grid:
    """A square grid of glimpse locations over square images; its last row and column touch the border.

    ``image_px`` and ``glimpse_px`` are side lengths, ``stride_px`` the step between neighbouring cells,
    ``scales`` the number of concentric squares in a glimpse.
    """

    image_px: int
    glimpse_px: int
    stride_px: int
    scales: int = 1

    def __post_init__(self) -> None:
        for name in ("image_px", "glimpse_px", "stride_px", "scales"):
            if (value := getattr(self, name)) < 1:
                raise UserError(f"{name}={value}: must be at least 1")
        if self.glimpse_px > self.image_px:
            raise UserError(
                f"glimpse_px={self.glimpse_px} exceeds image_px={self.image_px}: choose at most {self.image_px}"
            )

    @cached_property
    def offsets_px(self) -> tuple[int, ...]:
        """First pixel of each row (and column) of cells; the last is image_px - glimpse_px."""
        last = self.image_px - self.glimpse_px
        regular = range(0, last + 1, self.stride_px)
        return (*regular, last) if regular[-1] != last else tuple(regular)

    @property
    def side(self) -> int:
        """Cells along one side."""
        return len(self.offsets_px)

    def __len__(self) -> int:
        return self.side**2

    def top_left_px(self, cells: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch 2"]:
        """(row, column) in pixels of the top-left pixel of each cell."""
        row_column = torch.stack((cells // self.side, cells % self.side), dim=-1)
        return (row_column * self.stride_px).clamp_max(self.image_px - self.glimpse_px)

    def centres(self, cells: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch 2"]:
        """(row, column) of each glimpse's centre, scaled so that the image spans [-1, 1]."""
        return (self.top_left_px(cells) + self.glimpse_px / 2) * (2 / self.image_px) - 1

    def nearest_cells(self, top_left_px: Real[Tensor, "*batch 2"]) -> Int[Tensor, "*batch"]:
        """The cell whose top-left pixel is nearest to each (row, column), for sequences made elsewhere."""
        offsets = torch.tensor(self.offsets_px, device=top_left_px.device)
        row_column = (top_left_px[..., None] - offsets).abs().argmin(-1)
        return row_column[..., 0] * self.side + row_column[..., 1]
