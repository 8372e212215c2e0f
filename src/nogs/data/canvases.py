"""Canvases: images that are stored as a list of stamps and drawn where they are looked at.

A stamp is a square cut from a picture and put somewhere on a black canvas; where stamps overlap, the brighter pixel is
kept. A canvas of any size takes a few hundred bytes, and reading a glimpse draws the glimpse alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Int, Shaped, UInt8
from torch import Tensor
from torch.nn import functional as F

from nogs.data.drawn import Drawn


class Canvases(Drawn):
    """N grey square images of ``image_px`` pixels a side, uint8 in [0, 255].

    ``pictures``: what stamps are cut from. ``stamps``: for each stamp of a canvas the index of its picture, the row and
    column of its first pixel there, its side length, and the row and column of its first pixel on the canvas. A
    stamp of side 0 is not drawn.

    Indexing with rows draws whole canvases, and ``squares`` draws parts. Overviews are computed for all canvases when
    they are first needed, and kept.
    """

    def __init__(self, pictures: UInt8[Tensor, "P h w"], stamps: Int[Tensor, "N S 6"], *, image_px: int) -> None:
        self.pictures, self.stamps, self._image_px = pictures, stamps, image_px
        self._sides = sorted(set(stamps[..., 3].unique().tolist()) - {0})
        self._overviews: dict[int, UInt8[Tensor, "N 1 v v"]] = {}

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.stamps), 1, self._image_px, self._image_px))

    @property
    def device(self) -> torch.device:
        return self.stamps.device

    def to(self, device: torch.device) -> Canvases:
        """Return the same canvases on ``device``."""
        return Canvases(self.pictures.to(device), self.stamps.to(device), image_px=self._image_px)

    def __getitem__(self, index: Int[Tensor, " n"] | slice) -> UInt8[Tensor, "n 1 H H"]:
        """Draw whole canvases."""
        stamps = self.stamps[index]
        return self._draw(stamps, stamps.new_zeros(len(stamps), 2), self._image_px)[:, None]

    def squares(self, first: Int[Tensor, "B T 2"], rows: Int[Tensor, " B"], side: int) -> UInt8[Tensor, "B T 1 s s"]:
        """Draw T squares of ``side`` pixels of each canvas of ``rows``; outside a canvas its border pixel repeats.

        ``first``: (row, column) of each square's top-left pixel.
        """
        B, T = first.shape[:2]
        if side > self._image_px:
            whole = F.pad(self[rows].float(), (side,) * 4, mode="replicate").to(torch.uint8)
            return _cut(whole[:, 0].repeat_interleave(T, 0), first.flatten(0, 1) + side, side).view(B, T, 1, side, side)
        inside = first.clamp(0, self._image_px - side)
        drawn = self._draw(self.stamps[rows].repeat_interleave(T, 0), inside.flatten(0, 1), side)
        if not torch.equal(first, inside):
            # The border repeats: each pixel outside is the nearest one inside, which the square that was drawn has.
            span = torch.arange(side, device=first.device)
            at = (first[..., None] + span).clamp(0, self._image_px - 1) - inside[..., None]
            line, column = at.flatten(0, 1).unbind(1)
            drawn = drawn.take_along_dim(line[:, :, None], 1).take_along_dim(column[:, None], 2)
        return drawn.view(B, T, 1, side, side)

    def content(self) -> Iterator[bytes]:
        """Yield pictures and stamps."""
        for part in (self.pictures, self.stamps):
            yield part.contiguous().numpy().tobytes()

    def overview(self, rows: Int[Tensor, " B"], px: int) -> UInt8[Tensor, "B 1 v v"]:
        """Return the canvases ``rows`` reduced to ``px`` pixels a side, each the mean of the pixels that it covers."""
        if px not in self._overviews:
            self._overviews[px] = self.drawn(px)
        return self._overviews[px][rows]

    def _draw(self, stamps: Int[Tensor, "Q S 6"], first: Int[Tensor, "Q 2"], side: int) -> UInt8[Tensor, "Q s s"]:
        """Draw one square of each of Q canvases. Stamps that do not reach into a square are left out."""
        (Q, device), (height, width) = (len(stamps), stamps.device), self.pictures.shape[1:]
        # One more pixel at the end takes what falls outside.
        drawn = torch.zeros(Q * side**2 + 1, dtype=torch.uint8, device=device)
        place, size = stamps[..., 4:] - first[:, None], stamps[..., 3]
        reaching = ((place > -size[..., None]) & (place < side)).all(-1)
        for stamp_px in self._sides:
            square, which = (reaching & (size == stamp_px)).nonzero(as_tuple=True)
            span = torch.arange(stamp_px, device=device)
            picture, top, left = stamps[square, which, :3].long().T
            source = (picture * height)[:, None, None] + (top[:, None] + span)[:, :, None]
            source = source * width + (left[:, None] + span)[:, None]
            line, column = (place[square, which].long()[..., None] + span).unbind(1)
            line, column = line[:, :, None], column[:, None]
            within = (line >= 0) & (line < side) & (column >= 0) & (column < side)
            target = torch.where(within, (square[:, None, None] * side + line) * side + column, Q * side**2)
            pixels = self.pictures.flatten()[source.flatten()]
            drawn.scatter_reduce_(0, target.flatten(), pixels, "amax")
        return drawn[:-1].view(Q, side, side)


def _cut(images: Shaped[Tensor, "n H W"], first: Int[Tensor, "n 2"], side: int) -> Shaped[Tensor, "n s s"]:
    span = torch.arange(side, device=images.device)
    line, column = (first[..., None] + span).unbind(1)
    return images.take_along_dim(line[:, :, None], 1).take_along_dim(column[:, None], 2)
