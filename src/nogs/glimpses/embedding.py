"""The location-conditioned glimpse embedding of the recurrent networks.

e(y, l) = ReLU(φ(y) ⊙ ψ(l)), the product of Ba, Mnih and Kavukcuoglu 2015 (section 3): the location l gates the features
of the pixels y. φ is convolutional or a perceptron, ψ a two-layer network on the glimpse's centre (*Near-Optimal
Glimpse Sequences*, section 5), and on its level if the grid has several.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from nogs.glimpses.grid import Grid
from nogs.glimpses.tables import table

LARGE_PX = 24


def to_unit(pixels: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return pixels of uint8 in [0, 255] as floats in [-1, 1]."""
    return pixels.float().div_(127.5).sub_(1)


class ChannelsLast(nn.Sequential):
    """Layers that begin with a convolution, with channels last in memory, which halves the time of small ones."""

    def forward(self, input: Float[Tensor, "B c g g"]) -> Tensor:
        return super().forward(  # type: ignore[no-untyped-call] # by torch
            input.contiguous(memory_format=torch.channels_last)
        )


def convolutional(grid: Grid, channels: int, *, width: int) -> nn.Module:
    """Return φ of the paper's network: conv 16 → conv 32 with stride 2 → max pool → FC (section 5).

    ``channels``: of a glimpse, c x scales. ``width``: number of features. The second ReLU follows the pooling, with
    which it commutes, and so takes a quarter of the work. Squares of ``LARGE_PX`` pixels or more get three convolutions
    with stride 2, of 16, 32 and 64 channels: half the work of the former there, and a wider view.
    """
    if grid.glimpse_px >= LARGE_PX:
        return ChannelsLast(
            *_strided(channels),
            nn.Flatten(),
            nn.Linear(64 * math.ceil(grid.glimpse_px / 8) ** 2, 2 * width),
            nn.ReLU(inplace=True),
            nn.Linear(2 * width, width),
        )
    after_stride = (grid.glimpse_px + 1) // 2
    pooled = max(1, after_stride // 2)
    return ChannelsLast(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.MaxPool2d(min(2 + after_stride % 2, after_stride), stride=2),  # an odd side needs windows of 3
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(32 * pooled**2, 2 * width),
        nn.ReLU(inplace=True),
        nn.Linear(2 * width, width),
    )


def averaged(grid: Grid, channels: int, *, width: int) -> nn.Module:
    """Return φ of large squares: three convolutions with stride 2, the mean over all places, and a linear layer."""
    return ChannelsLast(
        *_strided(channels),
        nn.AvgPool2d(math.ceil(grid.glimpse_px / 8)),
        nn.Flatten(),
        nn.Linear(64, width),
    )


def perceptron(grid: Grid, channels: int, *, width: int) -> nn.Module:
    """Return φ of the lookahead posterior: two linear layers on the pixels.

    ``channels``: of a glimpse, c x scales. ``width``: number of features. Design embeds every location of every
    completion, and this φ takes two matrix products for all. On 8-pixel glimpses of faces it also trained faster than
    the convolutions (docs/log.md).
    """
    pixels = channels * grid.glimpse_px**2
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))


class GlimpseEmbedding(nn.Module):
    """e(y, l) of ``width`` features. ``what``: φ, with the same number of features."""

    def __init__(self, grid: Grid, what: nn.Module, *, width: int) -> None:
        super().__init__()
        self.what = what
        self.where = nn.Sequential(nn.Linear(2 + (grid.zoom > 1), 32), nn.ReLU(), nn.Linear(32, width))
        centres = table(lambda: _places(grid))
        self.register_buffer("centres", centres, persistent=False)
        self.centres: Tensor

    def forward(
        self, patches: UInt8[Tensor, "*batch c g g"], cells: Int[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch e"]:
        what = self.what(to_unit(patches).flatten(0, -4)).unflatten(0, patches.shape[:-3])
        # ψ of the whole grid is cheaper than ψ of each glimpse once a batch holds more glimpses than cells.
        if cells.numel() < len(self.centres):
            where = self.where(F.embedding(cells, self.centres))
        else:  # the gradient of F.embedding is a sum over cells, that of indexing needs a sort
            where = F.embedding(cells, self.where(self.centres))
        return (what * where).relu()


def _places(grid: Grid) -> Float[Tensor, "L coordinates"]:
    """Return (row, column) of each cell's centre, in [-1, 1]; with several zoom levels also its level, scaled alike."""
    cells = torch.arange(len(grid), device="cpu")
    centres = grid.centres(cells)
    if grid.zoom == 1:
        return centres
    level = (grid.squares_px(cells)[:, 2:] / grid.glimpse_px).log2()
    return torch.cat((centres, level * (2 / (grid.zoom - 1)) - 1), dim=1)


def _strided(channels: int) -> list[nn.Module]:
    """Return three convolutions with stride 2, of 16, 32 and 64 channels, which reduce a side to an eighth of it."""
    return [
        nn.Conv2d(channels, 16, 5, stride=2, padding=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
    ]
