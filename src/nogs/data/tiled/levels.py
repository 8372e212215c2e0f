"""What every format of large images has: levels, which are the same picture at several sizes, and their checks."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from nogs.config.groups import Range
from nogs.errors import UserError

LARGEST_TILE_PX = 2**13
"""Longest side of a tile: a file that claims more would allocate it."""
DIFFERENCE_PX = 2
"""Rounding of a level's sides, in its own pixels, beyond which it is no reduction of level 0."""


@runtime_checkable
class Level(Protocol):
    """One size of the picture, and the size of its tiles, in pixels."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def tile_width(self) -> int: ...
    @property
    def tile_height(self) -> int: ...


def tiles_across(level: Level) -> int:
    """Return the number of tiles in a row."""
    return -(-level.width // level.tile_width)


def check_reduction(name: str, size: tuple[int, int], first: tuple[int, int]) -> None:
    """Raise UserError if a level's width and height are no reduction of those of level 0."""
    (width, height), (widest, highest) = size, first
    reduction = widest / width
    if abs(highest / reduction - height) > DIFFERENCE_PX or reduction < 1:
        raise UserError(
            f"{name} says {width}x{height} pixels, which is no reduction of {widest}x{highest}: save the pyramid anew"
        )


def check_depth(dtype: np.dtype[Any], range: Range | None) -> None:
    """Raise UserError for more than 8 bits a channel without a range."""
    if dtype != np.uint8 and range is None:
        raise UserError(
            f"has more than 8 bits a channel ({dtype}), which needs `range` in training: the two values that "
            "become black and white, as in range=0,65535"
        )
