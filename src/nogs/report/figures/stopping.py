"""Adaptive stopping: accuracy over mean glimpses of every rule, and the advantage of rules of expected gain.

After the stopping figure of *Near-Optimal Glimpse Sequences* (Harvey, Teng, Wood).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nogs.evaluation.stopping import Advantage
from nogs.report.read import Material
from nogs.report.section import Drawing, Section
from nogs.report.style import INK, RULE_COLOURS, RULES, WIDTH, share_ticks, title_of
from nogs.stopping.curves import Curve

GRID = 200
"""Points that a band is drawn at."""
FEW_POINTS = 12
"""Curves of more points have no markers, which would hide the line."""
Advantages = Mapping[str, Mapping[str, Sequence[Advantage]]]
"""rule of expected gain → rival → band"""


def section(material: Material) -> Section | None:
    results = material.results
    if not results.stopping or not results.stopping_method:
        return None
    return Section(
        "stopping",
        "Stopping when enough was seen",
        f"{title_of(results.stopping_method)} with a rule that stops each image on its own: a line is the mean over "
        "seeds, its band goes from the lowest seed to the highest. Dashed, the same number of glimpses for every "
        "image. Beneath, accuracy of stopping by expected gain minus that of each rival at equal mean glimpses, in "
        "points, with its 95 % band over test images and seeds, for all numbers of glimpses at once.",
        (
            Drawing(
                "accuracy over mean glimpses for each stopping rule, and the advantage of expected gains",
                lambda: stopping(results.stopping, results.stopping_by_seed, results.stopping_advantage),
            ),
        ),
    )


def stopping(curves: Mapping[str, Curve], by_seed: Mapping[str, Sequence[Curve]], advantage: Advantages) -> Figure:
    """Draw, above, accuracy over mean glimpses; beneath, a panel for each rival of the expected gains."""
    rivals = [rule for rule in RULES if any(ahead.get(rule) for ahead in advantage.values())]
    figure = Figure(figsize=(WIDTH, 5.6 if rivals else 3.6))
    above, *rest = figure.subfigures(2 if rivals else 1, 1, height_ratios=(1.75, 1) if rivals else None, squeeze=False)
    ax = above[0].subplots()
    draw_stopping(ax, curves, by_seed)
    ax.legend(loc="lower right", ncols=2)
    if rivals:
        panels = rest[0][0].subplots(1, len(rivals), sharex=True, sharey=True, squeeze=False)[0]
        for panel, rule in zip(panels, rivals, strict=True):
            title = RULES[rule] if RULES[rule][:2].isupper() else RULES[rule].lower()
            panel.set_title(f"over {title}", color=RULE_COLOURS[rule], fontsize=8.5)
            panel.axhline(0, color=INK, linewidth=0.9)
            panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.3g}" if value else "0"))
            for of, ahead in advantage.items():
                _advantage(panel, ahead.get(rule, ()), RULE_COLOURS[of])
        panels[0].set_ylabel("points")
        rest[0][0].supxlabel("mean glimpses", fontsize=9.5)
    return figure


def draw_stopping(ax: Axes, curves: Mapping[str, Curve], by_seed: Mapping[str, Sequence[Curve]]) -> None:
    """Draw the curves of one label in one panel."""
    for rule, title in RULES.items():
        if not curves.get(rule):
            continue
        colour, points = RULE_COLOURS[rule], sorted((point.mean_glimpses, point.accuracy) for point in curves[rule])
        seeds = by_seed.get(rule, ())
        if len(seeds) > 1:
            ax.fill_between(*_band(seeds), color=colour, alpha=0.15, linewidth=0)
        ax.plot(
            *zip(*points, strict=True),
            "--" if rule.startswith("fixed") else "-",
            marker="o" if len(points) <= FEW_POINTS else None,
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
    """Return mean glimpses that every seed's curve reaches, and the lowest and highest accuracy there."""
    curves = [np.array(sorted((point.mean_glimpses, point.accuracy) for point in seed)) for seed in seeds]
    start, end = max(curve[0, 0] for curve in curves), min(curve[-1, 0] for curve in curves)
    x = np.linspace(start, max(start, end), GRID)
    heights = np.stack([np.interp(x, curve[:, 0], curve[:, 1]) for curve in curves])
    return x, heights.min(0), heights.max(0)


def _advantage(ax: Axes, rows: Sequence[Advantage], colour: str) -> None:
    x = [row.mean_glimpses for row in rows]
    low, middle, high = ([100 * getattr(row, key) for row in rows] for key in ("low", "difference", "high"))
    if len(x) > 1:
        ax.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0)
        ax.plot(x, middle, color=colour, linewidth=2)
    else:
        ax.vlines(x, low, high, color=colour, alpha=0.4, linewidth=3)
        ax.plot(x, middle, "o", color=colour)
