"""Tiled TIFF files whose levels are read a tile at a time, as slides of tissue and satellite scenes are stored.

A pyramid holds the same picture at several sizes, its levels. Level 0 is the largest. Only the tiles that a box touches
are read and decoded. A level whose size does not fit its tiles is left out. Needs tifffile and imagecodecs
(`nogs[tiff]`).
"""

from __future__ import annotations

import io
import logging
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from nogs.config.groups import Range
from nogs.data.decode import to_eight_bits
from nogs.data.frame import Box
from nogs.errors import UserError

LARGE_PX = 2**24
"""Pixels above which a tiled TIFF is read by tiles. Smaller ones are decoded whole, as every other image."""
WHOLE_PX = 2**26
"""Most pixels of a level that are read to compute a reduced view."""
CACHE_BYTES = 2**26
"""Decoded tiles that one file keeps."""
LARGEST_TILE_PX = 2**13
"""Longest side of a tile: a file that claims more would allocate it."""
DIFFERENCE_PX = 2
"""Rounding of a level's sides, in its own pixels, beyond which it is no reduction of level 0."""
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_INVERTED, _GREY, _RGB, _YCBCR = 0, 1, 2, 6
"""Values of the tag PhotometricInterpretation that have colours without a palette."""


class Level(NamedTuple):
    """One size of the picture, in pixels."""

    width: int
    height: int
    page: Any
    """tifffile's page"""


def is_tiff(path: Path) -> bool:
    """Return whether a file begins as a TIFF or BigTIFF does."""
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


def open_large(path: Path, range: Range | None) -> Slide | None:
    """Return a file as a slide, or None if it is no tiled TIFF of more than `LARGE_PX` pixels.

    ``range``: the values that become 0 and 255 in a file of more than 8 bits a channel. Raises UserError for a large
    tiled TIFF that cannot be read by tiles.
    """
    if not path.is_file() or not is_tiff(path):
        return None
    try:
        import tifffile
    except ImportError:
        _check_small(path)
        return None
    file = _Counted(path)
    try:
        page = tifffile.TiffFile(file).pages.first
        large = page.is_tiled and page.imagewidth * page.imagelength > LARGE_PX
    except Exception:  # tifffile raises many kinds of errors for damaged files; Pillow then names what is wrong
        large = False
    finally:
        file.close()
    return Slide(path, range) if large else None


def _check_small(path: Path) -> None:
    """Raise UserError if a TIFF has more pixels than Pillow decodes."""
    try:
        Image.open(path).close()
    except Image.DecompressionBombError:
        raise UserError("has too many pixels to be decoded whole: install nogs[tiff] to read it by tiles") from None
    except Exception:  # Pillow's reason is found where all files are opened
        return


