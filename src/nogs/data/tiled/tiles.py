"""Images in tiled files, of which only the squares that are looked at are read."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from nogs.data.decode import in_threads
from nogs.data.drawn import Drawn, averaged
from nogs.data.frame import Box, Frame, shown
from nogs.data.mapped import open_images, replacing, write_header
from nogs.data.memory import check_memory
from nogs.data.notices import notice
from nogs.data.tiled.large import LargeImage
from nogs.errors import UserError

THREADS = 8
"""Most threads that read the squares of a batch. There are no more than PyTorch has."""


class TiledImages(Drawn):
    """N images of one form, uint8 in [0, 255], read from slides when they are looked at.

    ``frame``: the form. Its ``side_px`` is the side length of the images, at which a slide is seen reduced (or
    enlarged), and its ``fit`` chooses the square of a slide that is not square. A square is read from the smallest
    level that has its detail. If no level has the very size, it is the mean of the pixels that it covers.
    ``names``: how errors name the slides; without names they do not. ``kept``: a path beside which the overviews of all
    slides are kept in files; without it, those that were computed are kept in memory.

    Pixels are read on the processor and moved to ``device``.
    """

    def __init__(
        self,
        slides: Sequence[LargeImage],
        frame: Frame,
        *,
        device: torch.device | None = None,
        names: Sequence[str] | None = None,
        kept: Path | None = None,
    ) -> None:
        self.slides, self.frame = slides, frame
        self._device = device or torch.device("cpu")
        self._names, self._kept = names, kept
        self._overviews: dict[tuple[int, int], UInt8[Tensor, "c v v"]] = {}
        self._of_all: dict[int, UInt8[Tensor, "N c v v"]] = {}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="tiles") if len(slides) > 1 else None

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.slides), self.frame.channels, self.frame.side_px, self.frame.side_px))

    @property
    def device(self) -> torch.device:
        return self._device

    def to(self, device: torch.device) -> TiledImages:
        """Return the same images, whose pixels are moved to ``device``."""
        other = copy.copy(self)  # overviews, open files and threads are shared
        other._device = device
        return other

    def squares(self, first: Int[Tensor, "B T 2"], rows: Int[Tensor, " B"], side: int) -> UInt8[Tensor, "B T c s s"]:
        """Read T squares of ``side`` pixels of each of the images ``rows``; outside an image its border pixel repeats.

        ``first``: (row, column) of each square's top-left pixel. Squares are read in the order of files and rows, so
        that a tile that several of them touch is decoded once, and several files at a time.
        """
        return self.reduced_squares(first, rows, side, side)

    def reduced_squares(
        self, first: Int[Tensor, "B T 2"], rows: Int[Tensor, " B"], side: int, px: int
    ) -> UInt8[Tensor, "B T c g g"]:
        """Read squares of ``side`` pixels, reduced to ``px``, from the smallest level whose pixels they do not cut."""
        (B, T), H, widen = first.shape[:2], self.frame.side_px, side // px
        read = torch.empty(B * T, self.frame.channels, px, px, dtype=torch.uint8)
        corners = first.flatten(0, 1).tolist()
        images = rows.repeat_interleave(T).tolist()
        order = sorted(range(B * T), key=lambda at: (images[at], corners[at]))

        def read_image(of_image: Sequence[int]) -> None:
            for at in of_image:
                # The part of the square on the image, at least its nearest pixel.
                begin = [min(max(start, 0), H - 1) for start in corners[at]]
                end = [max(min(start + side, H), b + 1) for start, b in zip(corners[at], begin, strict=True)]
                box = Box(begin[1], begin[0], end[1], end[0])
                if box.right - box.left == box.bottom - box.top == side:
                    stored = math.gcd(widen, *corners[at])
                    read[at] = averaged(self._part(images[at], box, side // stored), widen // stored)
                    continue
                line, column = (
                    (start + torch.arange(side)).clamp(b, e - 1) - b
                    for start, b, e in zip(corners[at], begin, end, strict=True)
                )
                read[at] = averaged(self._part(images[at], box)[:, line[:, None], column], widen)

        self._at_once(read_image, [list(of_image) for _, of_image in groupby(order, key=images.__getitem__)])
        return read.view(B, T, *read.shape[1:]).to(self.device)

    def content(self) -> Iterator[bytes]:
        """Yield a digest of each file, in place of gigabytes."""
        for slide in self.slides:
            yield slide.known().digest.encode()

    def overview(self, rows: Int[Tensor, " B"], px: int) -> UInt8[Tensor, "B c v v"]:
        """Return the images ``rows`` reduced to ``px`` pixels a side, from the smallest level that has as many."""
        if self._kept is not None:
            return self._overviews_of_all(px, self._kept)[rows.cpu()].to(self.device)
        return torch.stack([self._overview(row, px) for row in rows.tolist()]).to(self.device)

    def view_px(self, px: int) -> int:
        return px

    def view(self, rows: Int[Tensor, " n"], px: int) -> UInt8[Tensor, "n c v v"]:
        """Return the images ``rows`` reduced to ``px`` pixels a side. Unlike overviews they are not kept."""
        return torch.stack([self._reduced(row, px) for row in rows.tolist()]).to(self.device)

    def drawn(self, px: int) -> UInt8[Tensor, "N c v v"]:
        """Return all images, reduced to ``px`` pixels a side."""
        if self._kept is not None:
            return self._overviews_of_all(px, self._kept).to(self.device)
        return self.overview(torch.arange(len(self)), px)

    def _overview(self, row: int, px: int) -> UInt8[Tensor, "c v v"]:
        if (row, px) not in self._overviews:
            self._overviews[row, px] = self._reduced(row, px)
        return self._overviews[row, px]

    def _overviews_of_all(self, px: int, kept: Path) -> UInt8[Tensor, "N c v v"]:
        """Return the overviews of all images, mapped from the cache, which they are written to first if need be."""
        if px not in self._of_all:
            place, shape = kept.with_suffix(f".overview-{px}.npy"), (len(self), self.frame.channels, px, px)
            mapped = open_images(place)
            if mapped is None or mapped.shape != shape:
                mapped = self._written(place, px)
            self._of_all[px] = torch.from_numpy(mapped)
        return self._of_all[px]

    def _written(self, place: Path, px: int) -> UInt8[np.ndarray, "N c v v"]:
        N, channels = self.shape[:2]
        check_memory(N, channels=channels, image_px=px, disk=place.parent)

        def overviews() -> Iterator[UInt8[np.ndarray, "c v v"]]:
            return in_threads(lambda row: self._reduced(row, px).numpy(), range(N), f"overviews of {px} pixels")

        try:
            with replacing(place) as stream:
                write_header(stream, (N, channels, px, px))
                for overview in overviews():
                    stream.write(overview.tobytes())
        except OSError as error:
            notice(f"the cache {place.parent} cannot be written ({error.strerror}): overviews are computed again")
            check_memory(N, channels=channels, image_px=px)
            return np.stack(list(overviews()))
        mapped = open_images(place)
        assert mapped is not None
        return mapped

    def _at_once(self, work: Callable[[Sequence[int]], None], items: Sequence[Sequence[int]]) -> None:
        """Do ``work`` for every item, with as many threads as PyTorch has. Decoders and Pillow release the GIL."""
        threads = min(THREADS, torch.get_num_threads(), len(items))
        if self._threads is None or threads < 2:
            for item in items:
                work(item)
            return

        def some(start: int) -> None:
            for item in items[start::threads]:
                work(item)

        list(self._threads.map(some, range(threads)))

    def _reduced(self, row: int, px: int) -> UInt8[Tensor, "c v v"]:
        return self._read(row, (0.0, 0.0, 1.0, 1.0), px, px)

    def _part(self, row: int, box: Box, px: int | None = None) -> UInt8[Tensor, "c h w"]:
        """Return a part of an image, reduced to ``px`` pixels a side. ``box``: in the pixels of the form."""
        H = self.frame.side_px
        shares = box.left / H, box.top / H, box.right / H, box.bottom / H
        return self._read(row, shares, px or box.right - box.left, px or box.bottom - box.top)

    def _read(
        self, row: int, shares: tuple[float, float, float, float], width: int, height: int
    ) -> UInt8[Tensor, "c h w"]:
        """Return a part of an image, ``width`` x ``height`` pixels.

        ``shares``: its left, top, right and bottom edge, where the image spans [0, 1].
        """
        try:
            return _seen(self.slides[row], self.frame, shares, width, height)
        except UserError as error:
            if self._names is None:
                raise
            raise UserError(f"{self._names[row]}: {error}") from error


def _seen(
    slide: LargeImage, frame: Frame, shares: tuple[float, float, float, float], width: int, height: int
) -> UInt8[Tensor, "c h w"]:
    """Return a part of a slide, as `TiledImages._read` does."""
    box = shown(slide.width, slide.height, frame.fit)
    down, across = box.bottom - box.top, box.right - box.left
    left, right = (box.left + share * across for share in shares[::2])
    top, bottom = (box.top + share * down for share in shares[1::2])
    number = slide.level_for(min((right - left) / width, (bottom - top) / height))
    level = slide.levels[number]
    x, y = level.width / slide.width, level.height / slide.height
    edges: tuple[float, ...] = (left * x, top * y, right * x, bottom * y)
    near = tuple(round(edge) for edge in edges)
    nearly = 1e-6 * max(level.width, level.height) + 1e-3
    if all(abs(edge - whole) < nearly for edge, whole in zip(edges, near, strict=True)):
        edges = near  # a level's sides are rounded: a whole number of its pixels is meant
    around = Box(*map(math.floor, edges[:2]), *map(math.ceil, edges[2:]))
    slide.check_reducible(number, around, width)
    exact = edges == around and (around.right - around.left, around.bottom - around.top) == (width, height)
    if exact and slide.channels == frame.channels:
        return torch.from_numpy(slide.pixels(number, around).transpose(2, 0, 1).copy())
    region = slide.region(number, around, frame.channels)
    if not exact:
        left, top = around[:2]
        inner = edges[0] - left, edges[1] - top, edges[2] - left, edges[3] - top
        how = Image.Resampling.BOX if edges[2] - edges[0] >= width else Image.Resampling.BILINEAR
        region = region.resize((width, height), how, box=inner)
    pixels = torch.from_numpy(np.array(region))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
