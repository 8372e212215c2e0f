"""Images whose glimpses are displaced at random in training, so that a network cannot learn single views by heart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Int, UInt8
from torch import Generator, Tensor

from nogs.data.drawn import Drawn
from nogs.data.pixels import Pixels, overview, reduced_squares_of, squares_of


class Jittered(Drawn):
    """The images of ``images``, whose glimpses are taken up to ``jitter_px`` pixels from their cells.

    `nogs.glimpses.fovea` displaces each glimpse by whole pixels, rows and columns alike, uniformly and independently.
    All scales of a glimpse are displaced together, and the overview is not. Glimpses are taken within `drawing` only.
    """

    def __init__(self, images: Pixels, jitter_px: int) -> None:
        self.images, self.jitter_px = images, jitter_px
        self._generator: Generator | None = None

    @property
    def shape(self) -> torch.Size:
        return self.images.shape

    @property
    def device(self) -> torch.device:
        return self.images.device

    def to(self, device: torch.device) -> Jittered:
        return Jittered(self.images.to(device), self.jitter_px)

    @contextmanager
    def drawing(self, generator: Generator) -> Iterator[None]:
        """Draw displacements from ``generator`` within the context."""
        self._generator = generator
        try:
            yield
        finally:
            self._generator = None

    def places(self, top_left_px: Int[Tensor, "B T 2"]) -> Int[Tensor, "B T 2"]:
        """Return the top-left pixels of glimpses, displaced."""
        if self._generator is None:
            raise ValueError("glimpses of jittered images are taken within `drawing`")
        shape, most = top_left_px.shape, self.jitter_px
        return top_left_px + torch.randint(-most, most + 1, shape, generator=self._generator, device=self.device)

    def overview(self, rows: Int[Tensor, " B"], px: int) -> UInt8[Tensor, "B c v v"]:
        return overview(self.images, rows, px)

    def squares(self, first: Int[Tensor, "B T 2"], rows: Int[Tensor, " B"], side: int) -> UInt8[Tensor, "B T c s s"]:
        return squares_of(self.images, first, rows, side)

    def reduced_squares(
        self, first: Int[Tensor, "B T 2"], rows: Int[Tensor, " B"], side: int, px: int
    ) -> UInt8[Tensor, "B T c g g"]:
        return reduced_squares_of(self.images, first, rows, side, px)

    def content(self) -> Iterator[bytes]:
        raise TypeError("jittered images are for training alone")

    def __getitem__(self, index: Int[Tensor, " n"] | slice) -> UInt8[Tensor, "n c H H"]:
        return self.images[index]
