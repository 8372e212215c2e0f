"""Images as a user has them (paths, PIL images, arrays, tensors) in the common form of a network.

A file is decoded as in training. Other images take the same way after decoding, so that the same pixels give the same
result. Only a JPEG that is more than twice as large as the network's images differs: its file is decoded at a reduced
size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import PIL.Image
import torch
from jaxtyping import UInt8
from torch import Tensor

from nogs.config.groups import Range
from nogs.data.decode import decode, read_headers, square, to_eight_bits, upright
from nogs.data.frame import Frame
from nogs.data.tiled.large import LargeImage
from nogs.data.tiled.opening import open_large
from nogs.errors import UserError

ImageLike: TypeAlias = str | Path | PIL.Image.Image | np.ndarray[Any, np.dtype[Any]] | Tensor
"""An image file, a PIL image, a uint8 array [H, W] or [H, W, c], or a uint8 tensor [H, W] or [c, H, W]."""
CHANNELS = (1, 3, 4)
"""Numbers of channels of arrays: grey, RGB, RGB and opacity."""
REDUCED_PX = 2048
"""Longer side, in pixels, of the picture of a slide that glimpses are drawn on."""
_UINT8 = "give uint8 in 0..255, as (255 * image).round() does for values in 0..1"


class Picture(NamedTuple):
    """The pixels that a network gets of an image, and the size in pixels of the upright image that was given."""

    pixels: UInt8[np.ndarray, "c H H"]
    width: int
    height: int


def read_pictures(images: Sequence[ImageLike], frame: Frame) -> Iterator[Picture | LargeImage | str]:
    """Yield each image in the form ``frame``, in order, or the reason why it cannot be used.

    An image that is read by tiles is yielded as it is, and nothing of it was decoded. The caller closes it.
    """
    slides = [_slide(image, frame.range) for image in images]
    files = [
        Path(image) for image, slide in zip(images, slides, strict=True) if isinstance(image, str | Path) and not slide
    ]
    headers, decoded = read_headers(files, frame.range), decode(files, frame)
    for image, slide in zip(images, slides, strict=True):
        if slide:
            yield slide
        elif isinstance(image, str | Path):
            header, pixels = next(headers), next(decoded)
            if isinstance(header, str) or isinstance(pixels, str):
                yield header if isinstance(header, str) else str(pixels)
            else:
                yield Picture(pixels, header.width, header.height)
        else:
            turned = in_memory(image, frame.range)
            yield turned if isinstance(turned, str) else Picture(square(turned, frame), *turned.size)


def whole(image: ImageLike, range: Range | None) -> PIL.Image.Image:
    """Return an image upright, in its own size and in RGB, to be drawn on. Raises UserError if it cannot be used.

    A slide is reduced to `REDUCED_PX` pixels or less.
    """
    slide = _slide(image, range)
    if isinstance(slide, str):
        raise UserError(f"image {slide}")
    if slide:
        with closing(slide):
            return slide.reduced(REDUCED_PX)
    if isinstance(image, str | Path):
        with PIL.Image.open(image) as opened:
            turned = upright(opened, range, file=Path(image))
            size = opened.size if isinstance(turned, str) else turned.size
            turned = turned if isinstance(turned, str) else turned.copy()
    else:
        turned = in_memory(image, range)
        size = (1, 1) if isinstance(turned, str) else turned.size
    if isinstance(turned, str):
        raise UserError(f"image {turned}")
    if turned.has_transparency_data:  # composited on white, as for the network
        side = max(size)
        pixels = square(turned, Frame(3, side, "pad"))
        left, top = (side - size[0]) // 2, (side - size[1]) // 2
        return PIL.Image.fromarray(pixels.transpose(1, 2, 0)).crop((left, top, left + size[0], top + size[1]))
    return turned.convert("RGB")


def _slide(image: object, range: Range | None) -> LargeImage | str | None:
    """Return a file as a slide, None if it is none, or the reason why it cannot be read."""
    if not isinstance(image, str | Path):
        return None
    try:
        return open_large(Path(image), range)
    except UserError as error:
        return str(error)
    except OSError:
        return None  # what is wrong with the file is found where all files are opened


def in_memory(image: object, range: Range | None) -> PIL.Image.Image | str:
    """Return an image that is no file, upright and with 8 bits a channel, or the reason why it cannot be used."""
    if isinstance(image, PIL.Image.Image):
        turned = upright(image, range)
        return turned.copy() if isinstance(turned, PIL.Image.Image) else turned
    if isinstance(image, Tensor):
        return _of_tensor(image, range)
    if isinstance(image, np.ndarray):
        return _of_array(image, range)
    return f"is of type {type(image).__name__}: give a path, a PIL image, a NumPy array or a tensor"


def _of_tensor(image: Tensor, range: Range | None) -> PIL.Image.Image | str:
    shape = tuple(image.shape)
    if image.ndim == 3 and shape[0] not in CHANNELS and shape[2] in CHANNELS:
        return f"is a tensor of shape {shape}: put its channels first, with image.permute(2, 0, 1)"
    if image.ndim not in (2, 3) or (image.ndim == 3 and shape[0] not in CHANNELS):
        return f"is a tensor of shape {shape}: give [H, W], or [c, H, W] with c of 1, 3 or 4"
    if image.dtype == torch.bfloat16:
        image = image.float()
    values = image.detach().cpu().numpy()
    return _of_array(values if image.ndim == 2 else values.transpose(1, 2, 0), range)


def _of_array(image: np.ndarray[Any, np.dtype[Any]], range: Range | None) -> PIL.Image.Image | str:
    shape = image.shape
    if image.ndim == 3 and shape[2] not in CHANNELS and shape[0] in CHANNELS:
        return f"is an array of shape {shape}: put its channels last, with image.transpose(1, 2, 0)"
    if image.ndim not in (2, 3) or (image.ndim == 3 and shape[2] not in CHANNELS):
        return f"is an array of shape {shape}: give [H, W], or [H, W, c] with c of 1, 3 or 4; several images as a list"
    if 0 in shape:
        return f"is an array of shape {shape}, which is empty"
    if image.dtype != np.uint8:
        if image.dtype.kind not in "iuf":
            return f"has values of type {image.dtype}: {_UINT8}"
        if range is None:
            return f"has values of type {image.dtype}, from {image.min():.4g} to {image.max():.4g}: {_UINT8}"
        image = to_eight_bits(image, range)
    return PIL.Image.fromarray(np.ascontiguousarray(image[..., 0] if shape[2:] == (1,) else image))
