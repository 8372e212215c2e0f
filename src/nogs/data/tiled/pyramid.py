"""Write a square picture as a pyramidal TIFF, tile by tile, in memory that grows with its side and not its area.

Level 0 comes a row of tiles at a time. Two halved rows make a row of the next level, whose tiles wait in a temporary
file until their level is written. Tiles are JPEG.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import UInt8

TILE_PX = 256
SMALLEST_PX = 256
"""Side length of a level beneath which no smaller one follows."""
QUALITY = 80
"""JPEG quality of the tiles."""
BIG_SIDE_PX = 30_000
"""Side length from which BigTIFF is written, whose files may exceed 4 GB."""


class Tile(NamedTuple):
    """A tile of level 0, its bytes in the file, and its half in the next level."""

    pixels: UInt8[np.ndarray, "256 256 3"]
    encoded: bytes
    half: UInt8[np.ndarray, "128 128 3"]


def tile_of(pixels: UInt8[np.ndarray, "256 256 3"]) -> Tile:
    """Return the tile of these pixels."""
    return Tile(pixels, encode(pixels), halved(pixels))


def encode(pixels: UInt8[np.ndarray, "256 256 3"]) -> bytes:
    """Return a tile as JPEG."""
    import imagecodecs

    rows = np.ascontiguousarray(pixels)
    return bytes(
        imagecodecs.jpeg8_encode(rows, level=QUALITY, colorspace="RGB", outcolorspace="YCBCR", subsampling="444")
    )


def halved(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h/2 w/2 3"]:
    """Return the rounded means of 2 x 2 pixels."""
    rows = pixels[::2].astype(np.uint16) + pixels[1::2]
    return ((rows[:, ::2] + rows[:, 1::2] + 2) // 4).astype(np.uint8)


def level_sides(side_px: int) -> list[int]:
    """Return the side lengths of the levels: each half of the last, rounded down."""
    sides = [side_px]
    while sides[-1] > SMALLEST_PX:
        sides.append(sides[-1] // 2)
    return sides


def write_pyramid(path: Path, side_px: int, tile_at: Callable[[int, int], Tile]) -> None:
    """Write the picture whose tile in row i and column j is ``tile_at(i, j)``, whole or not at all."""
    import tifffile

    sides = level_sides(side_px)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with ExitStack() as stack:
        stack.callback(partial.unlink, missing_ok=True)
        above: _Level | None = None
        for level_px in reversed(sides[1:]):
            above = _Level(level_px, stack.enter_context(tempfile.TemporaryFile(dir=path.parent)), above)
        first, smaller = above, list[_Level]()
        while above is not None:
            smaller.append(above)
            above = above.next

        def tiles() -> Iterator[bytes]:
            count = -(-side_px // TILE_PX)
            for row in range(count):
                of_row = [tile_at(row, column) for column in range(count)]
                if first is not None:
                    first.add(np.concatenate([tile.half for tile in of_row], axis=1))
                yield from (tile.encoded for tile in of_row)

        with tifffile.TiffWriter(partial, bigtiff=side_px >= BIG_SIDE_PX) as file:
            for number, level_px in enumerate(sides):
                file.write(
                    tiles() if number == 0 else smaller[number - 1].tiles(),
                    shape=(level_px, level_px, 3),
                    dtype=np.uint8,
                    tile=(TILE_PX, TILE_PX),
                    photometric="ycbcr",
                    subsampling=(1, 1),
                    compression="jpeg",
                    metadata=None,
                    subifds=len(smaller) if number == 0 else None,
                    subfiletype=int(number > 0),
                )
        partial.replace(path)


class _Level:
    """A smaller level, which is given halved rows of the one before, and keeps its tiles in ``stored``."""

    def __init__(self, side_px: int, stored: BinaryIO, next: _Level | None) -> None:
        self.next, self._stored = next, stored
        self._count = -(-side_px // TILE_PX)
        self._sizes: list[int] = []
        self._rows: list[UInt8[np.ndarray, "128 w 3"]] = []

    def add(self, rows: UInt8[np.ndarray, "128 w 3"]) -> None:
        """Take half a row of tiles."""
        self._rows.append(rows)
        if len(self._rows) == 2:
            self._finish_row()

    def tiles(self) -> Iterator[bytes]:
        """Yield all tiles. What lies beyond the border of the level before is its last row."""
        self._flush()
        self._stored.seek(0)
        for size in self._sizes:
            yield self._stored.read(size)

    def _flush(self) -> None:
        if self._rows:
            self._rows.append(self._rows[0][-1:].repeat(TILE_PX // 2, 0))
            self._finish_row()
        if self.next is not None:
            self.next._flush()

    def _finish_row(self) -> None:
        pixels = _cut(np.concatenate(self._rows), self._count * TILE_PX)
        self._rows = []
        if len(self._sizes) == self._count**2:  # sides are rounded down, so a last row may lie outside
            return
        for tile in np.split(pixels, self._count, axis=1):
            self._sizes.append(self._stored.write(encode(tile)))
        if self.next is not None:
            self.next.add(halved(pixels))


def _cut(pixels: UInt8[np.ndarray, "h w 3"], width: int) -> UInt8[np.ndarray, "h v 3"]:
    """Return the first ``width`` columns; missing ones are the last."""
    missing = width - pixels.shape[1]
    return np.pad(pixels, ((0, 0), (0, missing), (0, 0)), mode="edge") if missing > 0 else pixels[:, :width]
