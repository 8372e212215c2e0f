"""The figures of places: maps of expected information gain step by step, and where each method looks.

A map is painted in pixels: each cell is a tile around its glimpse's centre, as wide as the grid is fine.
Where photographs may not be published, everything is drawn over the mean image.
"""

from __future__ import annotations

from itertools import pairwise
from math import dist
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap, PowerNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from torch import Tensor

from nogs.glimpses.grid import Grid
from nogs.report.read import Example
from nogs.report.style import CHOSEN, Palette, short

MAPS = "magma"
GAMMA = 0.4
"""Colours follow this power, so that the small gains of late glimpses are seen beside the first."""
FADED = 0.45
"""Opacity of what was not seen."""
FAINT = 0.35
"""Opacity of the mean image under a heat map."""
SCALE = 0.95
"""Inches that a scale of nats needs beside the maps, its numbers as long as 8.6e-05."""
NAMED = 4.0
"""Inches that the longest name of an example needs above them."""


def information_gain(
    example: Example,
    picture: Shaped[Tensor, "c H H"],
    grid: Grid,
    palette: Palette,
    *,
    name: str,
    most_nats: float,
) -> Figure:
    """One test image: above, the map before each glimpse; below, what has been seen after it.

    ``picture`` is what glimpses are drawn on, in [0, 255]; ``most_nats`` the top of the colour scale.
    """
    T = len(example.cells)
    corners_px = grid.top_left_px(example.cells).tolist()
    sides = _free_sides(corners_px, grid)
    figure, axes = square_panels(2, T, side=1.06, gap=0.07, left=0.12, right=SCALE, top=0.52, bottom=0.24, wide=NAMED)
    figure.text(
        0.12,
        figure.get_figheight() - 0.1,
        name,
        transform=figure.dpi_scale_trans,  # in inches
        va="top",
        fontweight="bold",
        fontsize=10.5,
        parse_math=False,
    )
    norm = PowerNorm(GAMMA, vmin=min(0.0, float(example.eig.min())), vmax=most_nats)
    for t in range(T):
        above, below = axes[0, t], axes[1, t]
        bare(above, grid, palette)
        above.set_title(
            f"glimpse {t + 1}" if t == 0 else f"{t + 1}",
            loc="center",
            fontsize=9,
            pad=3,
            color=palette.faint,
            fontweight="normal",
        )
        painted = paint(above, example.eig[t], grid, norm)
        outline(above, corners_px[t], grid)
        bare(below, grid, palette)
        show(below, picture, seen_px=corners_px[: t + 1], grid=grid)
        for step, corner_px in enumerate(corners_px[: t + 1]):
            outline(below, corner_px, grid)
            _number(below, step + 1, corner_px, sides[step], grid)
        probability = float(example.log_probs[t, example.label].exp())
        below.set_xlabel(f"p = {probability:.2f}", labelpad=3, fontsize=9)
    colour_scale(figure, painted, axes[0, -1], most_nats=most_nats)
    return figure


def where_they_look(
    looks: dict[str, tuple[str, Float[Tensor, "T L"]]],
    mean_image: Float[Tensor, "c H H"],
    grid: Grid,
    palette: Palette,
) -> Figure:
    """Share of images whose glimpse t covers each pixel; a row for each of {title: (colour, shares)}."""
    T, R = max(len(shares) for _, shares in looks.values()), len(looks)
    side, right, top, gap = min(1.55, 8.1 / T), 0.62, 0.3, 0.07
    left = 0.2 + 0.1 * max(len(title) for title in looks)
    figure, axes = square_panels(R, T, side=side, gap=gap, left=left, right=right + gap, top=top, bottom=gap)
    width = figure.get_figwidth()
    for row, (title, (colour, shares)) in enumerate(looks.items()):
        ramp = LinearSegmentedColormap.from_list(title, [to_rgba(colour, 0), to_rgba(colour, 1)])
        for t in range(T):
            ax = axes[row, t]
            if t >= len(shares):
                ax.axis("off")
                continue
            bare(ax, grid, palette)
            show(ax, mean_image, seen_px=[], grid=grid, faded=FAINT)
            drawn = ax.imshow(
                coverage(shares[t], grid),
                cmap=ramp,
                norm=PowerNorm(GAMMA, 0, 1),
                extent=(0, grid.image_px, grid.image_px, 0),
                interpolation="none",
            )
            if row == 0:
                ax.set_title(
                    f"glimpse {t + 1}" if t == 0 else f"{t + 1}",
                    loc="center",
                    fontsize=9.5,
                    color=palette.faint,
                    fontweight="normal",
                )
        axes[row, 0].set_ylabel(
            title, fontsize=10.5, fontweight="bold", color=colour, rotation=0, ha="right", va="center"
        )
        box = axes[row, -1].get_position()
        place = (box.x1 + gap / width, box.y0 + 0.1 * box.height, 0.1 / width, 0.8 * box.height)
        scale = figure.colorbar(drawn, cax=figure.add_axes(place))
        scale.set_ticks([0, 0.25, 1])
        scale.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        scale.ax.tick_params(labelsize=8, length=2)
        scale.outline.set_visible(False)
    return figure


