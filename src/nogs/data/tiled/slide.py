"""A tiled TIFF of which squares are read: only the tiles that a box touches are read and decoded.

Slides of a set share the number of files that are open at a time, the bytes of decoded tiles that are kept, and the
layouts of their tiles (`Shared`). They may be read from several threads.
"""

from __future__ import annotations

import hashlib
import os

import numpy as np
from jaxtyping import UInt8

from nogs.data.tiled.large import DIGEST_BYTES, LargeImage, State
from nogs.data.tiled.tiff import Level, read_header
from nogs.errors import UserError


class Slide(LargeImage):
    """A tiled TIFF. Its header is read when it is first needed, and its file is closed by `close`, if not before.

    A file that is not as ``state`` says, or changes after it was opened, is refused.
    """

    as_pyramid = "save it as a pyramid, as `vips tiffsave --tile --pyramid` does"
    _levels: tuple[Level, ...] | None = None

    @property
    def levels(self) -> tuple[Level, ...]:
        if self._levels is None:
            self.parse()
        assert self._levels is not None
        return self._levels

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

    def tile(self, number: int, index: int) -> UInt8[np.ndarray, "h w c"]:
        return self.levels[number].decode(self.stored(number, index), index, self._range)

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
