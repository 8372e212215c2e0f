"""The pixels of a set of images: a tensor in memory, or images that are drawn or read where they are looked at."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from nogs.data.drawn import DRAWN_AT_ONCE, Drawn, reduced

Pixels = UInt8[Tensor, "N c H H"] | Drawn
"""uint8 in [0, 255], channels first. All have ``shape``, ``device``, ``to``, a length, and rows by index."""


def overview(images: Pixels, rows: Int[Tensor, " B"], px: int) -> UInt8[Tensor, "B c v v"]:
    """Return the images ``rows`` reduced to ``px`` pixels a side, each the rounded mean of the pixels it covers."""
    if isinstance(images, Tensor):
        return reduced(images.index_select(0, rows), px)
    return images.overview(rows, px)


def mean_image(images: Pixels, rows: Int[Tensor, " B"]) -> Float[Tensor, "c H H"]:
    """Return the mean of the images ``rows``, in [0, 255]. Images that are no tensor are drawn a few at a time."""
    if isinstance(images, Tensor):
        return images[rows].float().mean(0)
    total = torch.zeros(images.shape[1:], device=images.device)
    for some in rows.split(max(1, DRAWN_AT_ONCE // images.image_px**2)):
        total += images[some].float().sum(0)
    return total / len(rows)
