"""Maps of expected information gain, step by step, for single test images."""

from __future__ import annotations

from statistics import mean

from jaxtyping import Shaped
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

from nogs.glimpses.grid import Grid
from nogs.report.figures.maps import GAMMA, head, outline, paint, panels, scale, show
from nogs.report.read import Design, Example, Material
from nogs.report.section import Drawing, Section
from nogs.report.style import plain, short

COLUMNS = 6
"""Glimpses side by side; more continue beneath."""
NARROWEST = 3.7
"""Width in inches that the longest title needs."""


def section(material: Material) -> Section | None:
    if not material.design or not material.examples:
        return None
    chosen = [
        mean(float(example.eig[t, example.cells[t]]) for example in material.examples)
        for t in range(len(material.examples[0].cells))
    ]
    over = "the mean image (the photographs are not shown)" if material.publishable else "the image, faded where unseen"
    return Section(
        "information-gain",
        "Where the next glimpse is expected to tell most",
        "Above, the expected information gain about the class of a glimpse at each location, given the glimpses "
        f"before it. The square is {chosen_by(material.design)}. Below, {over}, and the probability p that the "
        f"posterior gives to the true class. The expected gain of the chosen glimpse is {chosen[0]:.2g} nats at first "
        f"and {chosen[-1]:.2g} at the last, a mean over these {len(material.examples)} images.",
        tuple(_drawing(material, number) for number in range(len(material.examples))),
    )


def chosen_by(design: Design) -> str:
    """Say what the marked square maximises: (1 - c) own map + c mean map, with c the pooling of the run."""
    gain, greatest = ("expected entropy", "least") if design.criterion == "epe" else ("gain", "greatest")
    c = design.pooling
    if c == 0:
        where = f"where the {gain} is {greatest} on the image’s own map"
    elif c == 1:
        where = f"where the {gain} is {greatest} on the mean map of all annotated images alone"
    else:
        maps = f"{1 - c:g} × own map + {c:g} × the mean map of all annotated images"
        where = f"where the pooled {gain} is {greatest} ({maps}), not where the image’s own is"
    return f"{where}, among the locations not yet looked at"


def information_gain(
    example: Example, picture: Shaped[Tensor, "c H H"], grid: Grid, *, name: str, most_nats: float
) -> Figure:
    """Draw one test image: above, the map before each glimpse; below, the pixels seen after it.

    ``picture``: what glimpses are drawn on, in [0, 255]. ``most_nats``: top of the colour scale.
    """
    T = len(example.cells)
    columns = min(T, COLUMNS)
    figure, axes = panels(2 * -(-T // columns), columns, grid, side=1.0, margin=0.7)
    figure.set_figwidth(max(figure.get_figwidth(), NARROWEST))
    figure.suptitle(plain(name), x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    squares_px = grid.squares_px(example.cells).tolist()
    norm = PowerNorm(GAMMA, vmin=min(0.0, float(example.eig.min())), vmax=most_nats)
    for t in range(T):
        row, column = 2 * (t // columns), t % columns
        above, below = axes[row, column], axes[row + 1, column]
        head(above, f"glimpse {t + 1}" if t == 0 else f"{t + 1}")
        painted = paint(above, example.eig[t], grid, norm)
        outline(above, squares_px[t])
        show(below, picture, grid, seen_px=squares_px[: t + 1])
        for before in squares_px[:t]:
            outline(below, before, strong=False)
        outline(below, squares_px[t])
        probability = float(example.log_probs[t, example.label].exp())
        below.set_xlabel(f"p = {probability:.2f}", labelpad=3, fontsize=9)
    for ax in axes.flat[axes.size - columns + (T - 1) % columns + 1 :]:
        ax.axis("off")
    for ax in axes[-2, (T - 1) % columns + 1 :]:
        ax.axis("off")
    scale(figure, painted, axes, most_nats=most_nats)
    return figure


def _drawing(material: Material, number: int) -> Drawing:
    example = material.examples[number]
    name = f"Test image {number + 1}: {short(material.results.classes[example.label])}"
    return Drawing(
        f"{name}: maps of information gain above, glimpses below",
        lambda: information_gain(
            example,
            material.mean_image if material.publishable else example.picture,
            material.grid,
            name=name,
            most_nats=max(float(other.eig.max()) for other in material.examples),
        ),
    )
