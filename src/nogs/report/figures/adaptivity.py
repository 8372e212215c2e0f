"""Adaptivity: how much the cell of each glimpse depends on the image, by method.

The mutual information between test image and greedy cell, in nats (`nogs.evaluation.records`). It is 0 where all images
get the same cell, and for cells drawn at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nogs.evaluation.schema import MethodScores
from nogs.report.notation import brief_nats
from nogs.report.read import Material
from nogs.report.section import Cell, Column, Drawing, Line, Section, Table
from nogs.report.style import WIDTH, colour_of, title_of


def section(material: Material) -> Section:
    return Section(
        "adaptivity",
        "How much the place depends on the image",
        "Mutual information between test image and cell at each glimpse, in nats, under the greedy policy: 0 where all "
        "images get the same cell, the logarithm of n where they are spread evenly over n cells. Each seed is thin in "
        "the figure and beneath its mean in the table.",
        (
            Drawing(
                "mutual information between image and cell over glimpses, a line a method",
                lambda: adaptivity(material.methods),
            ),
        ),
        table(material.methods),
    )


def table(methods: Mapping[str, MethodScores]) -> Table:
    """Return a line for each method and a column for each glimpse."""
    T = max(len(scores.macs_by_glimpse) for scores in methods.values())
    lines = []
    for name, scores in methods.items():
        by_glimpse = zip(*scores.adaptivity_nats_by_glimpse, strict=True)
        cells = (
            Cell(brief_nats(mean(seeds)), tuple(map(brief_nats, seeds)) if len(seeds) > 1 else ())
            for seeds in by_glimpse
        )
        lines.append(Line(title_of(name), tuple(cells)))
    return Table((Column("nats at glimpse"), *(Column(str(t + 1)) for t in range(T))), tuple(lines))


def adaptivity(methods: Mapping[str, MethodScores]) -> Figure:
    """Draw a line for each method over its glimpses."""
    figure = Figure(figsize=(WIDTH, 2.6))
    ax = figure.subplots()
    for name, scores in methods.items():
        glimpses = range(1, len(scores.macs_by_glimpse) + 1)
        several = len(scores.seeds) > 1
        for seed in scores.adaptivity_nats_by_glimpse if several else ():
            ax.plot(glimpses, seed, color=colour_of(name), linewidth=0.8, alpha=0.45)
        means = scores.means_by_glimpse["adaptivity_nats_by_glimpse"]
        ax.plot(glimpses, means, "o-", color=colour_of(name), linewidth=2.1, markersize=4.2, label=title_of(name))
    ax.set(xlabel="glimpse", ylabel="nats")
    ax.set_ylim(bottom=-0.05)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside right center")
    return figure
