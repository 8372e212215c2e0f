"""Images in tiled files, of which only the squares that are looked at are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from nogs.data.drawn import Drawn
from nogs.data.frame import Box, Frame, shown
from nogs.data.tiff import WHOLE_PX, Slide
from nogs.errors import UserError


class TiledImages(Drawn):
    """N images of one form, uint8 in [0, 255], read from slides when they are looked at.

    ``frame``: the form. Its ``side_px`` is the side length of the images, at which a slide is seen reduced (or
    enlarged), and its ``fit`` chooses the square of a slide that is not square. A square is read from the smallest
    level that has its detail. If no level has the very size, it is the mean of the pixels that it covers.

    Pixels are read on the processor and moved to ``device``.
    """

    def __init__(self, slides: Sequence[Slide], frame: Frame, *, device: torch.device | None = None) -> None:
        self.slides, self.frame = slides, frame
        self._device = device or torch.device("cpu")
        self._overviews: dict[tuple[int, int], UInt8[Tensor, "c v v"]] = {}

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.slides), self.frame.channels, self.frame.side_px, self.frame.side_px))

    @property
    def device(self) -> torch.device:
        return self._device

    def to(self, device: torch.device) -> TiledImages:
        """Return the same images, whose pixels are moved to ``device``."""
        return TiledImages(self.slides, self.frame, device=device)

    def squares(self, first: Int[Tensor, "B T 2"], rows: Int[Tensor, " B"], side: int) -> UInt8[Tensor, "B T c s s"]:
        """Read T squares of ``side`` pixels of each of the images ``rows``; outside an image its border pixel repeats.

        ``first``: (row, column) of each square's top-left pixel. Squares are read in the order of files and rows, so
        that a tile that several of them touch is decoded once.
        """
        (B, T), H = first.shape[:2], self.frame.side_px
        read = torch.empty(B * T, self.frame.channels, side, side, dtype=torch.uint8)
        corners = first.flatten(0, 1).tolist()
        images = rows.repeat_interleave(T).tolist()
        for at in sorted(range(B * T), key=lambda at: (images[at], corners[at])):
            # The part of the square on the image, at least its nearest pixel.
            begin = [min(max(start, 0), H - 1) for start in corners[at]]
            end = [max(min(start + side, H), b + 1) for start, b in zip(corners[at], begin, strict=True)]
            part = self._part(images[at], Box(begin[1], begin[0], end[1], end[0]))
            line, column = (
                (start + torch.arange(side)).clamp(b, e - 1) - b
                for start, b, e in zip(corners[at], begin, end, strict=True)
            )
            read[at] = part[:, line[:, None], column]
        return read.view(B, T, *read.shape[1:]).to(self.device)

    def content(self) -> Iterator[bytes]:
        """Yield name, size and time of change of each file, in place of gigabytes."""
        for slide in self.slides:
            yield repr((slide.path.name, slide.state)).encode()

    def overview(self, rows: Int[Tensor, " B"], px: int) -> UInt8[Tensor, "B c v v"]:
        """Return the images ``rows`` reduced to ``px`` pixels a side, from the smallest level that has as many."""
        return torch.stack([self._overview(row, px) for row in rows.tolist()]).to(self.device)

    def _overview(self, row: int, px: int) -> UInt8[Tensor, "c v v"]:
        if (row, px) not in self._overviews:
            self._overviews[row, px] = _pixels(self._read(row, (0.0, 0.0, 1.0, 1.0), px, px))
        return self._overviews[row, px]

    def _part(self, row: int, box: Box) -> UInt8[Tensor, "c h w"]:
        """Return a part of an image. ``box``: in the pixels of the form."""
        H = self.frame.side_px
        left, top, right, bottom = (edge / H for edge in box)
        return _pixels(self._read(row, (left, top, right, bottom), box.right - box.left, box.bottom - box.top))

    def _read(self, row: int, shares: tuple[float, float, float, float], width: int, height: int) -> Image.Image:
        """Return a part of an image, ``width`` x ``height`` pixels.

        ``shares``: its left, top, right and bottom edge, where the image spans [0, 1].
        """
        slide = self.slides[row]
        box = shown(slide.width, slide.height, self.frame.fit)
        down, across = box.bottom - box.top, box.right - box.left
        left, right = (box.left + share * across for share in shares[::2])
        top, bottom = (box.top + share * down for share in shares[1::2])
        number = slide.level_for(min((right - left) / width, (bottom - top) / height))
        level = slide.levels[number]
        edges = np.array([left, top, right, bottom]) * np.tile(
            [level.width / slide.width, level.height / slide.height], 2
        )
        near = edges.round()
        if np.abs(edges - near).max() < 1e-6 * max(level.width, level.height) + 1e-3:
            edges = near  # a level's sides are rounded: a whole number of its pixels is meant
        around = Box(*(int(edge) for edge in (*np.floor(edges[:2]), *np.ceil(edges[2:]))))
        if (around.right - around.left) * (around.bottom - around.top) > WHOLE_PX:
            raise UserError(
                f"has no level between {width} and {level.width} pixels to see it reduced: save it as a pyramid, as "
                "`vips tiffsave --tile --pyramid` does"
            )
        region = slide.region(number, around, self.frame.channels)
        if region.size == (width, height) and np.array_equal(edges, around):
            return region
        inner = tuple(edges - np.tile([around.left, around.top], 2))
        how = Image.Resampling.BOX if edges[2] - edges[0] >= width else Image.Resampling.BILINEAR
        return region.resize((width, height), how, box=inner)


def _pixels(image: Image.Image) -> UInt8[Tensor, "c h w"]:
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
