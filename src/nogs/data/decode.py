"""Decode image files to square uint8 pixels, with Pillow, in a pool of threads.

Every image is turned upright by its EXIF orientation, cropped to its box or fitted to a square, and resized with
antialiasing. Grey images keep one channel if all of them are grey, and become RGB otherwise. Transparent pixels are
composited on white. More than 8 bits a channel need a range of values, which is mapped to 0..255 linearly and clipped.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Real, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.progress import track

from nogs.config.groups import Fit, Range
from nogs.data.files import check_regular
from nogs.data.formats import format_of
from nogs.data.frame import Box, Cut, Frame, shown

Item = TypeVar("Item")
Result = TypeVar("Result")
CHUNK = 256
"""Images that are decoded at a time, which bounds memory if they are written to a slow disk."""
MIN_FOR_BAR = 1000
"""Smallest number of images for which a progress bar is shown."""
BACKGROUND = "white"
"""Colour behind transparent pixels."""
_GREY = {"1", "L", "LA", "La", "I", "F"}
_DEEP_COLOUR = re.compile(r"(RGB|RGBA|RGBX|RGBa|LA|CMYK);16[BLN]$")
"""Pillow's names for raw data of 16 bits a channel in several channels, of which it keeps 8."""
_STRAIGHT = {"La": "LA", "RGBa": "RGBA"}
_TURNED = {5, 6, 7, 8}
"""EXIF orientations that swap width and height."""


class Header(NamedTuple):
    """Facts from a file's header. Sizes are in pixels, of the upright image."""

    width: int
    height: int
    grey: bool


class Survey(NamedTuple):
    """The common form of a set of files, None if no file can be read.

    ``bad``: the reason why a file does not fit, by index. ``cut``: what cropping removes from the others.
    """

    frame: Frame | None
    bad: dict[int, str]
    cut: Cut


def survey(
    files: Sequence[Path], image_size: int | None, *, fit: Fit, range: Range | None, boxed: bool = False
) -> Survey:
    """Read all headers and choose the common form, as `common_form` does."""
    headers = read_headers(files, range)
    return common_form(files, headers, image_size, fit=fit, range=range, boxed=boxed)


def common_form(
    files: Sequence[Path],
    read: Iterable[Header | str],
    image_size: int | None,
    *,
    fit: Fit,
    range: Range | None,
    boxed: bool = False,
) -> Survey:
    """Choose the common form of files. ``read``: the header of each, or the reason why it cannot be used.

    ``image_size``: side of the squares in pixels. None keeps the size of the images: the most frequent one is the
    common one and images of all others are bad. ``boxed``: only a box of each image is kept, so ``fit`` cuts nothing.
    """
    headers: dict[int, Header] = {}
    bad: dict[int, str] = {}
    for index, header in enumerate(read):
        if isinstance(header, Header):
            headers[index] = header
        else:
            bad[index] = header
    if not headers:
        return Survey(None, bad, Cut())
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
        side_px = min(width, height) if fit == "crop" else max(width, height)
    cut = Cut()
    for header in () if boxed else headers.values():
        cut = cut.add(header.width, header.height, fit)
    grey = all(header.grey for header in headers.values())
    return Survey(Frame(1 if grey else 3, side_px, fit, range), bad, cut)


def read_headers(files: Sequence[Path], range: Range | None) -> Iterator[Header | str]:
    """Yield the header of each file in order, or the reason why the file cannot be decoded."""

    def header(file: Path) -> Header | str:
        try:
            check_regular(file)
            with Image.open(file) as image:
                if reason := _too_deep(image, range):
                    return reason
                turned = "exif" in image.info and image.getexif().get(0x0112) in _TURNED
                width, height = image.size
                grey = image.mode.partition(";")[0] in _GREY
                return Header(*((height, width) if turned else (width, height)), grey=grey)
        except Exception as error:  # Pillow's plugins raise many kinds of errors for damaged files
            return _reason(file, error)

    return in_threads(header, files, "reading headers")


def decode(
    files: Sequence[Path], frame: Frame, boxes: Sequence[Box] | None = None
) -> Iterator[UInt8[np.ndarray, "c H H"] | str]:
    """Yield the pixels of each file in order, or the reason why the file has none.

    ``boxes``: the part of each image to keep; without boxes, ``frame.fit`` chooses it.
    """

    def pixels(item: tuple[Path, Box | None]) -> UInt8[np.ndarray, "c H H"] | str:
        file, box = item
        try:
            check_regular(file)
            with Image.open(file) as image:
                if image.format == "JPEG" and not box:  # decoding at twice the size or more is faster than at full size
                    image.draft(None, (2 * frame.side_px, 2 * frame.side_px))
                turned = upright(image, frame.range, file=file)
                if isinstance(turned, str):
                    return turned
                return square(turned, frame, box.within(*turned.size) if box else None)
        except Exception as error:  # Pillow's plugins raise many kinds of errors for damaged files
            return _reason(file, error)

    items = [(file, boxes[i] if boxes else None) for i, file in enumerate(files)]
    return in_threads(pixels, items, "decoding images")


