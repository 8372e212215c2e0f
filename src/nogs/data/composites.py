"""Composites: photographs into which cut-out objects are pasted where they are looked at.

A paste is a cut-out, resized to some side length and put somewhere on a photograph. Its border fades in, so that no
edge betrays it. A composite takes a few dozen bytes beside the photograph, which many of them share.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from nogs.data.drawn import Drawn, averaged, reduced
from nogs.data.pixels import squares_of

FADE = 0.1
"""Share of a paste's side, at each border, over which it fades in."""
SAMPLED_PX = 8
"""Step between the pixels of photographs that identify them."""


class Composites(Drawn):
    """N square colour images of H pixels a side, uint8 in [0, 255].

    ``photographs``: shared by composites. ``cutouts``: square pictures of objects, and ``round``: which of them show
    their inscribed circle alone. ``photograph``: the index of each composite's photograph. ``pastes``: for each paste
    of a composite the index of its cut-out, the row and column of its first pixel, its side in pixels, and its
    brightness in per cent. Later pastes cover earlier ones, and one of side 0 is not drawn. Every paste lies inside its
    photograph and leaves one pixel free at its border.

    Photographs that are reduced to overviews are kept.
    """

    def __init__(
        self,
        photographs: UInt8[Tensor, "P 3 H H"],
        cutouts: UInt8[Tensor, "M 3 s s"],
        round: Bool[Tensor, " M"],
        photograph: Int[Tensor, " N"],
        pastes: Int[Tensor, "N S 5"],
    ) -> None:
        self.photographs, self.cutouts, self.photograph, self.pastes = photographs, cutouts, photograph, pastes
        self.round = round
        self._reduced: dict[int, UInt8[Tensor, "P 3 v v"]] = {}

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.photograph), *self.photographs.shape[1:]))

    @property
    def device(self) -> torch.device:
        return self.photographs.device

    def to(self, device: torch.device) -> Composites:
        """Return the same composites on ``device``."""
        parts = self.photographs, self.cutouts, self.round, self.photograph, self.pastes
        return Composites(*(part.to(device) for part in parts))

    def squares(self, first: Int[Tensor, "B T 2"], rows: Int[Tensor, " B"], side: int) -> UInt8[Tensor, "B T 3 s s"]:
        drawn = squares_of(self.photographs, first, self.photograph[rows], side)
        pastes = self.pastes[rows]
        place = pastes[:, None, :, 1:3] - first[:, :, None]
        reaching = ((place > -pastes[:, None, :, 3, None]) & (place < side)).all(-1) & (pastes[:, None, :, 3] > 0)
        # In the order of `nonzero`, pastes of one square follow each other as they are numbered.
        for b, t, s in reaching.nonzero().tolist():
            self._paste(drawn[b, t], pastes[b, s], place[b, t, s].tolist())
        return drawn

    def overview(self, rows: Int[Tensor, " B"], px: int) -> UInt8[Tensor, "B 3 v v"]:
        """Return the composites ``rows`` reduced to ``px`` pixels a side, each the mean of the pixels that it covers.

        If ``px`` divides H, photographs are reduced once, and then only the surroundings of pastes are drawn.
        """
        if self.image_px % px:
            return reduced(self[rows], px)
        if px not in self._reduced:
            self._reduced[px] = torch.cat([reduced(some, px) for some in self.photographs.split(8)])
        overviews, block = self._reduced[px][self.photograph[rows]], self.image_px // px
        for b, s in (self.pastes[rows][..., 3] > 0).nonzero().tolist():
            corner, side = self.pastes[rows[b], s, 1:3], int(self.pastes[rows[b], s, 3])
            first = corner // block
            span = int(((corner + side - 1) // block - first).max()) + 1
            first = first.clamp_max(px - span)
            around = self.squares((first * block)[None, None], rows[b, None], span * block)[0, 0]
            i, j = first.tolist()
            overviews[b, :, i : i + span, j : j + span] = averaged(around, block)
        return overviews

    def view_px(self, px: int) -> int:
        return min(v for v in range(px, self.image_px + 1) if self.image_px % v == 0)

    def view(self, rows: Int[Tensor, " n"], px: int) -> UInt8[Tensor, "n 3 v v"]:
        """Return the images ``rows`` reduced by a whole number, to ``px`` pixels a side or more."""
        return self[rows] if self.view_px(px) == self.image_px else self.overview(rows, self.view_px(px))

    def content(self) -> Iterator[bytes]:
        """Yield the pastes, the cut-outs, and every `SAMPLED_PX`-th line and column of the photographs."""
        sampled = self.photographs[:, :, ::SAMPLED_PX, ::SAMPLED_PX]
        for part in (self.photograph, self.pastes, self.cutouts, self.round, sampled):
            yield part.contiguous().numpy().tobytes()

    def _paste(self, onto: UInt8[Tensor, "3 h w"], paste: Int[Tensor, " 5"], place: list[int]) -> None:
        """Draw a paste onto a part of its composite, in place; ``place``: (row, column) of its first pixel there."""
        cutout, _, _, side, percent = paste.tolist()
        small = F.interpolate(self.cutouts[None, cutout].float(), (side, side), mode="bilinear", antialias=True)[0]
        pixels, alpha = (
            (small * (percent / 100)).clamp(0, 255),
            faded(side, onto.device, circle=bool(self.round[cutout])),
        )
        (top, left), (height, width) = place, onto.shape[1:]
        on = slice(max(0, top), min(height, top + side)), slice(max(0, left), min(width, left + side))
        of = slice(on[0].start - top, on[0].stop - top), slice(on[1].start - left, on[1].stop - left)
        below, pixels = onto[:, on[0], on[1]], pixels[:, of[0], of[1]]
        below.copy_(below.float().lerp(pixels, alpha[of]).round())


def faded(side: int, device: torch.device, *, circle: bool) -> Float[Tensor, "s s"]:
    """Return the opacity of the pixels of a paste: 1 inside, falling linearly to 0 at its border."""
    centre = (torch.arange(side, device=device) + 0.5) / side
    if circle:
        radius = torch.hypot(centre[:, None] - 0.5, centre - 0.5)
        return ((0.5 - radius) / FADE).clamp(0, 1)
    along = (torch.minimum(centre, 1 - centre) / FADE).clamp_max(1)
    return torch.outer(along, along)
