"""The figure of what the posterior makes of glimpses: its states h_t, in their two principal components.

One projection for all steps, so that panels can be compared: what t = 1 leaves together, later glimpses part.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from nogs.report.style import WIDTH, Palette, short

MOST_PANELS = 6
MOST_NAMES = 8
"""More classes than this are told apart by shades alone, without a legend."""


def posterior_states(
    states: Float[Tensor, "n T h"], labels: Int[Tensor, " n"], classes: Sequence[str], palette: Palette
) -> Figure:
    """A panel a glimpse, or six from the first to the last; a dot is an image, its colour the class."""
    from sklearn.decomposition import PCA  # a second to import, for this figure alone

    n, T, _ = states.shape
    pca = PCA(2, svd_solver="full")
    flat = pca.fit_transform(states.flatten(0, 1).double().numpy()).reshape(n, T, 2)
    few = len(classes) <= MOST_NAMES
    colours = ListedColormap(palette.others[: len(classes)]) if few else "turbo"
    panels = min(T, MOST_PANELS)
    steps = [round(panel * (T - 1) / max(1, panels - 1)) for panel in range(panels)]
    side = min(2.3, (WIDTH - 0.5) / panels)
    figure = Figure(figsize=(max(4.0, side * panels + 0.5), side + (1.1 if few else 0.8)), layout="constrained")
    axes = figure.subplots(1, panels, sharex=True, sharey=True, squeeze=False)[0]
    for t, ax in zip(steps, axes, strict=True):
        ax.scatter(
            *flat[:, t].T,
            c=labels,
            cmap=colours,
            vmin=-0.5,
            vmax=len(classes) - 0.5,
            s=9,
            alpha=0.75,
            linewidths=0,
            rasterized=True,
        )
        ax.set_title(f"after glimpse {t + 1}" if t == 0 else f"{t + 1}", fontsize=9.5)
        ax.tick_params(labelbottom=False, labelleft=False, length=0)
    first, second = (100 * pca.explained_variance_ratio_).round()
    axes[0].set_ylabel(f"2nd component\n({second:.0f} % of variance)", fontsize=8.5)
    figure.supxlabel(f"1st component ({first:.0f} % of variance)", fontsize=8.5)
    if few:
        dots = [
            Line2D(
                [], [], marker="o", linestyle="", color=palette.others[number], label=short(name).replace("$", r"\$")
            )
            for number, name in enumerate(classes)
        ]
        figure.legend(handles=dots, loc="outside upper center", ncols=min(4, len(classes)), fontsize=9)
    return figure