def upright(image: Image.Image, range: Range | None, *, file: Path | None = None) -> Image.Image | str:
    """Return an open image upright and with 8 bits a channel, or the reason why it cannot be.

    ``range``: the values that become 0 and 255 in an image of more bits. ``file``: where the image was opened, from
    which colours of 16 bits are read again, because Pillow keeps 8 of them.
    """
    if reason := _too_deep(image, range):
        return reason
    if range is not None and _is_deep(image):
        if file is None and _is_deep_colour(image):
            return (
                f"has 16 bits a channel in colour, of which Pillow keeps 8 ({image.format}): give the path of its file"
            )
        image = _eight_bits(image, file, range)
    return ImageOps.exif_transpose(image)


def square(image: Image.Image, frame: Frame, box: Box | None = None) -> UInt8[np.ndarray, "c H H"]:
    """Return an upright image of 8 bits a channel in the common form; with ``box``, that part of it, stretched."""
    mode = "L" if frame.channels == 1 else "RGB"
    if image.has_transparency_data:
        image = _opaque(image)
    elif image.mode == "P":
        image = image.convert("RGB")
    if image.mode != mode:
        image = image.convert(mode)
    if box is None and frame.fit == "pad":
        image = _padded(image, frame.side_px)
    box = box or shown(*image.size, frame.fit)
    if box != (0, 0, *image.size):
        image = image.crop(box)
    if image.size != (frame.side_px, frame.side_px):
        image = image.resize((frame.side_px, frame.side_px), Image.Resampling.LANCZOS)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def to_eight_bits(values: Real[np.ndarray, "*shape"], range: Range) -> UInt8[np.ndarray, "*shape"]:
    """Map values linearly, ``range`` to 0..255, and clip them. NaN becomes 0."""
    low, high = range
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.nan_to_num(scaled, nan=0.0).clip(0, 255).round().astype(np.uint8)


def _opaque(image: Image.Image) -> Image.Image:
    """Return an image with transparency composited on `BACKGROUND`."""
    image = image.convert(_STRAIGHT.get(image.mode, image.mode)).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image).convert("RGB")


def _padded(image: Image.Image, side_px: int) -> Image.Image:
    """Return an image resized to fit into a square of ``side_px``, centred on black."""
    longer = max(image.size)
    width, height = (max(1, round(length * side_px / longer)) for length in image.size)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    canvas = Image.new(image.mode, (side_px, side_px))
    canvas.paste(image, ((side_px - width) // 2, (side_px - height) // 2))
    return canvas


def _is_deep(image: Image.Image) -> bool:
    """Return whether an open image has more than 8 bits a channel."""
    return image.mode.partition(";")[0] in ("I", "F") or _is_deep_colour(image)


def _is_deep_colour(image: Image.Image) -> bool:
    tile = getattr(image, "tile", None)  # absent unless the image comes from a file
    raw = tile[0].args if tile else None
    return bool(_DEEP_COLOUR.match(str(raw[0] if isinstance(raw, tuple) else raw)))


def _too_deep(image: Image.Image, range: Range | None) -> str | None:
    """Return why an open image has too many bits a channel, None if it can be decoded."""
    if not _is_deep(image):
        return None
    if range is None:
        return (
            f"has more than 8 bits a channel ({image.mode}), which needs `range` in training: the two values that "
            "become black and white, as in range=0,65535"
        )
    if _is_deep_colour(image) and image.format != "PNG":
        return f"has 16 bits a channel in colour, which are read from PNG only, not {image.format}: save it as PNG"
    return None


def _eight_bits(image: Image.Image, file: Path | None, range: Range) -> Image.Image:
    """Return an open image of more than 8 bits a channel with ``range`` mapped to 0..255, and with its EXIF."""
    if file is not None and _is_deep_colour(image):
        values = _read_png(file)
        colours = values.shape[2] - (1 - values.shape[2] % 2)  # with two or four channels the last is opacity
        opacity = to_eight_bits(values[..., colours:], (0, 65535))
        mapped = Image.fromarray(np.concatenate([to_eight_bits(values[..., :colours], range), opacity], axis=2))
    else:
        mapped = Image.fromarray(to_eight_bits(np.asarray(image), range))
    mapped.getexif().update(image.getexif())
    return mapped


def _read_png(file: Path) -> Real[np.ndarray, "h w c"]:
    """Return the values of a PNG with all bits, where Pillow keeps 8 of coloured ones."""
    from torchvision.io import ImageReadMode, read_image  # takes seconds to import, and few files need it

    values: np.ndarray[tuple[int, ...], np.dtype[np.uint16]] = read_image(str(file), ImageReadMode.UNCHANGED).numpy()
    return values.transpose(1, 2, 0)


def _reason(file: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return format_of(file) or "is not an image that Pillow can read"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"cannot be decoded: {error}"


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], title: str) -> Iterator[Result]:
    """Apply ``work`` to every item, in order, a chunk at a time; on a terminal, with a progress bar on stderr."""
    console = Console(stderr=True)
    quiet = len(items) < MIN_FOR_BAR or not console.is_terminal
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        chunks = range(0, len(items), CHUNK)
        for start in track(chunks, title, console=console, transient=True, disable=quiet):
            yield from pool.map(work, items[start : start + CHUNK])
