"""Glimpses: the grid of locations, the fovea that cuts them out, and the masked image they add up to.

A *cell* is an index into the grid of L locations, row-major. This file is the only place that turns
cells into pixels. A glimpse at location l is the square y = fovea(x, l) (Mnih et al. 2014, section 3.1);
with ``scales`` k > 1 it is k concentric squares, each twice as wide as the last and averaged down to the
same size, stacked as channels. Outside the image the border pixel repeats.

Pixels are uint8 in [0, 255], channels first; locations are the (row, column) of the top-left pixel of the
finest square.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor
from torch.nn import functional as F

from nogs.glimpses.grid import Grid

SHARE_BATCH = 64
"""Images whose masks of read pixels are in memory at a time."""


class Glimpses(NamedTuple):
    """What was observed of B images in T glimpses: the patches, and the grid cells where they were taken."""

    patches: UInt8[Tensor, "B T c g g"]
    cells: Int[Tensor, "B T"]

    def to(self, device: torch.device) -> Glimpses:
        """The same on another device."""
        return Glimpses(self.patches.to(device), self.cells.to(device))


def fovea(
    images: Shaped[Tensor, "N c H W"],
    grid: Grid,
    top_left_px: Int[Tensor, "B T 2"],
    rows: Int[Tensor, " B"] | None = None,
) -> Shaped[Tensor, "B T cs g g"]:
    """Cut T glimpses out of each of B images; ``cs`` = channels x scales, finest scale first.

    ``rows`` says which images, by default all: of a large set only the pixels that are looked at are read.
    Takes any dtype: retrieval looks at PCA components through the same fovea, which is linear.
    ``top_left_px`` need not lie on the grid, nor inside the image.
    """
    (c, H, W), (B, T), g = images.shape[1:], top_left_px.shape[:2], grid.glimpse_px
    rows = torch.arange(B, device=images.device) if rows is None else rows
    squares = []
    for scale in range(grid.scales):
        widen = 2**scale
        if widen > 1 and T * (g * widen) ** 2 > (H + g * widen) * (W + g * widen):  # pixels read, and those there are
            squares.append(_averaged_first(images, grid, top_left_px, rows, widen))
            continue
        square = _squares(images, top_left_px - g * (widen - 1) // 2, rows, g * widen)
        if widen > 1:
            pooled = square.reshape(B, T, c, g, widen, g, widen).float().mean((4, 6))
            square = pooled if images.is_floating_point() else pooled.round().to(images.dtype)
        squares.append(square)
    return torch.cat(squares, dim=2) if grid.scales > 1 else squares[0]


def _squares(
    images: Shaped[Tensor, "N c H W"], first: Int[Tensor, "B T 2"], rows: Int[Tensor, " B"], side: int
) -> Shaped[Tensor, "B T c s s"]:
    """The squares of ``side`` pixels whose top-left pixel is ``first``; the border repeats."""
    c, H, W = images.shape[1:]
    span = torch.arange(side, device=images.device)
    planes = (rows[:, None] * c + torch.arange(c, device=images.device)) * (H * W)
    if images.device.type == "cpu" and images.is_contiguous() and _between_left_and_right(first, W - side):
        # A line of a square lies in one piece: copied whole, it is four times faster than a pixel at a time.
        lines = (first[..., 0, None] + span).clamp(0, H - 1) * W + first[..., 1, None]
        index = planes[:, None, :, None] + lines[:, :, None]
        every_line = images.as_strided((max(0, images.numel() - side + 1), side), (1, 1))
        return every_line.index_select(0, index.flatten()).reshape(*index.shape, side)
    return images.take(planes[:, None, :, None, None] + _pixel_index(first, span, H, W)[:, :, None])


def _between_left_and_right(first: Int[Tensor, "B T 2"], last: int) -> bool:
    columns = first[..., 1]
    return columns.numel() == 0 or (int(columns.min()) >= 0 and int(columns.max()) <= last)


def _averaged_first(
    images: Shaped[Tensor, "N c H W"],
    grid: Grid,
    top_left_px: Int[Tensor, "B T 2"],
    rows: Int[Tensor, " B"],
    widen: int,
) -> Shaped[Tensor, "B T c g g"]:
    """One coarse scale of `fovea`, for many glimpses an image: all squares' means first, then those looked at.

    Squares of ``widen`` pixels a side, at every pixel and as far outside as glimpses reach. Sums of whole numbers are
    exact, so that it is the same to the bit for images of bytes.
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
    at = _pixel_index(first + pad, torch.arange(g, device=images.device) * widen, height, width)
    return means.flatten(2).gather(2, at.reshape(B, 1, -1).expand(B, c, -1)).reshape(B, c, T, g, g).transpose(1, 2)


