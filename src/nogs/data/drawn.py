"""Images of which only the parts that are looked at are made: drawn (`canvases`) or read from files (`tiled`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from jaxtyping import Int, Shaped, UInt8
from torch import Tensor
from torch.nn import functional as F

DRAWN_AT_ONCE = 2**22
"""Pixels of whole images in memory at a time while all are reduced."""


class Drawn(ABC):
    """N square images, uint8 in [0, 255], channels first, of ``shape`` [N, c, H, H] on ``device``."""

    dtype = torch.uint8

    @property
    @abstractmethod
    def shape(self) -> torch.Size: ...

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @abstractmethod
    def to(self, device: torch.device) -> Drawn:
        """Return the same images on ``device``."""

    def places(self, top_left_px: Int[Tensor, "B T 2"]) -> Int[Tensor, "B T 2"]:
        """Return where glimpses are taken that were asked for at ``top_left_px``: there."""
        return top_left_px

    @abstractmethod
    def squares(self, first: Int[Tensor, "B T 2"], rows: Int[Tensor, " B"], side: int) -> UInt8[Tensor, "B T c s s"]:
        """Return T squares of ``side`` pixels of each of the images ``rows``; outside an image its border repeats.

        ``first``: (row, column) of each square's top-left pixel.
        """

    def reduced_squares(
        self, first: Int[Tensor, "B T 2"], rows: Int[Tensor, " B"], side: int, px: int
    ) -> UInt8[Tensor, "B T c g g"]:
        """Return `squares`, reduced to ``px`` pixels a side, a divisor of ``side``."""
        return averaged(self.squares(first, rows, side), side // px)

    @abstractmethod
    def overview(self, rows: Int[Tensor, " B"], px: int) -> UInt8[Tensor, "B c v v"]:
        """Return the images ``rows`` reduced to ``px`` pixels a side, each the mean of the pixels that it covers."""

    @abstractmethod
    def content(self) -> Iterator[bytes]:
        """Yield what the images are made of, which identifies them."""

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def image_px(self) -> int:
        return self.shape[-1]

    def __getitem__(self, index: Int[Tensor, " n"] | slice) -> UInt8[Tensor, "n c H H"]:
        """Return whole images."""
        rows = torch.arange(len(self), device=self.device)[index]
        return self.squares(rows.new_zeros(len(rows), 1, 2), rows, self.image_px)[:, 0]

    def index_select(self, dim: int, rows: Int[Tensor, " n"]) -> UInt8[Tensor, "n c H H"]:
        """Return the whole images ``rows``; ``dim`` must be 0."""
        if dim != 0:
            raise ValueError(f"dim={dim}: images are selected along dimension 0")
        return self[rows]

    def view_px(self, px: int) -> int:
        """Return the side length at which `view` returns images that are to be reduced to ``px`` pixels a side."""
        return self.image_px

    def view(self, rows: Int[Tensor, " n"], px: int) -> UInt8[Tensor, "n c v v"]:
        """Return the images ``rows``, to be reduced to ``px`` pixels a side: whole, unless reduced ones are stored."""
        return self[rows]

    def chunks(self, px: int) -> Iterator[UInt8[Tensor, "n c v v"]]:
        """Yield the `view` of all images, a few at a time."""
        every = torch.arange(len(self), device=self.device)
        for rows in every.split(max(1, DRAWN_AT_ONCE // self.view_px(px) ** 2)):
            yield self.view(rows, px)

    def drawn(self, px: int) -> UInt8[Tensor, "N c v v"]:
        """Return all images, reduced to ``px`` pixels a side."""
        # Filled in place: small tensors that stay between large ones that go would leave gigabytes of holes.
        N, channels = self.shape[:2]
        drawn = torch.empty(N, channels, px, px, dtype=torch.uint8, device=self.device)
        done = 0
        for chunk in self.chunks(px):
            drawn[done : done + len(chunk)] = chunk if px == chunk.shape[-1] else reduced(chunk, px)
            done += len(chunk)
        return drawn


class Blank(Drawn):
    """N black images of any size, which take no memory."""

    def __init__(self, count: int, *, channels: int, image_px: int, device: torch.device) -> None:
        self._shape, self._device = torch.Size((count, channels, image_px, image_px)), device

    @property
    def shape(self) -> torch.Size:
        return self._shape

    @property
    def device(self) -> torch.device:
        return self._device

    def to(self, device: torch.device) -> Blank:
        count, channels, image_px, _ = self._shape
        return Blank(count, channels=channels, image_px=image_px, device=device)

    def squares(self, first: Int[Tensor, "B T 2"], rows: Int[Tensor, " B"], side: int) -> UInt8[Tensor, "B T c s s"]:
        shape = (*first.shape[:2], self._shape[1], side, side)
        return torch.zeros(shape, dtype=torch.uint8, device=self._device)

    def overview(self, rows: Int[Tensor, " B"], px: int) -> UInt8[Tensor, "B c v v"]:
        return torch.zeros(len(rows), self._shape[1], px, px, dtype=torch.uint8, device=self._device)

    def content(self) -> Iterator[bytes]:
        return iter(())


def averaged(squares: Shaped[Tensor, "*batch s s"], widen: int) -> Shaped[Tensor, "*batch g g"]:
    """Return squares with sides reduced to a ``widen``-th, each pixel the mean of those that it covers.

    Means of whole numbers are rounded.
    """
    if widen == 1:
        return squares
    g = squares.shape[-1] // widen
    means = squares.reshape(*squares.shape[:-2], g, widen, g, widen).float().mean((-3, -1))
    return means if squares.is_floating_point() else means.round().to(squares.dtype)


def reduced(images: UInt8[Tensor, "n c H W"], px: int) -> UInt8[Tensor, "n c v v"]:
    """Return images reduced to ``px`` pixels a side, each the rounded mean of the pixels that it covers."""
    return F.adaptive_avg_pool2d(images.float(), px).round().to(torch.uint8)
