"""Image files to square uint8 pixels, by Pillow, in a pool of threads.

Every image is turned as its EXIF says, cropped to its box, or else to the centre square, and resized with
antialiasing. Grey images stay one channel where all of them are grey, and become RGB among RGB. Transparency
is dropped.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")
Result = TypeVar("Result")
CHUNK = 256  # images in flight: bounds memory while a slow disk writes
LONG = 1000  # images from which on a progress bar is worth its line
_GREY = {"1", "L", "LA", "La"}
_DEEP = {"I", "F"}  # 16 and 32 bits a pixel: Pillow would clip them to 255
_TURNED = {5, 6, 7, 8}  # EXIF orientations that swap width and height


class Header(NamedTuple):
    """What a file says of itself before it is decoded; sizes in pixels, after turning."""

    width: int
    height: int
    grey: bool


class Frame(NamedTuple):
    """The form that all images get: ``channels`` × ``side_px`` × ``side_px``."""

    channels: int
    side_px: int


class Box(NamedTuple):
    """The part of an image that is kept, in pixels of its file; right and bottom are the first left out."""

    left: int
    top: int
    right: int
    bottom: int

    def within(self, width: int, height: int) -> Box:
        """What of it lies on an image of that size."""
        return Box(max(self.left, 0), max(self.top, 0), min(self.right, width), min(self.bottom, height))


def survey(files: Sequence[Path], image_size: int | None) -> tuple[Frame | None, dict[int, str]]:
    """Read all headers: the common form, and the files (by index) that do not fit, with the reason.

    Without ``image_size`` the most frequent size is the common one and all others do not fit. The form is
    None where no file can be read.
    """
    headers: dict[int, Header] = {}
    bad: dict[int, str] = {}
    for index, found in enumerate(_in_threads(_header, files, "reading headers")):
        if isinstance(found, Header):
            headers[index] = found
        else:
            bad[index] = found
    if not headers:
        return None, bad
    side_px = image_size
    if side_px is None:
        sizes = Counter((header.width, header.height) for header in headers.values())
        (width, height), _ = sizes.most_common(1)[0]
        example = next(i for i, header in headers.items() if header[:2] == (width, height))
        for index, header in list(headers.items()):
            if header[:2] != (width, height):
                bad[index] = (
                    f"is {header.width}x{header.height} pixels, but {files[example]} is {width}x{height}: "
                    "give `image_size` to make all one size"
                )
                del headers[index]
        side_px = min(width, height)
    grey = all(header.grey for header in headers.values())
    return Frame(1 if grey else 3, side_px), bad


def decode(
    files: Sequence[Path], frame: Frame, boxes: Sequence[Box] | None = None
) -> Iterator[UInt8[np.ndarray, "c H H"] | str]:
    """The pixels of each file, of its box if there are boxes, in order; a string says why a file has none."""

    def pixels(item: tuple[Path, Box | None]) -> UInt8[np.ndarray, "c H H"] | str:
        file, box = item
        try:
            with Image.open(file) as image:
                if image.format == "JPEG" and not box:  # decoded at no less than twice the size wanted: much faster
                    image.draft(None, (2 * frame.side_px, 2 * frame.side_px))
                upright = ImageOps.exif_transpose(image)
                return square(upright, frame, box.within(*upright.size) if box else None)
        except Exception as error:  # Pillow's plugins raise anything for a broken file
            return _reason(error)

    items = [(file, boxes[i] if boxes else None) for i, file in enumerate(files)]
    return _in_threads(pixels, items, "decoding images")


def square(image: Image.Image, frame: Frame, box: Box | None = None) -> UInt8[np.ndarray, "c H H"]:
    """The box, or the centre square, of an image, resized and in the common form."""
    mode = "L" if frame.channels == 1 else "RGB"
    if image.mode == "P":  # a palette may hold transparency, which only RGBA can take
        image = image.convert("RGBA")
    if image.mode != mode:
        image = image.convert(mode)
    if box is None:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = Box(left, top, left + side, top + side)
    if box != (0, 0, *image.size):
        image = image.crop(box)
    if image.size != (frame.side_px, frame.side_px):
        image = image.resize((frame.side_px, frame.side_px), Image.Resampling.LANCZOS)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _header(file: Path) -> Header | str:
    try:
        with Image.open(file) as image:
            if image.mode.split(";")[0] in _DEEP:
                return f"has more than 8 bits a channel ({image.mode}): save it as 8-bit"
            turned = "exif" in image.info and image.getexif().get(0x0112) in _TURNED
            width, height = image.size
            return Header(*((height, width) if turned else (width, height)), grey=image.mode in _GREY)
    except Exception as error:  # as above
        return _reason(error)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "is not an image that Pillow can read"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"cannot be decoded: {error}"


def _in_threads(work: Callable[[Item], Result], items: Sequence[Item], title: str) -> Iterator[Result]:
    """``work`` on every item, in order, a chunk at a time; on a terminal, with a progress bar on stderr."""
    console = Console(stderr=True)
    quiet = len(items) < LONG or not console.is_terminal
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        chunks = range(0, len(items), CHUNK)
        for start in track(chunks, title, console=console, transient=True, disable=quiet):
            yield from pool.map(work, items[start : start + CHUNK])