class Slide:
    """A tiled TIFF, open until `close`.

    ``path``: the file. ``range`` as in `nogs.data.frame.Frame`. ``levels``: largest first. ``channels``: 1 or 3.
    ``state``: size in bytes and time of change of the file when it was opened.
    Raises UserError if the file is damaged, lies about its levels, or has pixels that cannot be read.
    """

    def __init__(self, path: Path, range: Range | None = None) -> None:
        import tifffile

        logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs what it leaves out
        self.path, self._range = path, range
        self._file = _Counted(path)
        self.state = self._now()
        self._tiles: OrderedDict[tuple[int, int], UInt8[np.ndarray, "h w c"]] = OrderedDict()
        self._cached_bytes = 0
        try:
            series = tifffile.TiffFile(self._file).series[0]
            self.levels = tuple(
                Level(page.imagewidth, page.imagelength, page) for page in (level.keyframe for level in series.levels)
            )
        except Exception as error:  # as above
            self.close()
            raise UserError(f"is a TIFF that cannot be read: {str(error).splitlines()[0]}") from error
        try:
            for number, level in enumerate(self.levels):
                self._check(number, level)
        except UserError:
            self.close()
            raise
        self.width, self.height, first = self.levels[0]
        self.channels = 1 if first.photometric in (_INVERTED, _GREY) else 3

    @property
    def bytes_read(self) -> int:
        """Bytes of the file that were read so far, headers included."""
        return self._file.count

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return self.state[0]

    def close(self) -> None:
        self._file.close()

    def region(self, number: int, box: Box, channels: int) -> Image.Image:
        """Return a part of a level, in grey (1 channel) or RGB (3). ``box``: in the level's pixels; black outside."""
        level = self.levels[number]
        inside = Box(max(box.left, 0), max(box.top, 0), min(box.right, level.width), min(box.bottom, level.height))
        pixels = np.zeros((box.bottom - box.top, box.right - box.left, self.channels), dtype=np.uint8)
        across, down = level.page.tilewidth, level.page.tilelength
        for top in range(inside.top // down * down, inside.bottom, down):
            for left in range(inside.left // across * across, inside.right, across):
                tile = self._tile(number, top // down, left // across)
                rows = slice(max(top, inside.top), min(top + down, inside.bottom))
                columns = slice(max(left, inside.left), min(left + across, inside.right))
                part = tile[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
                into = pixels[rows.start - box.top : rows.stop - box.top]
                into[:, columns.start - box.left : columns.stop - box.left] = part
        image = Image.fromarray(pixels[..., 0] if self.channels == 1 else pixels)
        return image.convert("L" if channels == 1 else "RGB")

    def reduced(self, side_px: int) -> Image.Image:
        """Return the whole picture in RGB, its longer side ``side_px`` or shorter. Raises UserError without a level."""
        longer = max(self.width, self.height)
        number = self.level_for(longer / side_px)
        level = self.levels[number]
        if level.width * level.height > WHOLE_PX:
            raise UserError(f"has no level between {side_px} and {max(level[:2])} pixels: save it as a pyramid")
        image = self.region(number, Box(0, 0, level.width, level.height), 3)
        image.thumbnail((side_px, side_px), Image.Resampling.BOX)
        return image

    def level_for(self, scale: float) -> int:
        """Return the smallest level that has all detail of level 0 reduced by the factor ``scale``."""
        enough = [number for number, level in enumerate(self.levels) if self.width / level.width <= scale * 1.001]
        return enough[-1] if enough else 0

    def _tile(self, number: int, row: int, column: int) -> UInt8[np.ndarray, "h w c"]:
        level = self.levels[number]
        index = row * -(-level.width // level.page.tilewidth) + column
        key = number, index
        if key in self._tiles:
            self._tiles.move_to_end(key)
            return self._tiles[key]
        tile = self._decoded(number, level.page, index)
        self._tiles[key] = tile
        self._cached_bytes += tile.nbytes
        while self._cached_bytes > CACHE_BYTES and len(self._tiles) > 1:
            self._cached_bytes -= self._tiles.popitem(last=False)[1].nbytes
        return tile

    def _decoded(self, number: int, page: Any, index: int) -> UInt8[np.ndarray, "h w c"]:
        if self._now() != self.state:
            raise UserError("was changed while it was read; run it again")
        shape = page.tilelength, page.tilewidth, page.samplesperpixel
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if count == 0:  # a sparse file leaves empty tiles out
            values: np.ndarray[Any, Any] = np.zeros(shape, dtype=page.dtype)
        else:
            self._file.seek(offset)
            stored = self._file.read(count)
            try:
                values = page.decode(stored, index, jpegtables=page.jpegtables)[0]
                values = values.reshape(-1, *values.shape[-2:])
            except Exception as error:  # codecs raise many kinds of errors for damaged tiles
                reason = str(error).partition("\n")[0]
                raise UserError(f"has a damaged tile, number {index} of level {number}: {reason}") from error
        if values.shape[0] < shape[0] or values.shape[1] < shape[1]:  # tiles at the border may be stored cut
            room = [(0, whole - given) for whole, given in zip(shape, values.shape, strict=True)]
            values = np.pad(values, room)
        if page.dtype != np.uint8:
            assert self._range is not None  # `_check` has seen to it
            values = to_eight_bits(values, self._range)
        if page.photometric == _INVERTED:
            values = 255 - values
        if page.samplesperpixel == 4:  # opacity: on white, as every other image
            opacity = values[..., 3:].astype(np.uint16)
            values = ((values[..., :3] * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)
        return values

    def _now(self) -> tuple[int, int]:
        """Return size and time of change of the open file."""
        state = os.fstat(self._file.fileno())
        return state.st_size, state.st_mtime_ns

    def _check(self, number: int, level: Level) -> None:
        """Raise UserError if a level cannot be read, or is not level 0 at a smaller size."""
        page, first = level.page, self.levels[0]
        name = f"level {number}" if number else "its image"
        if not page.is_tiled:
            raise UserError(f"{name} is stored in strips: save it with tiles, as `vips tiffsave --tile --pyramid` does")
        if max(page.tilewidth, page.tilelength) > LARGEST_TILE_PX:
            raise UserError(f"{name} has tiles of {page.tilewidth}x{page.tilelength} pixels: save it with smaller ones")
        if page.photometric not in (_INVERTED, _GREY, _RGB, _YCBCR) or page.samplesperpixel not in (1, 3, 4):
            raise UserError(f"{name} is neither grey nor RGB: convert it")
        if page.samplesperpixel > 1 and page.planarconfig != 1:
            raise UserError(f"{name} stores its channels apart: save it with interleaved channels")
        if page.dtype is None or page.dtype.kind not in "uif":
            raise UserError(f"{name} has pixels of a kind that cannot be read: convert it to 8 bits a channel")
        if page.dtype != np.uint8 and self._range is None:
            raise UserError(
                f"has more than 8 bits a channel ({page.dtype}), which needs `range` in training: the two values that "
                "become black and white, as in range=0,65535"
            )
        if number and (page.samplesperpixel, page.dtype) != (first.page.samplesperpixel, first.page.dtype):
            raise UserError(f"{name} has other channels than the image: save the pyramid anew")
        reduction = first.width / level.width
        if abs(first.height / reduction - level.height) > DIFFERENCE_PX or reduction < 1:
            raise UserError(
                f"{name} says {level.width}x{level.height} pixels, which is no reduction of "
                f"{first.width}x{first.height}: save the pyramid anew"
            )
        tiles = -(-level.width // page.tilewidth) * -(-level.height // page.tilelength)
        if len(page.dataoffsets) < tiles or len(page.databytecounts) < tiles:
            raise UserError(f"{name} lacks tiles ({len(page.dataoffsets)} of {tiles}): the file is damaged")
        end = max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=False)))
        if end > self.file_bytes:
            raise UserError(f"ends before the tiles of {name}: the file is truncated")


class _Counted(io.FileIO):
    """A file that counts the bytes that are read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self.count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(-1 if size is None else size) or b""
        self.count += len(data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer) or 0
        self.count += count
        return count
