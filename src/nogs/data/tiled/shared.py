"""What the slides of a set share: the files that are open at a time, decoded tiles, and how tiles are decoded."""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from nogs.data.tiled.tiff import Layouts
from nogs.errors import UserError

CACHE_BYTES = 2**26
"""Decoded tiles that are kept of one slide that is read by itself."""
OPEN_FILES = 128
"""Files of a set that are open at a time. Systems allow 256 or more."""


@runtime_checkable
class File(Protocol):
    """A file by its path, its own key, and the size and time of change that it must have, once they are known."""

    path: Path
    key: object
    size_and_time: tuple[int, int] | None


class Shared:
    """What the slides of a set share. ``cache_bytes``: most bytes of decoded tiles that are kept."""

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self.files = OpenFiles()
        self.tiles = TileCache(cache_bytes)
        self.layouts: Layouts = {}
        self.parsing = threading.Lock()


Tile = tuple[object, int, int]
"""The key of a slide, the number of a level, and the index of a tile there."""


class TileCache:
    """Decoded tiles, of which those that were used longest ago go when they exceed ``most_bytes``.

    Each tile lies in a mapping of its own, which the next tile of its size takes over. On the heap, whose freed memory
    a training keeps for its next step, tiles that stay between tensors that go would leave gigabytes of holes.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        self._tiles: OrderedDict[Tile, UInt8[np.ndarray, "h w c"]] = OrderedDict()
        self._lock = threading.Lock()

    def cut(self, key: Tile, rows: slice, columns: slice) -> UInt8[np.ndarray, "h w c"] | None:
        """Return a copy of a part of a tile; None if the tile is not kept."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is None:
                return None
            self._tiles.move_to_end(key)
            return tile[rows, columns].copy()

    def put(self, key: Tile, tile: UInt8[np.ndarray, "h w c"]) -> None:
        """Keep a copy of a tile."""
        if tile.nbytes > self._most_bytes:
            return
        with self._lock:
            if key in self._tiles:  # another thread was first
                return
            room = None
            while self._bytes + tile.nbytes > self._most_bytes:
                room = self._tiles.popitem(last=False)[1]
                self._bytes -= room.nbytes
            if room is None or room.shape != tile.shape:
                try:
                    mapping = mmap.mmap(-1, tile.nbytes)
                except OSError:  # Linux allows a process 65,530 mappings
                    self._most_bytes = self._bytes
                    return
                room = np.frombuffer(mapping, dtype=np.uint8).reshape(tile.shape)
            room[:] = tile
            self._tiles[key] = room
            self._bytes += tile.nbytes


class OpenFiles:
    """The open files of slides, of which those that were used longest ago are closed beyond `OPEN_FILES`."""

    def __init__(self) -> None:
        # By the keys of slides: the slides themselves refer to this object, which could then not be freed.
        self._open: OrderedDict[object, int] = OrderedDict()
        self._users: Counter[object] = Counter()
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._open)

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def open(self, slide: File) -> Iterator[int]:
        """Yield the descriptor of a slide's file. Raises UserError if the file is not as it was when first opened."""
        key = slide.key
        with self._lock:
            if key not in self._open:
                self._open[key] = _open(slide.path)
            self._open.move_to_end(key)
            self._users[key] += 1
            descriptor = self._open[key]
            if (over := len(self._open) - OPEN_FILES) > 0:
                for idle in [other for other in self._open if not self._users[other]][:over]:
                    os.close(self._open.pop(idle))
        try:
            status = os.fstat(descriptor)
            now = status.st_size, status.st_mtime_ns
            slide.size_and_time = slide.size_and_time or now
            if slide.size_and_time != now:
                raise UserError("was changed while it was read; run it again")
            yield descriptor
        finally:
            with self._lock:
                self._users[key] -= 1
                if not self._users[key]:
                    del self._users[key]

    def close(self, slide: File) -> None:
        with self._lock:
            if slide.key in self._open:
                os.close(self._open.pop(slide.key))


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}") from error


def _close_all(files: OrderedDict[object, int]) -> None:
    while files:
        os.close(files.popitem()[1])
