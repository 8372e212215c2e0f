"""Drawing on the grid: maps of gains, images faded where unseen, glimpses, and the share of images that look somewhere.

A map is painted in pixels: each cell is a tile around the centre of its glimpse, as wide as the grid's stride.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from nogs.glimpses.grid import Grid
from nogs.report.style import FAINT, FILL, OUTLINE

GAMMA = 0.4
"""Colours follow this power of a value, so that the small gains of late glimpses show beside the first."""
FADED = 0.45
"""Opacity of pixels that were not seen."""
LARGEST_PX = 2048
"""Longest side of a map of pixels."""
Square = Sequence[int]
"""The square of a glimpse, in pixels: row and column of its top-left pixel, and its side."""


def panels(rows: int, columns: int, grid: Grid, *, side: float, margin: float = 0.0) -> tuple[Figure, NDArray[Any]]:
    """Return a figure of square panels of ``side`` inches in pixel coordinates, with ``margin`` inches beside them."""
    figure = Figure(figsize=(columns * (side + 0.08) + 0.2 + margin, rows * (side + 0.32) + 0.2))
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set(xlim=(0, grid.image_px), ylim=(grid.image_px, 0), xticks=[], yticks=[], facecolor=FILL)
        ax.set_aspect("equal")
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
    return figure, axes


def head(ax: Axes, text: str, colour: str = FAINT) -> None:
    """Write a small title over a panel."""
    ax.set_title(text, loc="center", fontsize=9, fontweight="normal", color=colour, pad=3)


def paint(ax: Axes, values: Float[Tensor, " L"], grid: Grid, norm: PowerNorm) -> ScalarMappable:
    """Paint a value for each cell; of several zoom levels the greatest at each place."""
    edges = edges_px(grid)
    square = greatest_at_places(values, grid).reshape(grid.side, grid.side).numpy()
    return ax.pcolormesh(edges, edges, square, cmap="magma", norm=norm, rasterized=True)


def greatest_at_places(values: Float[Tensor, "*batch L"], grid: Grid) -> Float[Tensor, "*batch l"]:
    """Return, for each of the l cells of the finest zoom level, the greatest value of the glimpses around its centre.

    Of each level it is the cell whose centre is nearest.
    """
    greatest = values[..., : grid.side**2]
    centres_px = grid.top_left_px(torch.arange(grid.side**2)) + grid.glimpse_px / 2
    for level, first in zip(grid.levels[1:], grid.first_cells[1:], strict=True):
        nearest = level.nearest_cells(centres_px - level.glimpse_px / 2)
        greatest = greatest.maximum(values[..., first + nearest])
    return greatest


def scale(figure: Figure, painted: ScalarMappable, axes: NDArray[Any], *, most_nats: float) -> None:
    """Draw the scale of maps in nats beside panels."""
    bar = figure.colorbar(painted, ax=axes, shrink=0.8, pad=0.02, fraction=0.05)
    bar.set_ticks([0, most_nats / 4, most_nats], labels=["0", f"{most_nats / 4:.2g}", f"{most_nats:.2g}"])
    bar.set_label("nats", fontsize=8.5)
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)


def show(
    ax: Axes, picture: Shaped[Tensor, "c H H"], grid: Grid, *, seen_px: Sequence[Square], faded: float = FADED
) -> None:
    """Draw a picture in [0, 255], which may be reduced, faded where no glimpse of ``seen_px`` covers it."""
    pixels = picture.float().clamp(0, 255).permute(1, 2, 0).numpy() / 255
    colours = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    opacity = np.full(pixels.shape[:2], faded, dtype=np.float32)
    scale = len(pixels) / grid.image_px
    for *corner, side in seen_px:
        rows, columns = (slice(*(round(edge * scale) for edge in (at, at + side))) for at in corner)
        opacity[rows, columns] = 1
    ax.imshow(np.dstack((colours, opacity)), extent=(0, grid.image_px, grid.image_px, 0), interpolation="none")


def outline(ax: Axes, square_px: Square, *, strong: bool = True) -> None:
    """Draw the border of a glimpse."""
    row, column, side = square_px
    border = Rectangle((column, row), side, side, fill=False, edgecolor=OUTLINE)
    border.set(linewidth=1.5 if strong else 0.7, alpha=1 if strong else 0.8)
    ax.add_patch(border)


def coverage(shares: Float[Tensor, " L"], grid: Grid) -> NDArray[np.float32]:
    """Return the share of images whose glimpse covers each pixel, from the share at each cell.

    The sides of the result are those of the image, reduced by a whole number to `LARGEST_PX` or less.
    """
    coarser = -(-grid.image_px // LARGEST_PX)
    side = -(-grid.image_px // coarser)
    covered = torch.zeros(side, side)
    used = shares.nonzero()[:, 0]
    for (*corner, width), share in zip(grid.squares_px(used).tolist(), shares[used], strict=True):
        rows, columns = (slice(at // coarser, -(-(at + width) // coarser)) for at in corner)
        covered[rows, columns] += share
    return covered.numpy()


def edges_px(grid: Grid) -> list[float]:
    """Return where the tiles of a map begin and end: half way between the centres of neighbouring glimpses."""
    centres = [offset + grid.glimpse_px / 2 for offset in grid.offsets_px]
    between = [(a + b) / 2 for a, b in pairwise(centres)]
    half = grid.stride_px / 2
    return [max(0.0, centres[0] - half), *between, min(float(grid.image_px), centres[-1] + half)]
