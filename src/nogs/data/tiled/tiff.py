"""What the header of a tiled TIFF says: the sizes of its levels, the places of their tiles, and how a tile is decoded.

A pyramid holds the same picture at several sizes, its levels. Level 0 is the largest. A level whose size does not fit
its tiles is left out. Needs tifffile and imagecodecs (`nogs[tiff]`).
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from nogs.config.groups import Range
from nogs.data.decode import to_eight_bits
from nogs.data.tiled.levels import LARGEST_TILE_PX, check_depth, check_reduction
from nogs.errors import UserError

LARGE_PX = 2**21
"""Pixels above which a tiled TIFF is read by tiles. Smaller ones are decoded whole, as every other image."""
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_INVERTED, _GREY, _RGB, _YCBCR = 0, 1, 2, 6
"""Values of the tag PhotometricInterpretation that have colours without a palette."""
_OF_ONE_FILE = {254, 269, 270, 273, 279, 305, 306, 315, 324, 325, 330, 34675}
"""Tags that do not change how tiles are decoded: names, texts, times, places of tiles and levels, colour profiles."""


class Layout(NamedTuple):
    """How the tiles of a level are decoded. Files that were written alike share one."""

    tile_width: int
    tile_height: int
    samples: int
    dtype: np.dtype[Any]
    inverted: bool
    decode: Callable[..., Any]
    """tifffile's decoder of a tile"""
    jpegtables: bytes | None


class Level(NamedTuple):
    """One size of the picture, in pixels, and where its tiles are in the file."""

    width: int
    height: int
    layout: Layout
    offsets: Int[np.ndarray, " tiles"]
    counts: Int[np.ndarray, " tiles"]
    """Bytes of each tile; 0 of one that a sparse file leaves out."""

    @property
    def tile_width(self) -> int:
        return self.layout.tile_width

    @property
    def tile_height(self) -> int:
        return self.layout.tile_height

    def decode(self, stored: bytes, index: int, range: Range | None) -> UInt8[np.ndarray, "h w c"]:
        """Return tile ``index`` from its bytes, in 8 bits a channel, grey or RGB. Raises any error if it is damaged."""
        layout = self.layout
        shape = layout.tile_height, layout.tile_width, layout.samples
        if stored:
            values = layout.decode(stored, index, jpegtables=layout.jpegtables)[0]
            values = values.reshape(-1, *values.shape[-2:])
        else:
            values = np.zeros(shape, dtype=layout.dtype)
        if values.shape[0] < shape[0] or values.shape[1] < shape[1]:  # tiles at the border may be stored cut
            room = [(0, whole - given) for whole, given in zip(shape, values.shape, strict=True)]
            values = np.pad(values, room)
        if layout.dtype != np.uint8:
            assert range is not None  # `_check` has seen to it
            values = to_eight_bits(values, range)
        if layout.inverted:
            values = 255 - values
        if layout.samples == 4:  # opacity: on white, as every other image
            opacity = values[..., 3:].astype(np.uint16)
            values = ((values[..., :3] * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)
        return values


Layouts = dict[tuple[object, ...], Layout]
"""The layouts of a set of files, by what distinguishes them."""


class Header(NamedTuple):
    """The levels of a file, largest first, and the number of bytes that were read to find them."""

    levels: tuple[Level, ...]
    bytes_read: int


def has_tiff() -> bool:
    """Return whether tifffile is installed."""
    return find_spec("tifffile") is not None


def is_tiff(path: Path) -> bool:
    """Return whether a file begins as a TIFF or BigTIFF does."""
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


def is_large(page: Any) -> bool:
    """Return whether tifffile's ``page`` is tiled and has more than `LARGE_PX` pixels."""
    return bool(page.is_tiled and page.imagewidth * page.imagelength > LARGE_PX)


def check_small(path: Path) -> None:
    """Raise UserError if a TIFF has more pixels than Pillow decodes."""
    try:
        Image.open(path).close()
    except Image.DecompressionBombError:
        raise UserError("has too many pixels to be decoded whole: install nogs[tiff] to read it by tiles") from None
    except Exception:  # Pillow's reason is found where all files are opened
        return


def read_header(
    descriptor: int, name: str, *, range: Range | None, layouts: Layouts, only_large: bool = False
) -> Header | None:
    """Read the header of the open file ``descriptor``, whose position it moves.

    ``name``: the file's name, by which tifffile knows some makers' files. ``range``: the values that become 0 and 255
    in a file of more than 8 bits a channel. ``layouts``: those of files read before, to which new ones are added.
    ``only_large``: return None for a file that is decoded whole, damaged ones included. Raises UserError if the file
    is damaged, lies about its levels, or has pixels that cannot be read.
    """
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs what it leaves out
    os.lseek(descriptor, 0, os.SEEK_SET)
    with _Counted(descriptor) as file:
        try:
            opened = tifffile.TiffFile(file, name=name)
            if only_large and not is_large(opened.pages.first):
                return None
        except Exception as error:  # tifffile raises many kinds of errors for damaged files
            if only_large:
                return None  # Pillow then names what is wrong
            raise _unreadable(error) from error
        try:
            pages = [level.keyframe for level in opened.series[0].levels]
            size = os.fstat(descriptor).st_size
            for number, page in enumerate(pages):
                _check(number, page, pages[0], range=range, file_bytes=size)
            return Header(tuple(_level(page, layouts) for page in pages), file.count)
        except UserError:
            raise
        except Exception as error:  # as above
            raise _unreadable(error) from error


def _unreadable(error: Exception) -> UserError:
    return UserError(f"is a TIFF that cannot be read: {(str(error) or type(error).__name__).splitlines()[0]}")


def _level(page: Any, layouts: Layouts) -> Level:
    """Return a level without tifffile's page: one page a layout is kept, because thousands would fill the memory."""
    tags = tuple((tag.code, repr(tag.value)) for tag in page.tags if tag.code not in _OF_ONE_FILE)
    key = (page.parent.byteorder, *tags)
    if key not in layouts:
        layouts[key] = Layout(
            page.tilewidth,
            page.tilelength,
            page.samplesperpixel,
            page.dtype,
            page.photometric == _INVERTED,
            page.decode,
            page.jpegtables,
        )
    offsets, counts = (np.array(column, dtype=np.int64) for column in (page.dataoffsets, page.databytecounts))
    return Level(page.imagewidth, page.imagelength, layouts[key], offsets, counts)


def _check(number: int, page: Any, first: Any, *, range: Range | None, file_bytes: int) -> None:
    """Raise UserError if a level cannot be read, or is not the level ``first`` at a smaller size."""
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
    check_depth(page.dtype, range)
    if number and (page.samplesperpixel, page.dtype) != (first.samplesperpixel, first.dtype):
        raise UserError(f"{name} has other channels than the image: save the pyramid anew")
    check_reduction(name, (page.imagewidth, page.imagelength), (first.imagewidth, first.imagelength))
    tiles = -(-page.imagewidth // page.tilewidth) * -(-page.imagelength // page.tilelength)
    if len(page.dataoffsets) < tiles or len(page.databytecounts) < tiles:
        raise UserError(f"{name} lacks tiles ({len(page.dataoffsets)} of {tiles}): the file is damaged")
    end = max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=False)))
    if end > file_bytes:
        raise UserError(f"ends before the tiles of {name}: the file is truncated")


class _Counted(io.FileIO):
    """An open file that counts the bytes that are read, and stays open."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "rb", closefd=False)
        self.count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(-1 if size is None else size) or b""
        self.count += len(data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer) or 0
        self.count += count
        return count
