"""Where each method looks: the share of test images whose glimpse covers a pixel, over the mean image."""

from __future__ import annotations

from jaxtyping import Float
from matplotlib.colors import LinearSegmentedColormap, PowerNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from nogs.glimpses.grid import Grid
from nogs.report.figures.maps import GAMMA, coverage, head, panels, show
from nogs.report.notation import listed
from nogs.report.read import DESIGNED, Material
from nogs.report.section import Drawing, Section
from nogs.report.style import DESIGNED as DESIGNED_COLOUR
from nogs.report.style import colour_of, plain, title_of

FAINT = 0.35
"""Opacity of the mean image beneath."""


def section(material: Material) -> Section:
    adaptive = [
        f"{title_of(name)} {scores.means_by_glimpse['adaptivity_nats_by_glimpse'][-1]:.2f}"
        for name, scores in material.methods.items()
    ]
    return Section(
        "where-they-look",
        "Where each method looks",
        "Colour is the share of images whose glimpse covers a pixel: test images under the greedy policy, a mean over "
        "seeds; designed sequences are of training images. Without an overview the first glimpse cannot depend on the "
        "image. How much the last one does is the mutual information between test image and cell, which is 0 for one "
        "path for all images: "
        f"{listed(adaptive)} nats.",
        (drawing(material),),
    )


def drawing(material: Material, title: str = "") -> Drawing:
    """Return the figure of one run. ``title``: drawn above it."""
    return Drawing(
        f"{title + ': ' if title else ''}heat maps over the mean image, a row a method and a column a glimpse",
        lambda: where_they_look(material.looks, material.mean_image, material.grid, title=title),
    )


def where_they_look(
    looks: dict[str, Float[Tensor, "T L"]], mean_image: Float[Tensor, "c H H"], grid: Grid, *, title: str = ""
) -> Figure:
    """Draw a row of {method, or "designed": shares}, and a column a glimpse."""
    T = max(len(shares) for shares in looks.values())
    figure, axes = panels(len(looks), T, grid, side=max(0.62, min(1.5, 7.4 / T)), margin=1.6)
    if title:
        figure.suptitle(plain(title), x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    for row, (name, shares) in enumerate(looks.items()):
        colour = DESIGNED_COLOUR if name == DESIGNED else colour_of(name)
        ramp = LinearSegmentedColormap.from_list(name, [to_rgba(colour, 0), to_rgba(colour, 1)])
        for t in range(len(shares)):
            ax = axes[row, t]
            show(ax, mean_image, grid, seen_px=[], faded=FAINT)
            extent = (0, grid.image_px, grid.image_px, 0)
            drawn = ax.imshow(
                coverage(shares[t], grid), cmap=ramp, norm=PowerNorm(GAMMA, 0, 1), extent=extent, interpolation="none"
            )
            if row == 0:
                head(ax, f"glimpse {t + 1}" if t == 0 else f"{t + 1}")
        title = "Designed" if name == DESIGNED else title_of(name).replace(" ", "\n")
        axes[row, 0].set_ylabel(title, fontweight="bold", color=colour, rotation=0, ha="right", va="center")
        bar = figure.colorbar(drawn, ax=axes[row], shrink=0.8, pad=0.01, fraction=0.02)
        bar.set_ticks([0, 0.25, 1])
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        bar.ax.tick_params(labelsize=8, length=2)
        bar.outline.set_visible(False)
    return figure
