"""A cache of decoded images in one memory-mapped file, so that later starts need no time or memory for them.

The cache is in ``$NOGS_CACHE``, else ``$XDG_CACHE_HOME/nogs``, else ``~/.cache/nogs``. It has ``KEY.npy``, uint8
[M, c, H, H], and ``KEY.json`` with the facts of `About`, if there are any. KEY is a hash of the file list with sizes
and times, of the options for reading images, and of the versions of the decoders. The files can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import PIL
from jaxtyping import UInt8

from nogs.config.groups import Source
from nogs.data.decode import Survey, decode, survey
from nogs.data.frame import Box, Cut, Frame
from nogs.data.memory import check_memory
from nogs.data.notices import notice
from nogs.errors import UserError

VERSION = 2
"""Part of the key, to be increased when decoding changes pixels."""
_DAY_S = 86_400


@dataclass
class About:
    """Facts about files, in addition to their pixels. Files are identified by their index.

    ``bad``: the reason why a file has no image. ``twins``: pairs of files with the same pixels, the first such file
    with every later one. ``cut``: the area that cropping removes.
    """

    bad: dict[int, str]
    twins: list[tuple[int, int]]
    cut: Cut


class Pixels(NamedTuple):
    """The images that could be decoded, in the order of their files, and facts about all files."""

    images: UInt8[np.ndarray, "M c H H"]
    about: About


def read(files: Sequence[Path], source: Source, boxes: Sequence[Box] | None = None) -> Pixels:
    """Return files as square images of one size: from the cache, or decoded into it.

    ``source``: its image_size, fit and range are used (`nogs.data.frame.Frame`). ``boxes``: the part of each image to
    keep. If the cache cannot be written (no permission, disk full), the images are decoded into memory.
    """
    place = directory() / f"{_key(files, source, boxes)}.npy"
    cached = _open(place, len(files))
    if cached is not None:
        return cached
    surveyed = survey(files, source.image_size, fit=source.fit, range=source.range, boxed=boxes is not None)
    if surveyed.frame is None:
        return Pixels(np.empty((0, 1, 1, 1), dtype=np.uint8), About(surveyed.bad, [], Cut()))
    count, frame = len(files) - len(surveyed.bad), surveyed.frame
    check_memory(count, channels=frame.channels, image_px=frame.side_px, disk=place.parent)
    try:
        _write(place, files, frame, surveyed, boxes)
    except OSError as error:
        notice(f"the cache {place.parent} cannot be written ({error.strerror}), so every start decodes all images")
        return _in_memory(files, frame, surveyed, boxes)
    return _open(place, len(files)) or _in_memory(files, frame, surveyed, boxes)


def directory() -> Path:
    """Return the directory of decoded images. Raises UserError if $NOGS_CACHE is in an unknown user's home."""
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


def _key(files: Sequence[Path], source: Source, boxes: Sequence[Box] | None) -> str:
    how = (VERSION, PIL.__version__, source.image_size, source.fit, source.range, boxes or None)
    digest = hashlib.sha256(repr(how).encode())
    for file in files:
        try:
            stat = file.stat()
            state = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_mode}"
        except OSError as error:
            state = str(error.errno)
        digest.update(f"{file.absolute()}\0{state}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _open(place: Path, count: int) -> Pixels | None:
    """Return the images and facts of ``count`` files from ``place``, None if it is absent or incomplete."""
    try:
        beside = place.with_suffix(".json")
        about = _about(json.loads(beside.read_text(encoding="utf-8"))) if beside.exists() else About({}, [], Cut())
        # copy on write, because PyTorch takes only writable arrays, and no write may change the file
        images = np.load(place, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError, TypeError, KeyError, AttributeError):
        return None
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) + len(about.bad) != count:
        return None
    return Pixels(images, about)


def _about(content: dict[str, Any]) -> About:
    bad = {int(index): str(reason) for index, reason in content["bad"].items()}
    images, largest = content["cut"]
    return About(bad, [(int(i), int(j)) for i, j in content["twins"]], Cut(int(images), float(largest)))


def _write(place: Path, files: Sequence[Path], frame: Frame, surveyed: Survey, boxes: Sequence[Box] | None) -> None:
    """Decode into a file beside ``place`` and rename it when it is complete.

    It is written as a stream, because a full disk then raises OSError. Through a memory map it would send SIGBUS.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    for old in place.parent.glob("*.partial"):  # left by processes that were killed
        with contextlib.suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > _DAY_S:
                old.unlink()
    partial, beside = place.with_suffix(f".{os.getpid()}.partial"), place.with_suffix(".json")
    about = About(dict(surveyed.bad), [], surveyed.cut)
    try:
        with partial.open("wb") as stream:
            start = _head(stream, len(files), frame)
            for pixels in _decoded(files, frame, about, boxes):
                stream.write(pixels.tobytes())
            stream.seek(0)
            if _head(stream, len(files) - len(about.bad), frame) != start:
                raise OSError(errno.EIO, "the header grew")
        if about.bad or about.twins or about.cut.images:
            facts = partial.with_suffix(".json.partial")
            facts.write_text(json.dumps(asdict(about)), encoding="utf-8")
            facts.replace(beside)
        else:
            beside.unlink(missing_ok=True)
        partial.replace(place)
    finally:
        partial.unlink(missing_ok=True)


def _head(stream: BinaryIO, count: int, frame: Frame) -> int:
    """Write the .npy header of ``count`` images and return where the pixels start."""
    shape = (count, frame.channels, frame.side_px, frame.side_px)
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return int(stream.tell())


def _in_memory(files: Sequence[Path], frame: Frame, surveyed: Survey, boxes: Sequence[Box] | None) -> Pixels:
    about = About(dict(surveyed.bad), [], surveyed.cut)
    shape = (len(files) - len(about.bad), frame.channels, frame.side_px, frame.side_px)
    images, count = np.empty(shape, dtype=np.uint8), 0
    for pixels in _decoded(files, frame, about, boxes):
        images[count] = pixels
        count += 1
    return Pixels(images[:count], about)


def _decoded(
    files: Sequence[Path], frame: Frame, about: About, boxes: Sequence[Box] | None
) -> Iterator[UInt8[np.ndarray, "c H H"]]:
    """Yield the images of the files that are not bad; add those that cannot be decoded, and twins, to ``about``."""
    good = [index for index in range(len(files)) if index not in about.bad]
    first: dict[bytes, int] = {}
    decoded = decode([files[index] for index in good], frame, [boxes[index] for index in good] if boxes else None)
    for index, pixels in zip(good, decoded, strict=True):
        if isinstance(pixels, str):
            about.bad[index] = pixels
            continue
        twin = first.setdefault(hashlib.blake2b(pixels.tobytes(), digest_size=16).digest(), index)
        if twin != index:
            about.twins.append((twin, index))
        yield pixels