def look(
    images: UInt8[Tensor, "N c H W"],
    grid: Grid,
    cells: Int[Tensor, "B T"],
    rows: Int[Tensor, " B"] | None = None,
) -> Glimpses:
    """Observe each image (or those of ``rows``) at its T cells."""
    return Glimpses(fovea(images, grid, grid.top_left_px(cells), rows), cells)


def nothing_seen(images: UInt8[Tensor, "B c H H"], grid: Grid) -> Glimpses:
    """No glimpse of any of these images: T = 0."""
    cells = torch.empty(len(images), 0, dtype=torch.long, device=images.device)
    return look(images, grid, cells)


def pixels_read_share(cells: Int[Tensor, "B T"], grid: Grid) -> Float[Tensor, " B"]:
    """Return the share of each image's pixels that lie in at least one of its T glimpses.

    With several scales the widest square counts, because its mean reads every pixel in it.
    """
    widen, H, g = 2 ** (grid.scales - 1), grid.image_px, grid.glimpse_px
    span = torch.arange(g * widen, device=cells.device) - g * (widen - 1) // 2
    shares = []
    for batch in cells.split(SHARE_BATCH):
        top_left_px = grid.top_left_px(batch)
        inside = _inside(top_left_px, span, H, H)
        index = torch.where(inside, _pixel_index(top_left_px, span, H, H), H * H).flatten(1)
        read = torch.zeros(len(batch), H * H + 1, dtype=torch.bool, device=cells.device).scatter(1, index, True)
        shares.append(read[:, : H * H].float().mean(1))
    return torch.cat(shares)


def masked_image(glimpses: Glimpses, grid: Grid) -> Float[Tensor, "B c_and_mask H H"]:
    """The image times the mask of what was observed, in [0, 1], with the mask as the last channel.

    The input of the AVP-CNN (Harvey et al., section 4.2): unseen pixels are 0. Coarser scales are painted
    first and leave 2^-scale in the mask, so that the network can tell a sharp pixel from an averaged one. Where
    squares of one scale overlap, which coarse ones may with different values, their mean is shown: the order of
    the glimpses leaves no trace.
    """
    patches, cells = glimpses
    B, _, cs, g, _ = patches.shape
    c, H = cs // grid.scales, grid.image_px
    canvas = torch.zeros(B, c + 1, H * H, device=patches.device)
    top_left_px = grid.top_left_px(cells)
    for scale in reversed(range(grid.scales)):
        widen = 2**scale
        square = patches[:, :, scale * c : (scale + 1) * c].transpose(1, 2).float()
        square = square.repeat_interleave(widen, -1).repeat_interleave(widen, -2)
        one = square.new_ones(B, 1, *square.shape[2:])
        span = torch.arange(g * widen, device=patches.device) - g * (widen - 1) // 2
        index = _pixel_index(top_left_px, span, H, H)
        inside = _inside(top_left_px, span, H, H)
        painted = torch.cat((square, one), dim=1).reshape(B, c + 1, -1)
        # Pixels beyond the border have no place on the canvas: they fall into one extra, discarded bin.
        target = torch.where(inside, index, H * H).reshape(B, 1, -1).expand(B, c + 1, -1)
        # Sums of whole numbers, which floats hold exactly: they have no order.
        total = canvas.new_zeros(B, c + 1, H * H + 1).scatter_add(2, target, painted)[..., : H * H]
        count = total[:, c:]
        mean = total[:, :c] / count.clamp_min(1) / 255
        canvas = torch.where(count > 0, torch.cat((mean, torch.full_like(count, 1 / widen)), dim=1), canvas)
    return canvas.reshape(B, c + 1, H, H)


def _pixel_index(top_left_px: Int[Tensor, "B T 2"], span: Int[Tensor, " w"], H: int, W: int) -> Int[Tensor, "B T w w"]:
    rows = (top_left_px[..., 0, None] + span).clamp(0, H - 1)
    columns = (top_left_px[..., 1, None] + span).clamp(0, W - 1)
    return rows[..., :, None] * W + columns[..., None, :]


def _inside(top_left_px: Int[Tensor, "B T 2"], span: Int[Tensor, " w"], H: int, W: int) -> Shaped[Tensor, "B T w w"]:
    rows = top_left_px[..., 0, None] + span
    columns = top_left_px[..., 1, None] + span
    return ((rows >= 0) & (rows < H))[..., :, None] & ((columns >= 0) & (columns < W))[..., None, :]
