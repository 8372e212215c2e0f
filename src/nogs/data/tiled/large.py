"""An image of any size, at several sizes, of which boxes are read by tiles, whatever the format of its files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from nogs.config.groups import Range
from nogs.data.frame import Box
from nogs.data.tiled.levels import Level, tiles_across
from nogs.data.tiled.shared import Shared
from nogs.errors import UserError

WHOLE_PX = 2**26
"""Most pixels of a level that are read to compute a reduced view."""
DIGEST_BYTES = 2**20
"""Bytes of the smallest level after which no more tiles are read to identify an image."""


class State(NamedTuple):
    """What identifies an image: the size of its files, their last time of change, and a digest of its pixels."""

    file_bytes: int
    changed_ns: int
    digest: str


class LargeImage(ABC):
    """An image that is read by tiles, which are numbered row by row. It may be read from several threads.

    ``path``: its file or folder. ``range`` as in `nogs.data.frame.Frame`. ``shared``: what a set of images shares.
    ``state``: what `known` returns, of an image that was known before; by default what it is when first opened.
    ``bytes_read``: bytes of its files that were read so far, headers included. Nothing is read before it is needed.
    Reading raises UserError if a file is damaged, lies about its levels, or has pixels that cannot be read.
    """

    as_pyramid: str
    """How to write a file of this format that has smaller levels."""

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

    @property
    @abstractmethod
    def levels(self) -> Sequence[Level]:
        """The levels, largest first."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """1 or 3."""

    @property
    @abstractmethod
    def file_bytes(self) -> int:
        """Size of all files of the image."""

    @abstractmethod
    def known(self) -> State:
        """Return what identifies the image."""

    @abstractmethod
    def close(self) -> None:
        """Close the files. Reading opens them again."""

    @abstractmethod
    def tile(self, number: int, index: int) -> UInt8[np.ndarray, "h w c"]:
        """Read a tile of a level; at the border it may be cut. Raises any error if the tile is damaged."""

    @property
    def width(self) -> int:
        return self.levels[0].width

    @property
    def height(self) -> int:
        return self.levels[0].height

    def region(self, number: int, box: Box, channels: int) -> Image.Image:
        """Return a part of a level, in grey (1 channel) or RGB (3). ``box``: in the level's pixels; black outside."""
        pixels = self.pixels(number, box)
        image = Image.fromarray(pixels[..., 0] if self.channels == 1 else pixels)
        return image.convert("L" if channels == 1 else "RGB")

    def pixels(self, number: int, box: Box) -> UInt8[np.ndarray, "h w c"]:
        """Return the pixels of a part of a level in the image's own channels; black outside."""
        level = self.levels[number]
        across, down = level.tile_width, level.tile_height
        row, column = box.top // down, box.left // across
        top, left = row * down, column * across
        inside = min(box.top, box.left) >= 0 and box.bottom <= level.height and box.right <= level.width
        if inside and box.bottom <= top + down and box.right <= left + across:  # in one tile, as most glimpses are
            rows, columns = slice(box.top - top, box.bottom - top), slice(box.left - left, box.right - left)
            return self._cut(number, row * tiles_across(level) + column, rows, columns)
        return self._joined(number, box)

    def _joined(self, number: int, box: Box) -> UInt8[np.ndarray, "h w c"]:
        """Return the pixels of a part of a level, put together from tiles."""
        level = self.levels[number]
        inside = Box(max(box.left, 0), max(box.top, 0), min(box.right, level.width), min(box.bottom, level.height))
        pixels = np.zeros((box.bottom - box.top, box.right - box.left, self.channels), dtype=np.uint8)
        across, down = level.tile_width, level.tile_height
        for top in range(inside.top // down * down, inside.bottom, down):
            for left in range(inside.left // across * across, inside.right, across):
                index = top // down * tiles_across(level) + left // across
                first, last = max(top, inside.top), min(top + down, inside.bottom)
                start, end = max(left, inside.left), min(left + across, inside.right)
                into = pixels[first - box.top : last - box.top, start - box.left : end - box.left]
                into[:] = self._cut(number, index, slice(first - top, last - top), slice(start - left, end - left))
        return pixels

    def reduced(self, side_px: int) -> Image.Image:
        """Return the whole picture in RGB, at most ``side_px`` long and wide. Raises UserError without a level."""
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
            longer = max(self.levels[number].width, self.levels[number].height)
            raise UserError(f"has no level between {side_px} and {longer} pixels to see it reduced: {self.as_pyramid}")

    def _cut(self, number: int, index: int, rows: slice, columns: slice) -> UInt8[np.ndarray, "h w c"]:
        """Return a part of a tile."""
        kept, key = self._shared.tiles, (self.key, number, index)
        part = kept.cut(key, rows, columns)
        if part is not None:
            return part
        try:
            tile = self.tile(number, index)
        except UserError:
            raise
        except Exception as error:  # codecs raise many kinds of errors for damaged tiles
            reason = str(error).partition("\n")[0]
            raise UserError(f"has a damaged tile, number {index} of level {number}: {reason}") from error
        kept.put(key, tile)
        return tile[rows, columns]
