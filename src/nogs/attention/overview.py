"""The overview: a reduced view of the whole image as glimpse 0, and a location head that convolves over it.

The head's logit of a location depends on the overview around it, on what was already seen there, on where it is, and on
the hidden state. Its parameters do not grow with the number of locations, and what is learned at one place holds at all
others. Saccader (Elsayed, Kornblith and Le 2019) and attention sampling (Katharopoulos and Fleuret 2019) choose places
from a reduced view in the same way.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from nogs.glimpses.embedding import ChannelsLast, averaged, convolutional, to_unit
from nogs.glimpses.grid import Grid
from nogs.glimpses.tables import table

WIDTH = 16
"""Channels of the convolutions over an overview."""
FLAT_PX = 64
"""Side of the largest overview that the core reads pixel by pixel. A linear layer on one of 150 pixels would have three
million weights, and with a thousand training images it would learn their labels by heart."""
INITIAL_LOGIT = -3.0
"""So that no location promises much before anything is learned, where logits are predicted gains."""


class Scene(NamedTuple):
    """The input of the location head beside the hidden state of B images.

    ``features``: of the overview, v x v, and of the place of each pixel. ``seen``: 1 where the centre of an overview
    pixel lies in a glimpse taken, and 2^-k if the finest of these glimpses is of zoom level k.
    """

    features: Float[Tensor, "*batch f v v"]
    seen: Float[Tensor, "*batch v v"]

    def select(self, images: Bool[Tensor, " B"] | Int[Tensor, " n"]) -> Scene:
        """Return the scene of some of the images, by mask or by index."""
        return Scene(self.features[images], self.seen[images])


class Overview(nn.Module):
    """The networks that read the overview: one for the core, and one for the location head."""

    def __init__(self, grid: Grid, side_px: int, *, channels: int, width: int) -> None:
        super().__init__()
        self.side_px = side_px
        whole = Grid(side_px, side_px, 1)
        self.embedding = (convolutional if side_px <= FLAT_PX else averaged)(whole, channels, width=width)
        self.features = ChannelsLast(
            nn.Conv2d(channels, WIDTH, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        )
        self.register_buffer("covered", table(lambda: _covered(grid, side_px)), persistent=False)
        self.register_buffer("lines", table(lambda: _lines(grid)), persistent=False)
        self.covered: Tensor
        self.lines: Tensor

    def forward(self, overview: UInt8[Tensor, "B c v v"]) -> tuple[Float[Tensor, "B e"], Float[Tensor, "B f v v"]]:
        """Return the embedding of the overview for the core, and its features for the location head."""
        pixels = to_unit(overview)
        return self.embedding(pixels).relu(), self.features(pixels)

    def glimpsed(self, cells: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch v v"]:
        """Return 2^-k for pixels of the overview whose centres lie in the glimpse at each cell, of level k; else 0."""
        # As an embedding, a lookup is one operation of an exported graph; as an index it is several.
        rows, columns = (
            F.embedding(F.embedding(cells, lines)[..., 0], covered)
            for lines, covered in zip(self.lines, self.covered, strict=True)
        )
        return rows[..., :, None] * columns[..., None, :]


class LocationMap(nn.Module):
    """A location head that convolves over the overview, interpolated at the centres of the grid's cells.

    Each zoom level has a map of its own.
    """

    def __init__(self, grid: Grid, side_px: int, *, hidden: int) -> None:
        super().__init__()
        self.finer = math.ceil(grid.side / side_px)
        self.seen = nn.Conv2d(3, WIDTH, 3, padding=1)
        """Reads what was seen, and the places, rows then columns."""
        self.state = nn.Linear(hidden, WIDTH, bias=False)
        self.sides = tuple(level.side for level in grid.levels)
        self.out = nn.Conv2d(WIDTH, grid.zoom * self.finer**2, 1)
        with torch.no_grad():
            cast(Tensor, self.out.bias).fill_(INITIAL_LOGIT)
        self.register_buffer("places", table(lambda: _places(side_px)), persistent=False)
        centres = table(lambda: torch.cat([_sampling_points(level) for level in grid.levels]))
        self.register_buffer("centres", centres, persistent=False)
        self.places: Tensor
        self.centres: Tensor

    def placed(self, features: Float[Tensor, "B f v v"]) -> Float[Tensor, "B f v v"]:
        """Return features of the overview with those of where each of its pixels is, which no glimpse changes."""
        return features + F.conv2d(self.places[None], self.seen.weight[:, 1:], self.seen.bias, padding=1)

    def forward(self, h: Float[Tensor, "*batch h"], scene: Scene) -> Float[Tensor, "*batch L"]:
        """Return the logits of every cell, from a scene of `placed` features.

        ``scene.features`` may have fewer leading dimensions, or some of size 1.
        """
        batch = h.shape[:-1]
        seen = scene.seen.expand(*batch, *scene.seen.shape[-2:]).flatten(0, -3)[:, None]
        # Its strides say that channels are last in memory, as they are in the features.
        weight = self.seen.weight[:, :1].clone(memory_format=torch.channels_last)
        mixed = scene.features + F.conv2d(seen, weight, padding=1).unflatten(0, batch)
        mixed = mixed.add_(self.state(h)[..., None, None]).relu_().flatten(0, -4)
        maps = self.out(mixed)
        if self.finer > 1:
            maps = F.pixel_shuffle(maps, self.finer)
        logits = []
        for map, side, centres in zip(
            maps.split(1, dim=1), self.sides, self.centres.split([s**2 for s in self.sides]), strict=True
        ):
            points = centres.view(side, side, 2).expand(map.shape[0], side, side, 2)
            logits.append(F.grid_sample(map, points, padding_mode="border", align_corners=False).view(*batch, side**2))
        return torch.cat(logits, dim=-1)


def cells_of_detail(
    grid: Grid, overview: UInt8[Tensor, "B c v v"], count: int, generator: Generator
) -> Int[Tensor, "B K"]:
    """Draw K = ``count`` cells of each image where its overview has detail.

    A pixel of the overview is drawn with a probability ∝ (x - mean of the image)², summed over channels, and the cell
    whose glimpse is nearest to one around it is returned, on a zoom level that is drawn uniformly. If all pixels are
    equal, it is drawn anywhere.
    """
    pixels = overview.flatten(2).float()
    detail = (pixels - pixels.mean(2, keepdim=True)).square().sum(1) + torch.finfo(torch.float32).eps
    drawn = torch.multinomial(detail, count, replacement=True, generator=generator)
    around = [
        first + level.nearest_cells(level.around(drawn, overview_px=overview.shape[-1]))
        for level, first in zip(grid.levels, grid.first_cells, strict=True)
    ]
    if grid.zoom == 1:
        return around[0]
    chosen = torch.randint(grid.zoom, drawn.shape, generator=generator, device=drawn.device)
    return torch.stack(around).gather(0, chosen[None])[0]


def _covered(grid: Grid, side_px: int) -> Float[Tensor, "2 s v"]:
    """Return for each row of cells which rows of the overview have their centres in its glimpses, and for columns.

    1 or 0 for columns; for rows of cells of level k 2^-k or 0, so that the product of the two is that for their pixels.
    """
    centres = (torch.arange(side_px, device="cpu") + 0.5) * (grid.image_px / side_px)
    rows, columns = [], []
    for level in grid.levels:
        first = torch.tensor(level.offsets_px, device="cpu")[:, None]
        inside = ((centres >= first) & (centres < first + level.glimpse_px)).float()
        rows.append(inside * (grid.glimpse_px / level.glimpse_px))
        columns.append(inside)
    return torch.stack((torch.cat(rows), torch.cat(columns)))


def _lines(grid: Grid) -> Int[Tensor, "2 L 1"]:
    """Return the row and the column of each cell, counted over all levels as the rows of ``Overview.covered`` are."""
    lines, first = [], 0
    for level in grid.levels:
        own = torch.arange(level.side**2, device="cpu")
        lines.append(torch.stack((first + own // level.side, first + own % level.side)))
        first += level.side
    return torch.cat(lines, dim=1)[..., None]


def _places(side_px: int) -> Float[Tensor, "2 v v"]:
    """Return (row, column) of the centre of each pixel of the overview, scaled so that it spans [-1, 1]."""
    along = (torch.arange(side_px, device="cpu") + 0.5) * (2 / side_px) - 1
    return torch.stack(torch.meshgrid(along, along, indexing="ij"))


def _sampling_points(grid: Grid) -> Float[Tensor, "L 2"]:
    """Return (column, row) of each cell's centre in [-1, 1], the order that `grid_sample` takes."""
    return grid.centres(torch.arange(len(grid), device="cpu")).flip(-1)
