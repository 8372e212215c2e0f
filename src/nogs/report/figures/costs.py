"""The figure of what accuracy costs: hard attention against small CNNs that see the whole image.

After *Near-Optimal Glimpse Sequences* (Harvey, Teng, Wood), the poster's cost figure. Multiply-adds an image, on a
logarithmic axis; FLOPs = 2 x multiply-adds. Where the classes are not even, accuracy is balanced over them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from statistics import mean
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from nogs.report.notation import Real, short_count
from nogs.report.style import WIDTH, Palette, share_ticks, title_of

MARKERS = {"shufflenet-v2": ("^", "ShuffleNetV2"), "mobilenet-v2": ("s", "MobileNetV2")}
COST_LABEL = "multiply-adds an image (1 multiply-add = 2 FLOPs)"


class Spending(NamedTuple):
    """Accuracy of each seed at settings of growing cost: a row a seed, a column a setting."""

    macs: Sequence[Real]
    accuracy_by_seed: Sequence[Sequence[Real]]


class Network(NamedTuple):
    """A CNN on whole images, a mean over seeds; on the frontier by its validation accuracy."""

    architecture: str
    macs: Real
    accuracy: Real
    on_frontier: bool


class Costs(NamedTuple):
    """All that the figure shows; ``adaptive`` is the method that stops by the entropy gain, if any does."""

    fixed: Mapping[str, Spending]
    adaptive: tuple[str, Spending] | None
    cnn: Sequence[Network]
    upper_bound: Network | None
    balanced: bool


def networks(rows: Sequence[Mapping[str, Any]], accuracy: str) -> list[Network]:
    """CNNs of results.json, whose rows are seeds, averaged; ``accuracy`` names the column."""
    found = []
    for _, seeds_of in groupby(sorted(rows, key=lambda row: (row["macs"], row["name"])), key=lambda row: row["name"]):
        seeds = list(seeds_of)
        first = seeds[0]
        found.append(
            Network(
                first.get("architecture", first["name"]),
                first["macs"],
                mean(seed[accuracy] for seed in seeds),
                bool(first.get("on_frontier", False)),
            )
        )
    return found


def accuracy_over_cost(costs: Costs, palette: Palette) -> Figure:
    """Accuracy over multiply-adds, on one full-width panel."""
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    ax = figure.subplots()
    draw_costs(ax, costs, palette)
    handles, _ = ax.get_legend_handles_labels()
    figure.legend(handles=handles, loc="outside right upper", fontsize=9)
    return figure


def draw_costs(ax: Axes, costs: Costs, palette: Palette) -> None:
    """The panel alone, for one label among several."""
    for name, spending in costs.fixed.items():
        _spent(ax, spending, palette.method(name), f"{title_of(name)}, 1–{len(spending.macs)} glimpses", "o-")
    if costs.adaptive:
        name, spending = costs.adaptive
        _spent(ax, spending, palette.rules["eig"], f"{title_of(name)}, adaptive stopping", "--")
    for architecture in dict.fromkeys(network.architecture for network in costs.cnn):
        marker, title = MARKERS.get(architecture, ("D", architecture))
        of_kind = [network for network in costs.cnn if network.architecture == architecture]
        ax.plot(
            [network.macs for network in of_kind],
            [network.accuracy for network in of_kind],
            marker,
            color=palette.paper,
            markeredgecolor=palette.faint,
            markersize=6,
            label=title,
        )
    frontier = [network for network in costs.cnn if network.on_frontier]
    if frontier:
        ax.plot(
            [network.macs for network in frontier],
            [network.accuracy for network in frontier],
            color=palette.faint,
            linewidth=1.4,
            label="best CNNs on validation",
            zorder=1.5,
        )
    if costs.upper_bound:
        dashed = (0, (4, 3))
        ax.axhline(costs.upper_bound.accuracy, color=palette.ink, linestyle=dashed, linewidth=1.1, label="upper bound")
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(axis="x", which="minor", length=0)
    ax.set(xlabel=COST_LABEL, ylabel="balanced test accuracy" if costs.balanced else "test accuracy")
    ax.yaxis.set_major_formatter(share_ticks())


def _spent(ax: Axes, spending: Spending, colour: str, label: str, style: str) -> None:
    """The mean over seeds, and a band from the lowest seed to the highest."""
    columns = list(zip(*spending.accuracy_by_seed, strict=True))
    if len(spending.accuracy_by_seed) > 1:
        lowest, highest = [min(column) for column in columns], [max(column) for column in columns]
        ax.fill_between(spending.macs, lowest, highest, color=colour, alpha=0.16, linewidth=0)
    means = [mean(column) for column in columns]
    ax.plot(spending.macs, means, style, color=colour, label=label, linewidth=2.2, markersize=4.5)
