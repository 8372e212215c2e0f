"""The figures of adaptive stopping: accuracy over mean glimpses for every rule, and what expected gains gain.

After *Near-Optimal Glimpse Sequences* (Harvey, Teng, Wood), the poster's stopping figure. A band goes from the
lowest seed to the highest, between the points of their curves; an interval of the advantage is over test images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nogs.report.notation import Real
from nogs.report.style import RULES, WIDTH, Palette, share_ticks

Curve = Sequence[Sequence[Real]]
"""Rows of [threshold, mean_glimpses, accuracy, macs]."""
GRID = 200
"""Points that a band is drawn at."""


def stopping(
    curves: Mapping[str, Curve],
    by_seed: Mapping[str, Sequence[Curve]],
    advantage: Mapping[str, Mapping[str, Sequence[Mapping[str, Real]]]],
    palette: Palette,
) -> Figure:
    """Above, accuracy over mean glimpses; beneath, a panel a rival: how much more accurate the expected gains are."""
    rivals = [rule for rule in RULES if any(ahead.get(rule) for ahead in advantage.values())]
    figure = Figure(figsize=(WIDTH, 6.2 if rivals else 4.0), layout="constrained")
    above, *rest = figure.subfigures(2 if rivals else 1, 1, height_ratios=(1.75, 1) if rivals else None, squeeze=False)
    ax = above[0].subplots()
    draw_stopping(ax, curves, by_seed, palette)
    ax.legend(loc="lower right", ncols=2)
    if rivals:
        panels = rest[0][0].subplots(1, len(rivals), sharex=True, sharey=True, squeeze=False)[0]
        for panel, rule in zip(panels, rivals, strict=True):
            panel.set_title(f"over {_within(RULES[rule])}", color=palette.rules[rule], fontsize=9.5)
            panel.axhline(0, color=palette.ink, linewidth=0.9)
            panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.3g}" if value else "0"))
            for of, ahead in advantage.items():
                _advantage(panel, ahead[rule], palette.rules[of])
        panels[0].set_ylabel("accuracy gained (points)")
        rest[0][0].supxlabel("mean glimpses", fontsize=9.5)
    return figure


def draw_stopping(
    ax: Axes, curves: Mapping[str, Curve], by_seed: Mapping[str, Sequence[Curve]], palette: Palette
) -> None:
    """The panel of curves alone, for one label among several."""
    for rule, title in RULES.items():
        if not curves.get(rule):
            continue
        colour, points = palette.rules[rule], sorted((row[1], row[2]) for row in curves[rule])
        seeds = by_seed.get(rule, ())
        if len(seeds) > 1:
            ax.fill_between(*_band(seeds), color=colour, alpha=0.15, linewidth=0)
        few = len(points) <= 12  # of a dense curve, markers would hide the line
        ax.plot(
            *zip(*points, strict=True),
            "--" if rule.startswith("fixed") else "-",
            marker="o" if few else None,
            markersize=3.8,
            color=colour,
            label=title,
            linewidth=2.4 if rule == "eig" else 1.6,
            zorder=3 if rule == "eig" else 2,
        )
    ax.set(xlabel="mean glimpses", ylabel="test accuracy")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(share_ticks())


def _band(
    seeds: Sequence[Curve],
) -> tuple[Float[np.ndarray, " g"], Float[np.ndarray, " g"], Float[np.ndarray, " g"]]:
    """Mean glimpses that every seed's curve reaches, and the lowest and highest accuracy there."""
    curves = [np.array(sorted((row[1], row[2]) for row in seed)) for seed in seeds]
    start, end = max(curve[0, 0] for curve in curves), min(curve[-1, 0] for curve in curves)
    x = np.linspace(start, max(start, end), GRID)
    heights = np.stack([np.interp(x, curve[:, 0], curve[:, 1]) for curve in curves])
    return x, heights.min(0), heights.max(0)


def _within(title: str) -> str:
    """A rule's title within a line: small letters, but for an acronym."""
    return title if title.isupper() else title.lower()


def _advantage(ax: Axes, rows: Sequence[Mapping[str, Real]], colour: str) -> None:
    """One line of the panel that `stopping` set up, with its interval."""
    x = [row["mean_glimpses"] for row in rows]
    low, middle, high = ([100 * row[key] for row in rows] for key in ("low", "difference", "high"))
    if len(x) > 1:
        ax.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0)
        ax.plot(x, middle, color=colour, linewidth=2)
    else:
        ax.vlines(x, low, high, color=colour, alpha=0.4, linewidth=3)
        ax.plot(x, middle, "o", color=colour)
