"""Decoded images as one memory-mapped file, so that the second start takes no time and no memory.

``$NOGS_CACHE``, else ``$XDG_CACHE_HOME/nogs``, else ``~/.cache/nogs`` holds ``KEY.npy`` (uint8 [M, c, H, H])
and, where files were bad, ``KEY.json`` (index → reason). KEY is a hash of the file list with sizes and
times, of the image size, and of the versions of what decodes. The files can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import PIL
from jaxtyping import UInt8

from nogs.data.decode import Box, Frame, decode, survey
from nogs.data.memory import check_memory
from nogs.errors import UserError

VERSION = 1  # raise it when decode.py gives other pixels
_DAY_S = 86_400


class Pixels(NamedTuple):
    """Images that could be read, in the order of their files, and the others by index, with the reason."""

    images: UInt8[np.ndarray, "M c H H"]
    bad: dict[int, str]


def read(files: Sequence[Path], image_size: int | None, boxes: Sequence[Box] | None = None) -> Pixels:
    """The files, or a box of each, as square images of one size: from the cache, or decoded into it.

    Where the cache cannot be written (no permission, disk full), they are decoded into memory.
    """
    place = directory() / f"{_key(files, image_size, boxes)}.npy"
    known = _open(place, len(files))
    if known is not None:
        return known
    frame, bad = survey(files, image_size)
    if frame is None:
        return Pixels(np.empty((0, 1, 1, 1), dtype=np.uint8), bad)
    check_memory(len(files) - len(bad), channels=frame.channels, image_px=frame.side_px, disk=place.parent)
    try:
        _write(place, files, frame, bad, boxes)
    except OSError:
        return _in_memory(files, frame, bad, boxes)
    return _open(place, len(files)) or _in_memory(files, frame, bad, boxes)


def directory() -> Path:
    """Where decoded images are kept."""
    if own := os.environ.get("NOGS_CACHE"):
        try:
            return Path(own).expanduser()
        except RuntimeError:
            raise UserError(f"NOGS_CACHE={own}: unknown user {Path(own).parts[0]}; give an absolute path") from None
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "nogs"
    try:
        return Path.home() / ".cache" / "nogs"
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir()) / "nogs"


def _key(files: Sequence[Path], image_size: int | None, boxes: Sequence[Box] | None) -> str:
    digest = hashlib.sha256(f"{VERSION} {PIL.__version__} {image_size}".encode())
    if boxes:
        digest.update(repr(boxes).encode())
    for file in files:
        try:
            stat = file.stat()
            state = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_mode}"
        except OSError as error:
            state = str(error.errno)
        digest.update(f"{file.absolute()}\0{state}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _open(place: Path, count: int) -> Pixels | None:
    """What ``place`` holds of ``count`` files; None where it is absent or not whole."""
    try:
        beside = place.with_suffix(".json")
        bad = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {}
        # copy on write: PyTorch takes only writable arrays, and no write may reach the file
        images = np.load(place, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) + len(bad) != count:
        return None
    return Pixels(images, {int(index): reason for index, reason in bad.items()})


def _write(place: Path, files: Sequence[Path], frame: Frame, bad: dict[int, str], boxes: Sequence[Box] | None) -> None:
    """Decode into a file beside ``place`` and move it there when it is whole.

    Written as a stream rather than through a map: a disk that is full raises OSError and not SIGBUS.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    for old in place.parent.glob("*.partial"):  # of processes that were killed
        with contextlib.suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > _DAY_S:
                old.unlink()
    partial = place.with_suffix(f".{os.getpid()}.partial")
    bad = dict(bad)
    good = [index for index in range(len(files)) if index not in bad]
    try:
        with partial.open("wb") as stream:
            start = _head(stream, len(good), frame)
            for index, pixels in zip(good, _decoded(good, files, frame, boxes), strict=True):
                if isinstance(pixels, str):
                    bad[index] = pixels
                else:
                    stream.write(pixels.tobytes())
            stream.seek(0)
            if _head(stream, len(files) - len(bad), frame) != start:
                raise OSError("the header grew")
        if bad:
            reasons = partial.with_suffix(".json.partial")
            reasons.write_text(json.dumps(bad), encoding="utf-8")
            reasons.replace(place.with_suffix(".json"))
        else:
            place.with_suffix(".json").unlink(missing_ok=True)
        partial.replace(place)
    finally:
        partial.unlink(missing_ok=True)


def _head(stream: BinaryIO, count: int, frame: Frame) -> int:
    """Write the .npy header of ``count`` images; where the pixels start."""
    shape = (count, frame.channels, frame.side_px, frame.side_px)
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return int(stream.tell())


def _decoded(
    good: Sequence[int], files: Sequence[Path], frame: Frame, boxes: Sequence[Box] | None
) -> Iterator[UInt8[np.ndarray, "c H H"] | str]:
    return decode([files[i] for i in good], frame, [boxes[i] for i in good] if boxes else None)


def _in_memory(files: Sequence[Path], frame: Frame, bad: dict[int, str], boxes: Sequence[Box] | None) -> Pixels:
    bad = dict(bad)
    good = [index for index in range(len(files)) if index not in bad]
    images = np.empty((len(good), frame.channels, frame.side_px, frame.side_px), dtype=np.uint8)
    count = 0
    for index, pixels in zip(good, _decoded(good, files, frame, boxes), strict=True):
        if isinstance(pixels, str):
            bad[index] = pixels
        else:
            images[count] = pixels
            count += 1
    return Pixels(images[:count], bad)
