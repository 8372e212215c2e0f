"""A cache of decoded images in one memory-mapped file, so that later starts need no time or memory for them.

The cache is in ``$NOGS_CACHE``, else ``$XDG_CACHE_HOME/nogs``, else ``~/.cache/nogs``. It has ``KEY.npy``, uint8
[M, c, H, H], and ``KEY.json`` with the facts of `About`, if there are any. KEY is a hash of the file list with sizes
and times, of the options for reading images, and of the versions of the decoders. Files that are read by tiles have
other entries (`nogs.data.tiled.slides`). The files can be deleted at any time.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from jaxtyping import UInt8

from nogs.config.groups import Source
from nogs.data.decode import Survey, decode, survey
from nogs.data.drawn import Drawn
from nogs.data.files import folder_state, is_zarr
from nogs.data.frame import Box, Cut, Frame
from nogs.data.listing import About
from nogs.data.mapped import open_images, replacing, write_header
from nogs.data.memory import check_memory
from nogs.data.notices import notice
from nogs.data.tiled import tiff
from nogs.data.tiled.opening import has_zarr
from nogs.data.tiled.slides import read_slides
from nogs.errors import UserError

VERSION = 2
"""Part of the key, to be increased when decoding changes pixels."""
TIFF = (".tif", ".tiff", ".btf", ".svs")
"""Names of files whose pixels depend on whether they are read by tiles."""


class Pixels(NamedTuple):
    """The images that can be used, in the order of their files, and facts about all files."""

    images: UInt8[np.ndarray, "M c H H"] | Drawn
    about: About


def read(files: Sequence[Path], source: Source, boxes: Sequence[Box] | None = None) -> Pixels:
    """Return files as square images of one size: from the cache, or decoded into it, or as slides to read by tiles.

    They are slides if any of them is read by tiles (`nogs.data.tiled.slides`), and no ``boxes`` are given.
    ``source``: its image_size, fit and range are used (`nogs.data.frame.Frame`). ``boxes``: the part of each image to
    keep. If the cache cannot be written (no permission, disk full), the images are decoded into memory.
    """
    place = directory() / f"{_key(files, source, boxes)}.npy"
    cached = _open(place, len(files))
    if cached is not None:
        return cached
    if boxes is None and (slides := read_slides(files, source, place.with_suffix(".slides"))):
        return Pixels(*slides)
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
    how: tuple[object, ...] = (VERSION, PIL.__version__, source.image_size, source.fit, source.range, boxes or None)
    if any(file.suffix.lower() in TIFF for file in files):
        how += (tiff.LARGE_PX if tiff.has_tiff() else None,)
    if any(is_zarr(file) for file in files):
        how += (has_zarr(),)
    digest = hashlib.sha256(repr(how).encode())
    for file in files:
        try:
            stat = file.stat()
            state = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_mode}"
            if is_zarr(file):
                state += f" {folder_state(file)}"
        except OSError as error:
            state = str(error.errno)
        digest.update(f"{file.absolute()}\0{state}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _open(place: Path, count: int) -> Pixels | None:
    """Return the images and facts of ``count`` files from ``place``, None if it is absent or incomplete."""
    try:
        beside = place.with_suffix(".json")
        content = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else None
        about = About.from_json(content) if content else About({}, [], Cut())
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    images = open_images(place)
    if images is None or len(images) + len(about.bad) != count:
        return None
    return Pixels(images, about)


def _write(place: Path, files: Sequence[Path], frame: Frame, surveyed: Survey, boxes: Sequence[Box] | None) -> None:
    """Decode into the file ``place``, and write the facts beside it."""
    about, beside = About(dict(surveyed.bad), [], surveyed.cut), place.with_suffix(".json")
    form = frame.channels, frame.side_px, frame.side_px
    with replacing(place) as stream:
        start = write_header(stream, (len(files), *form))
        for pixels in _decoded(files, frame, about, boxes):
            stream.write(pixels.tobytes())
        stream.seek(0)
        if write_header(stream, (len(files) - len(about.bad), *form)) != start:
            raise OSError(errno.EIO, "the header grew")
        if about.bad or about.twins or about.cut.images:
            with replacing(beside) as facts:
                facts.write(json.dumps(asdict(about)).encode())
        else:
            beside.unlink(missing_ok=True)


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
