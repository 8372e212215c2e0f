"""A tiled TIFF of which squares are read: only the tiles that a box touches are read and decoded.

Slides of a set share the number of files that are open at a time, the bytes of decoded tiles that are kept, and the
layouts of their tiles (`Shared`). They may be read from several threads.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from nogs.config.groups import Range
from nogs.data.frame import Box
from nogs.data.tiled.shared import Shared
from nogs.data.tiled.tiff import Level, check_small, has_tiff, is_tiff, read_header
from nogs.errors import UserError

WHOLE_PX = 2**26
"""Most pixels of a level that are read to compute a reduced view."""
DIGEST_BYTES = 2**20
"""Bytes of the smallest level after which no more tiles are read to identify a file."""


class State(NamedTuple):
    """What identifies a file: its size, its time of change, and a digest of its pixels."""

    file_bytes: int
    changed_ns: int
    digest: str


def open_large(path: Path, range: Range | None, *, shared: Shared | None = None) -> Slide | None:
    """Return a file as a slide, or None if it is no tiled TIFF of more than `LARGE_PX` pixels.

    ``range``: the values that become 0 and 255 in a file of more than 8 bits a channel. Raises UserError for a large
    tiled TIFF that cannot be read by tiles.
    """
    if not path.is_file() or not is_tiff(path):
        return None
    if not has_tiff():
        check_small(path)
        return None
    slide = Slide(path, range, shared=shared)
    if slide.parse(only_large=True):
        return slide
    slide.close()
    return None


class Slide:
    """A tiled TIFF. Its header is read when it is first needed, and its file is closed by `close`, if not before.

    ``path``: the file. ``range`` as in `nogs.data.frame.Frame`. ``levels``: largest first. ``channels``: 1 or 3.
    ``state``: what the file must be, and the digest that `known` returns; by default what it is when first opened.
    ``bytes_read``: bytes of the file that were read so far, headers included.
    Raises UserError if the file is damaged, lies about its levels, or has pixels that cannot be read.
    """

    def __init__(
        self,
        path: Path,
        range: Range | None = None,
        *,
        shared: Shared | None = None,
        state: State | None = None,
    ) -> None:
        self.path, self._range, self._shared = path, range, shared or Shared()
        self.size_and_time = None if state is None else state[:2]
        self._digest = None if state is None else state.digest
        self.key = object()
        self.bytes_read = 0
        self._levels: tuple[Level, ...] | None = None

    @property
    def levels(self) -> tuple[Level, ...]:
        if self._levels is None:
            self.parse()
        assert self._levels is not None
        return self._levels

    @property
    def width(self) -> int:
        return self.levels[0].width

    @property
    def height(self) -> int:
        return self.levels[0].height

    @property
    def channels(self) -> int:
        return 1 if self.levels[0].layout.samples == 1 else 3

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return self._opened()[0]

    def known(self) -> State:
        """Return size, time of change and digest: of the sizes of all tiles, and of the bytes of the smallest level."""
        if self._digest is None:
            digest = hashlib.blake2b(digest_size=16)
            for level in self.levels:
                digest.update(repr(level[:2]).encode() + level.counts.tobytes())
            number, left = len(self.levels) - 1, DIGEST_BYTES
            for index in range(len(self.levels[number].counts)):
                stored = self.stored(number, index)
                digest.update(stored)
                left -= len(stored)
                if left < 0:
                    break
            self._digest = digest.hexdigest()
        return State(*self._opened(), self._digest)

    def _opened(self) -> tuple[int, int]:
        """Return size and time of change of the file, whose header is read if they are not known."""
        if self.size_and_time is None:
            self.parse()
        assert self.size_and_time is not None
        return self.size_and_time

    def parse(self, *, only_large: bool = False) -> bool:
        """Read the header. ``only_large``: return False for a file that is decoded whole."""
        layouts = self._shared.layouts
        with self._shared.parsing:  # it moves the position in the file
            if self._levels is not None:
                return True
            try:
                with self._shared.files.open(self) as descriptor:
                    header = read_header(
                        descriptor, self.path.name, range=self._range, layouts=layouts, only_large=only_large
                    )
            except UserError:
                self.close()
                raise
            if header is None:
                return False
            self.bytes_read += header.bytes_read
            self._levels = header.levels
            return True

    def close(self) -> None:
        """Close the file. Reading opens it again, and raises UserError if it was changed."""
        self._shared.files.close(self)

    def region(self, number: int, box: Box, channels: int) -> Image.Image:
        """Return a part of a level, in grey (1 channel) or RGB (3). ``box``: in the level's pixels; black outside."""
        pixels = self.pixels(number, box)
        image = Image.fromarray(pixels[..., 0] if self.channels == 1 else pixels)
        return image.convert("L" if channels == 1 else "RGB")

    def pixels(self, number: int, box: Box) -> UInt8[np.ndarray, "h w c"]:
        """Return the pixels of a part of a level in the slide's own channels; black outside."""
        level = self.levels[number]
        across, down = level.layout.tile_width, level.layout.tile_height
        row, column = box.top // down, box.left // across
        top, left = row * down, column * across
        inside = min(box.top, box.left) >= 0 and box.bottom <= level.height and box.right <= level.width
        if inside and box.bottom <= top + down and box.right <= left + across:  # in one tile, as most glimpses are
            rows, columns = slice(box.top - top, box.bottom - top), slice(box.left - left, box.right - left)
            return self._cut(number, row * level.tiles_across + column, rows, columns)
        return self._joined(number, box)

    def _joined(self, number: int, box: Box) -> UInt8[np.ndarray, "h w c"]:
        """Return the pixels of a part of a level, put together from tiles."""
        level = self.levels[number]
        inside = Box(max(box.left, 0), max(box.top, 0), min(box.right, level.width), min(box.bottom, level.height))
        pixels = np.zeros((box.bottom - box.top, box.right - box.left, self.channels), dtype=np.uint8)
        across, down = level.layout.tile_width, level.layout.tile_height
        for top in range(inside.top // down * down, inside.bottom, down):
            for left in range(inside.left // across * across, inside.right, across):
                index = top // down * level.tiles_across + left // across
                first, last = max(top, inside.top), min(top + down, inside.bottom)
                start, end = max(left, inside.left), min(left + across, inside.right)
                into = pixels[first - box.top : last - box.top, start - box.left : end - box.left]
                into[:] = self._cut(number, index, slice(first - top, last - top), slice(start - left, end - left))
        return pixels

    def reduced(self, side_px: int) -> Image.Image:
        """Return the whole picture in RGB, its longer side ``side_px`` or shorter. Raises UserError without a level."""
        number = self.level_for(max(self.width, self.height) / side_px)
        level = self.levels[number]
        whole = Box(0, 0, level.width, level.height)
        self.check_reducible(number, whole, side_px)
        image = self.region(number, whole, 3)
        image.thumbnail((side_px, side_px), Image.Resampling.BOX)
        return image

    def level_for(self, scale: float) -> int:
        """Return the smallest level that has all detail of level 0 reduced by the factor ``scale``."""
        enough = [number for number, level in enumerate(self.levels) if self.width / level.width <= scale * 1.001]
        return enough[-1] if enough else 0

    def check_reducible(self, number: int, box: Box, side_px: int) -> None:
        """Raise UserError if a part of a level has too many pixels to be reduced to ``side_px`` a side."""
        if (box.right - box.left) * (box.bottom - box.top) > WHOLE_PX:
            longer = max(self.levels[number][:2])
            raise UserError(
                f"has no level between {side_px} and {longer} pixels to see it reduced: save it as a pyramid, as "
                "`vips tiffsave --tile --pyramid` does"
            )

    def stored(self, number: int, index: int) -> bytes:
        """Return the bytes of a tile as they are in the file; none of a tile that a sparse file leaves out."""
        level = self.levels[number]
        offset, count = int(level.offsets[index]), int(level.counts[index])
        if count == 0:
            return b""
        with self._shared.files.open(self) as descriptor:
            stored = os.pread(descriptor, count, offset)
        self.bytes_read += len(stored)
        return stored

    def _cut(self, number: int, index: int, rows: slice, columns: slice) -> UInt8[np.ndarray, "h w c"]:
        """Return a part of a tile."""
        kept, key = self._shared.tiles, (self.key, number, index)
        part = kept.cut(key, rows, columns)
        if part is not None:
            return part
        stored = self.stored(number, index)
        try:
            tile = self.levels[number].decode(stored, index, self._range)
        except Exception as error:  # codecs raise many kinds of errors for damaged tiles
            reason = str(error).partition("\n")[0]
            raise UserError(f"has a damaged tile, number {index} of level {number}: {reason}") from error
        kept.put(key, tile)
        return tile[rows, columns]
