"""Arrays of uint8 images in files of the cache: written whole or not at all, and mapped to be read."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8

_DAY_S = 86_400


@contextmanager
def replacing(place: Path) -> Iterator[BinaryIO]:
    """Open a file beside ``place`` to write, and rename it to ``place`` at the end of the context.

    It is written as a stream, because a full disk then raises OSError. Through a memory map it would send SIGBUS.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    for old in place.parent.glob("*.partial"):  # left by processes that were killed
        with contextlib.suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > _DAY_S:
                old.unlink()
    partial = place.with_name(f"{place.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as stream:
            yield stream
        partial.replace(place)
    finally:
        partial.unlink(missing_ok=True)


def write_header(stream: BinaryIO, shape: Sequence[int]) -> int:
    """Write the .npy header of an array of bytes and return where its values start."""
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)})
    return int(stream.tell())


def open_images(place: Path) -> UInt8[np.ndarray, "N c H H"] | None:
    """Map the images of a file; None if it is absent or holds something else."""
    try:
        # copy on write, because PyTorch takes only writable arrays, and no write may change the file
        images = np.load(place, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return images if images.dtype == np.uint8 and images.ndim == 4 else None