def square_panels(
    rows: int,
    columns: int,
    *,
    side: float,
    gap: float,
    left: float,
    right: float,
    top: float,
    bottom: float,
    wide: float = 0.0,
) -> tuple[Figure, NDArray[Any]]:
    """Square panels and margins in inches, at least ``wide`` in all: letters do not grow with a figure, so that
    margins given as shares of it would cut them off.
    """
    width = max(wide, left + columns * (side + gap) - gap + right)
    height = top + rows * (side + gap) - gap + bottom
    figure = Figure(figsize=(width, height))
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=left / width,
        right=(left + columns * (side + gap) - gap) / width,
        top=1 - top / height,
        bottom=bottom / height,
        wspace=gap / side,
        hspace=gap / side,
    )
    return figure, axes


def colour_scale(figure: Figure, painted: QuadMesh, beside: Axes, *, most_nats: float) -> None:
    """The scale of maps in nats, in the margin of ``SCALE`` inches to the right of a panel."""
    box, width = beside.get_position(), figure.get_figwidth()
    place = (box.x1 + 0.1 / width, box.y0, 0.11 / width, box.height)
    scale = figure.colorbar(painted, cax=figure.add_axes(place))
    scale.set_label("nats", fontsize=8.5, labelpad=2)
    scale.set_ticks([0, most_nats / 4, most_nats], labels=["0", f"{most_nats / 4:.2g}", f"{most_nats:.2g}"])
    scale.ax.tick_params(labelsize=8, length=2, pad=1.5)
    scale.outline.set_visible(False)


def coverage(shares: Float[Tensor, " L"], grid: Grid) -> NDArray[np.float32]:
    """Share of images whose glimpse covers each pixel, from the share at each cell."""
    covered = torch.zeros(grid.image_px, grid.image_px)
    used = shares.nonzero()[:, 0]
    for (row, column), share in zip(grid.top_left_px(used).tolist(), shares[used], strict=True):
        covered[row : row + grid.glimpse_px, column : column + grid.glimpse_px] += share
    return covered.numpy()


def edges_px(grid: Grid) -> list[float]:
    """Where the tiles of a map begin and end: half way between the centres of neighbouring glimpses."""
    centres = [offset + grid.glimpse_px / 2 for offset in grid.offsets_px]
    between = [(a + b) / 2 for a, b in pairwise(centres)]
    half = grid.stride_px / 2
    return [max(0.0, centres[0] - half), *between, min(float(grid.image_px), centres[-1] + half)]


def paint(ax: Axes, values: Float[Tensor, " L"], grid: Grid, norm: PowerNorm) -> QuadMesh:
    edges = edges_px(grid)
    square = values.reshape(grid.side, grid.side).numpy()
    return ax.pcolormesh(edges, edges, square, cmap=MAPS, norm=norm, rasterized=True)


def show(
    ax: Axes, picture: Shaped[Tensor, "c H H"], *, seen_px: list[list[int]], grid: Grid, faded: float = FADED
) -> None:
    """The picture, faded where it was not seen."""
    pixels = picture.float().clamp(0, 255).permute(1, 2, 0).numpy() / 255
    colours = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    opacity = np.full(pixels.shape[:2], faded, dtype=np.float32)
    for row, column in seen_px:
        opacity[row : row + grid.glimpse_px, column : column + grid.glimpse_px] = 1
    ax.imshow(np.dstack((colours, opacity)), extent=(0, grid.image_px, grid.image_px, 0), interpolation="none")


def outline(ax: Axes, corner_px: list[int], grid: Grid) -> None:
    row, column = corner_px
    side = grid.glimpse_px
    ax.add_patch(Rectangle((column, row), side, side, fill=False, edgecolor=CHOSEN, linewidth=1.2))


def _number(ax: Axes, number: int, corner_px: list[int], side: tuple[int, int], grid: Grid) -> None:
    """The glimpse's number at one of its corners, outside: the glimpse may be smaller than its number."""
    (row, column), (below, right) = corner_px, side
    ax.annotate(
        f"{number}",
        (column + right * grid.glimpse_px, row + below * grid.glimpse_px),
        (0.5 - right, 1.5 * (2 * below - 1)),  # points: letters have room about them
        textcoords="offset points",
        ha="left" if right else "right",
        va="top" if below else "bottom",
        fontsize=7,
        fontweight="bold",
        color=CHOSEN,
        path_effects=[withStroke(linewidth=1.6, foreground="#06222e")],
    )


def _free_sides(corners_px: list[list[int]], grid: Grid) -> list[tuple[int, int]]:
    """Which corner (below, right) each number stands at: the farthest from the numbers before it."""
    g, reach, enough = grid.glimpse_px, grid.image_px / 20, grid.image_px / 6
    taken: list[tuple[float, float]] = []
    sides = []
    for row, column in corners_px:
        places = {
            (below, right): (row + below * (g + reach) - reach / 2, column + right * (g + reach) - reach / 2)
            for below in (0, 1)
            for right in (0, 1)
        }
        room = {side: min([enough, *(dist(place, other) for other in taken)]) for side, place in places.items()}
        sides.append(max(room, key=room.__getitem__))
        taken.append(places[sides[-1]])
    return sides


def bare(ax: Axes, grid: Grid, palette: Palette) -> None:
    ax.set(xlim=(0, grid.image_px), ylim=(grid.image_px, 0), xticks=[], yticks=[], facecolor=palette.fill)
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_aspect("equal")


def example_name(number: int, class_name: str) -> str:
    return f"Test image {number}: {short(class_name)}"
