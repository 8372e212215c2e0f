"""The pixels of a set of images: a tensor in memory, or images that are drawn or read where they are looked at."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor

from nogs.data.drawn import DRAWN_AT_ONCE, Drawn, averaged, reduced

PICTURE_PX = 1024
"""Side length of the pictures of images of which reduced ones are stored."""
Pixels = UInt8[Tensor, "N c H H"] | Drawn
"""uint8 in [0, 255], channels first. All have ``shape``, ``device``, ``to``, a length, and rows by index."""


def overview(images: Pixels, rows: Int[Tensor, " B"], px: int) -> UInt8[Tensor, "B c v v"]:
    """Return the images ``rows`` reduced to ``px`` pixels a side, each the rounded mean of the pixels it covers."""
    if isinstance(images, Tensor):
        return reduced(images.index_select(0, rows), px)
    return images.overview(rows, px)


def pictures(images: Pixels, rows: Int[Tensor, " B"]) -> UInt8[Tensor, "B c p p"]:
    """Return the images ``rows`` to be shown: whole, or of `PICTURE_PX` pixels a side if reduced ones are stored."""
    return images[rows] if isinstance(images, Tensor) else images.view(rows, min(PICTURE_PX, images.image_px))


def mean_image(images: Pixels, rows: Int[Tensor, " B"]) -> Float[Tensor, "c p p"]:
    """Return the mean of the `pictures` of ``rows``, in [0, 255]. Images that are no tensor are drawn a few at once."""
    if isinstance(images, Tensor):
        return images[rows].float().mean(0)
    side = images.view_px(min(PICTURE_PX, images.image_px))
    total = torch.zeros(images.shape[1], side, side, device=images.device)
    for some in rows.split(max(1, DRAWN_AT_ONCE // side**2)):
        total += pictures(images, some).float().sum(0)
    return total / len(rows)


def squares_of(
    images: Shaped[Tensor, "N c H W"] | Drawn, first: Int[Tensor, "B T 2"], rows: Int[Tensor, " B"], side: int
) -> Shaped[Tensor, "B T c s s"]:
    """Return the squares of ``side`` pixels with top-left pixels ``first``; the border repeats."""
    if not isinstance(images, Tensor):
        return images.squares(first, rows, side)
    c, H, W = images.shape[1:]
    span = torch.arange(side, device=images.device)
    planes = (rows[:, None] * c + torch.arange(c, device=images.device)) * (H * W)
    if images.device.type == "cpu" and images.is_contiguous() and _between_left_and_right(first, W - side):
        # A line of a square is contiguous: copying whole lines is four times faster than copying single pixels.
        lines = (first[..., 0, None] + span).clamp(0, H - 1) * W + first[..., 1, None]
        index = planes[:, None, :, None] + lines[:, :, None]
        every_line = images.as_strided((max(0, images.numel() - side + 1), side), (1, 1))
        return every_line.index_select(0, index.flatten()).reshape(*index.shape, side)
    return images.take(planes[:, None, :, None, None] + pixel_index(first, span, H, W)[:, :, None])


def reduced_squares_of(
    images: Shaped[Tensor, "N c H W"] | Drawn, first: Int[Tensor, "B T 2"], rows: Int[Tensor, " B"], side: int, px: int
) -> Shaped[Tensor, "B T c g g"]:
    """Return squares of ``side`` pixels, reduced to ``px`` pixels a side, a divisor of ``side``."""
    if isinstance(images, Tensor) or side == px:
        return averaged(squares_of(images, first, rows, side), side // px)
    return images.reduced_squares(first, rows, side, px)


def _between_left_and_right(first: Int[Tensor, "B T 2"], last: int) -> bool:
    columns = first[..., 1]
    return columns.numel() == 0 or (int(columns.min()) >= 0 and int(columns.max()) <= last)


def pixel_index(top_left_px: Int[Tensor, "B T 2"], span: Int[Tensor, " w"], H: int, W: int) -> Int[Tensor, "B T w w"]:
    """Return the index row * W + column of each pixel of squares, moved to the border if it lies outside.

    ``span``: the offsets from ``top_left_px`` along rows and columns, in pixels.
    """
    rows = (top_left_px[..., 0, None] + span).clamp(0, H - 1)
    columns = (top_left_px[..., 1, None] + span).clamp(0, W - 1)
    return rows[..., :, None] * W + columns[..., None, :]


def within_image(top_left_px: Int[Tensor, "B T 2"], span: Int[Tensor, " w"], H: int, W: int) -> Bool[Tensor, "B T w w"]:
    """Return whether each pixel of the same squares lies inside the image."""
    rows = top_left_px[..., 0, None] + span
    columns = top_left_px[..., 1, None] + span
    return ((rows >= 0) & (rows < H))[..., :, None] & ((columns >= 0) & (columns < W))[..., None, :]
