"""The fovea: glimpses cut out of images at locations of the grid.

A glimpse at location l is the square y = fovea(x, l) (Mnih, Heess, Graves and Kavukcuoglu 2014, *Recurrent Models of
Visual Attention*, section 3.1). With k > 1 ``scales`` it is k concentric squares, each twice as wide as the last and
averaged down to the same size, stacked as channels. Outside the image the border pixel repeats.

Pixels are uint8 in [0, 255], channels first; locations are the (row, column) of the top-left pixel of the finest
square.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor
from torch.nn import functional as F

from nogs.data.drawn import Drawn
from nogs.data.pixels import pixel_index, reduced_squares_of
from nogs.glimpses.grid import Grid

SHARE_BATCH = 64
"""Images whose masks of observed pixels are in memory at a time."""


class Glimpses(NamedTuple):
    """T glimpses of each of B images: patches of uint8 in [0, 255], and the grid cells where they were taken.

    ``c`` is channels x scales.
    """

    patches: UInt8[Tensor, "B T c g g"]
    cells: Int[Tensor, "B T"]

    def to(self, device: torch.device) -> Glimpses:
        """Return the same glimpses on ``device``."""
        return Glimpses(self.patches.to(device), self.cells.to(device))


def fovea(
    images: Shaped[Tensor, "N c H W"] | Drawn,
    grid: Grid,
    top_left_px: Int[Tensor, "B T 2"],
    rows: Int[Tensor, " B"] | None = None,
) -> Shaped[Tensor, "B T cs g g"]:
    """Cut T glimpses out of each of B images; ``cs`` = channels x scales, finest scale first.

    ``top_left_px``: (row, column) of each glimpse; it need not lie on the grid, nor inside the image.
    ``rows``: indices of the B images among ``images`` (default: all). Only the requested pixels are read.
    Images of any dtype are accepted, because retrieval applies the fovea, which is linear, to principal components.
    """
    (H, W), (B, T), g = images.shape[2:], top_left_px.shape[:2], grid.glimpse_px
    rows = torch.arange(B, device=images.device) if rows is None else rows
    if not isinstance(images, Tensor):
        top_left_px = images.places(top_left_px)
    stacked = []
    for scale in range(grid.scales):
        widen = 2**scale
        # Averaging the whole image once costs less if the glimpses together read more pixels than it has.
        if isinstance(images, Tensor) and widen > 1 and T * (g * widen) ** 2 > (H + g * widen) * (W + g * widen):
            stacked.append(_averaged_first(images, grid, top_left_px, rows, widen))
            continue
        first_px = top_left_px - g * (widen - 1) // 2
        stacked.append(reduced_squares_of(images, first_px, rows, g * widen, g))
    return torch.cat(stacked, dim=2) if grid.scales > 1 else stacked[0]


def _averaged_first(
    images: Shaped[Tensor, "N c H W"],
    grid: Grid,
    top_left_px: Int[Tensor, "B T 2"],
    rows: Int[Tensor, " B"],
    widen: int,
) -> Shaped[Tensor, "B T c g g"]:
    """Return one coarse scale of `fovea` by averaging the whole image first, then cutting.

    Each pixel of a glimpse is the mean of ``widen`` x ``widen`` pixels. For uint8 images the result equals that of
    averaging each glimpse, bit for bit, because sums of whole numbers are exact.
    """
    (B, T), (c, H, W), g = top_left_px.shape[:2], images.shape[1:], grid.glimpse_px
    first = top_left_px - g * (widen - 1) // 2
    pad = max(0, -int(first.min()), int(first.max()) + g * widen - min(H, W))
    means = F.pad(images.index_select(0, rows).float(), (pad, pad, pad, pad), mode="replicate")
    for side in ((widen, 1), (1, widen)):
        means = F.avg_pool2d(means, side, stride=1)
    if not images.is_floating_point():
        means = means.round().to(images.dtype)
    height, width = means.shape[2:]
    at = pixel_index(first + pad, torch.arange(g, device=images.device) * widen, height, width)
    return means.flatten(2).gather(2, at.reshape(B, 1, -1).expand(B, c, -1)).reshape(B, c, T, g, g).transpose(1, 2)


def look(
    images: UInt8[Tensor, "N c H W"] | Drawn,
    grid: Grid,
    cells: Int[Tensor, "B T"],
    rows: Int[Tensor, " B"] | None = None,
) -> Glimpses:
    """Observe B images at T cells each. ``rows``: indices of the B images among ``images`` (default: all).

    A glimpse of level k of the grid is the mean over squares of 2^k x 2^k pixels.
    """
    if grid.zoom == 1:
        return Glimpses(fovea(images, grid, grid.top_left_px(cells), rows), cells)
    (B, T), g = cells.shape, grid.glimpse_px
    rows = torch.arange(B, device=images.device) if rows is None else rows
    patches = torch.empty(B, T, images.shape[1], g, g, dtype=images.dtype, device=images.device)
    for level, here, own in grid.by_level(cells):
        image, t = here.nonzero(as_tuple=True)
        first_px = level.top_left_px(own[here])[:, None]
        if not isinstance(images, Tensor):
            first_px = images.places(first_px)
        patches[image, t] = reduced_squares_of(images, first_px, rows[image], level.glimpse_px, g)[:, 0]
    return Glimpses(patches, cells)


def nothing_seen(images: UInt8[Tensor, "B c H H"], grid: Grid) -> Glimpses:
    """Return T = 0 glimpses of each of ``images``."""
    cells = torch.empty(len(images), 0, dtype=torch.long, device=images.device)
    return look(images, grid, cells)


def pixels_read_share(cells: Int[Tensor, "B T"], grid: Grid, *, overview_px: int = 0) -> Float[Tensor, "B T"]:
    """Return the share of each image's pixels that were read after t = 1..T glimpses, at most 1.

    A pixel in several glimpses counts once. With several scales the widest square counts, because its mean reads every
    pixel in it. A glimpse of zoom level k counts with the pixels of an image that is reduced to a 2^k-th, as a pyramid
    stores one. ``overview_px``: side length of the overview, whose pixels count as read before the first glimpse: it
    is a reduced image, as a pyramid stores one, and not the pixels that it was computed from. 0: none.
    """
    widen = 2 ** (grid.scales - 1)
    read = torch.full(cells.shape, (overview_px / grid.image_px) ** 2, device=cells.device)
    for level, here, own in grid.by_level(cells):
        side_px = level.glimpse_px * widen
        first_px = level.top_left_px(own) - level.glimpse_px * (widen - 1) // 2
        # Glimpses of other levels lie outside of the image.
        first_px = torch.where(here[..., None], first_px, grid.image_px)
        shares = share_of_squares(first_px, side_px=side_px, image_px=grid.image_px)
        read = read + shares * (grid.glimpse_px / level.glimpse_px) ** 2
    return read.clamp(max=1)


def share_of_squares(top_left_px: Int[Tensor, "B T 2"], *, side_px: int, image_px: int) -> Float[Tensor, "B T"]:
    """Return the share of each image's pixels that lie in at least one of its first t = 1..T squares.

    ``side_px``: side length of the squares, in pixels. The edges of an image's squares divide it into at most
    (2T - 1)² rectangles, each of which lies in a square or outside of it.
    """
    shares = []
    for first in top_left_px.split(SHARE_BATCH):
        low, high = first.clamp(0, image_px), (first + side_px).clamp(0, image_px)
        edges = torch.cat((low, high), dim=1).sort(1).values
        sides = edges.diff(dim=1).double()
        begin = edges[:, None, :-1]
        inside = (low[:, :, None] <= begin) & (begin < high[:, :, None])
        covered = (inside[..., :, None, 0] & inside[..., None, :, 1]).cummax(1).values
        areas = torch.einsum("btrc,br,bc->bt", covered.double(), sides[..., 0], sides[..., 1])
        shares.append((areas / image_px**2).float())
    return torch.cat(shares)
