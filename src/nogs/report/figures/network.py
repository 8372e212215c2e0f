"""The hard attention network as a block diagram: what it is made of, and what teaches each part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from nogs.report.style import CHOSEN, Palette

Point = tuple[float, float]


def draw_network(
    ax: Axes,
    palette: Palette,
    *,
    glimpse_px: int | None,
    locations: int | None,
    classes: int,
    hidden: int | None,
    sequences: bool,
) -> None:
    """Image → glimpse → embedding → GRU → classifier, location and baseline; the location looks again.

    ``sequences``: the location is taught by designed sequences too.
    """
    ax.set(xlim=(0, 10), ylim=(0.3, 8.4), aspect="equal")
    ax.axis("off")
    _image(ax, palette, (0.25, 1.6), 2.2)
    ax.text(1.35, 1.3, f"{glimpse_px} px glimpse" if glimpse_px else "glimpse", **_small(palette))
    _box(ax, palette, (5.0, 2.7), "embedding", ["of what it sees", "and where"])
    _box(ax, palette, (8.5, 2.7), "GRU", [f"{hidden} units" if hidden else "memory", "$h_t$"])
    _box(ax, palette, (1.35, 6.3), "location", [f"1 of {locations}" if locations else "where next", "$l_{t+1}$"])
    _box(ax, palette, (5.0, 6.3), "baseline", ["expected", "reward"])
    _box(ax, palette, (8.5, 6.3), "classifier", [f"{classes} classes", r"$q(\theta)$"])
    _arrow(ax, palette, [(2.45, 2.7), (3.75, 2.7)], "$y_t$")
    _arrow(ax, palette, [(6.25, 2.7), (7.25, 2.7)])
    _arrow(ax, palette, [(8.5, 3.55), (8.5, 5.4)])
    _arrow(ax, palette, [(8.5, 4.5), (5.0, 4.5), (5.0, 5.4)], dashed=True)
    _arrow(ax, palette, [(5.0, 4.5), (2.1, 4.5), (2.1, 5.4)], dashed=True)
    _arrow(ax, palette, [(0.75, 5.4), (0.75, 3.85)])
    ax.text(0.9, 4.5, "look\nthere", ha="left", va="center", fontsize=8.5, color=palette.faint)
    _arrow(ax, palette, [(9.1, 1.85), (9.1, 1.1), (7.9, 1.1), (7.9, 1.8)])
    ax.text(8.5, 0.65, "$h_{t-1}$: what was seen before", **_small(palette))
    for x, lesson in (
        (1.35, "REINFORCE,\ndesigned sequences" if sequences else "REINFORCE"),
        (5.0, "squared error"),
        (8.5, "cross-entropy\nwith the label"),
    ):
        ax.text(x, 7.35, lesson, ha="center", va="bottom", fontsize=8.5, style="italic", color=palette.designed)
    ax.text(0.25, 0.65, "dashed: no gradient flows back", ha="left", va="center", fontsize=8.5, color=palette.faint)


def _small(palette: Palette) -> dict[str, Any]:
    return {"ha": "center", "va": "center", "fontsize": 8.5, "color": palette.faint}


def _image(ax: Axes, palette: Palette, at: Point, side: float) -> None:
    x, y = at
    ax.add_patch(Rectangle(at, side, side, facecolor=palette.fill, edgecolor=palette.ink, linewidth=1.2))
    ax.add_patch(Rectangle((x + 1.2, y + 1.05), 0.62, 0.62, facecolor=palette.paper, edgecolor=CHOSEN, linewidth=2))
    ax.text(x + 0.2, y + 0.25, "image $x$", ha="left", va="bottom", fontsize=9)


def _box(ax: Axes, palette: Palette, centre: Point, name: str, notes: Sequence[str]) -> None:
    x, y = centre
    ax.add_patch(
        FancyBboxPatch(
            (x - 1.15, y - 0.75),
            2.3,
            1.5,
            boxstyle="round,pad=0.08,rounding_size=0.22",
            facecolor=palette.fill,
            edgecolor=palette.ink,
            linewidth=1.2,
        )
    )
    ax.text(x, y + 0.42, name, ha="center", va="center", fontweight="bold", fontsize=10)
    for line, note in enumerate(notes):
        ax.text(x, y - 0.08 - 0.46 * line, note, **_small(palette))


def _arrow(ax: Axes, palette: Palette, points: list[Point], label: str = "", *, dashed: bool = False) -> None:
    """A line through ``points`` with a head at its end."""
    style = (0, (3, 2)) if dashed else "-"
    if len(points) > 2:
        ax.plot(*zip(*points[:-1], strict=True), color=palette.ink, linewidth=1.2, linestyle=style)
    ax.add_patch(
        FancyArrowPatch(
            points[-2],
            points[-1],
            arrowstyle="-|>",
            mutation_scale=11,
            shrinkA=0,
            shrinkB=0,
            linewidth=1.2,
            linestyle=style,
            color=palette.ink,
        )
    )
    if label:
        (x0, y0), (x1, y1) = points[-2:]
        ax.text((x0 + x1) / 2, (y0 + y1) / 2 + 0.18, label, ha="center", va="bottom", fontsize=9.5)
