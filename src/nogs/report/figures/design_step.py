"""The figure that explains the design of one glimpse: completions, what each would tell, and their mean.

Each completion x_n of what was seen has a map of its own, KL(g_n(l) ‖ Σ_m w_m g_m(l)) in nats: how far a glimpse
at l would move the posterior, were the image x_n. Their weighted mean is the expected information gain, whose
greatest value is where the search looks next (Harvey 2024).
"""

from __future__ import annotations

from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

from nogs.glimpses.grid import Grid
from nogs.report.figures.maps import GAMMA, SCALE, bare, colour_scale, outline, paint, show, square_panels
from nogs.report.read import Step
from nogs.report.style import Palette


def design_of_a_glimpse(
    step: Step, picture: Shaped[Tensor, "c H H"], grid: Grid, palette: Palette, *, photographs: bool
) -> Figure:
    """From left to right: what was seen, the completions and their maps, the mean map and what it chose.

    Without ``photographs`` the completions are left out; ``picture`` is then the mean image.
    """
    k, rows = len(step.gains_nats), 1 + photographs
    figure, axes = square_panels(rows, k + 2, side=1.19, gap=0.07, left=0.07, right=SCALE, top=0.5, bottom=0.07)
    *before, chosen = grid.top_left_px(step.cells).tolist()
    most = float(max(step.gains_nats.max(), step.mean_nats.max()))
    norm = PowerNorm(GAMMA, vmin=min(0.0, float(step.mean_nats.min())), vmax=most)
    for ax in axes.flat:
        bare(ax, grid, palette)
    show(axes[0, 0], picture, seen_px=before, grid=grid)
    for corner_px in before:
        outline(axes[0, 0], corner_px, grid)
    _head(axes[0, 0], f"seen, {len(before)} glimpse" + ("s" if len(before) > 1 else ""))
    for n in range(k):
        if photographs:
            show(axes[0, 1 + n], step.completions[n], seen_px=before, grid=grid, faded=1.0)
            for corner_px in before:
                outline(axes[0, 1 + n], corner_px, grid)
        painted = paint(axes[-1, 1 + n], step.gains_nats[n], grid, norm)
        _head(axes[0, 1 + n], f"completion {n + 1}\nweight {100 * float(step.weights[n]):.0f} %")
    paint(axes[-1, -1], step.mean_nats, grid, norm)
    outline(axes[-1, -1], chosen, grid)
    if photographs:
        show(axes[0, -1], picture, seen_px=[*before, chosen], grid=grid)
        outline(axes[0, -1], chosen, grid)
        axes[1, 0].set_axis_off()
        axes[1, 0].text(
            0.98, 0.5, "information\ngain of each\n(nats)", ha="right", va="center", transform=axes[1, 0].transAxes
        )
    _head(axes[0, -1], "mean over all,\nand the choice")
    colour_scale(figure, painted, axes[-1, -1], most_nats=most)
    return figure


def _head(ax: Axes, text: str) -> None:
    ax.set_title(text, loc="center", fontsize=9, fontweight="normal", pad=4)
