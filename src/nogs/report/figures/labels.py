"""Figures over several labels: iterations, accuracies, and adaptive stopping and CNNs on each.

After the figures of 40 labels of *Near-Optimal Glimpse Sequences* (Harvey, Teng, Wood). A row, or a panel, is a label.
A line goes from the lowest seed to the highest, a bar is their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from statistics import mean

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from nogs.evaluation.schema import Results
from nogs.evaluation.stopping import over_tasks
from nogs.evaluation.typed_json import Number
from nogs.report.figures.costs import COST_LABEL, draw_costs
from nogs.report.figures.stopping import draw_stopping
from nogs.report.notation import short_count
from nogs.report.style import INK, LINE, PAPER, WIDTH, colour_of, plain, share_ticks, title_of

Labels = Mapping[str, Results]
"""Title of each run → its results."""
COLUMNS = 3
WIDE = 1.5 * WIDTH
"""Width in inches of figures of several panels."""
RACES = (
    ("Iterations to the target", "iterations_to_target"),
    ("to RAM’s best seed", "iterations_to_best_seed"),
    ("to convergence", "iterations_to_converge"),
)
ACCURACIES = (
    ("Test accuracy", "test_accuracy", "share of test images"),
    ("Balanced test accuracy", "test_balanced_accuracy", "mean over classes"),
)


def methods_of(labels: Labels) -> list[str]:
    """Return the methods of all runs, in the order in which they first come."""
    return list(dict.fromkeys(name for results in labels.values() for name in results.methods))


def races(labels: Labels) -> Figure:
    """Draw iterations on a logarithmic axis: a row a label, a dot a seed, an arrow a seed that did not get there."""
    figure, axes = rows_of(list(labels), methods_of(labels), len(RACES))
    for ax, (title, key) in zip(axes, RACES, strict=True):
        for y, name, results in _places(labels):
            if key != "iterations_to_converge" and not results.has_race:
                continue
            scores = results.methods[name]
            values: Sequence[Number | None] = getattr(scores, key)
            known = [value for value in values if value is not None]
            ended = [end for value, end in zip(values, scores.iterations_trained, strict=True) if value is None]
            ax.plot(ended, [y] * len(ended), ">", color=PAPER, markeredgecolor=colour_of(name))
            spread(ax, y, known, colour_of(name), whole=not ended)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set(title=title, xlabel="iterations")
    return figure


def accuracies(labels: Labels) -> Figure:
    """Draw test accuracy, and balanced over classes: a row a label, a dot a seed."""
    figure, axes = rows_of(list(labels), methods_of(labels), len(ACCURACIES))
    for ax, (title, key, xlabel) in zip(axes, ACCURACIES, strict=True):
        for y, name, results in _places(labels):
            spread(ax, y, getattr(results.methods[name], key), colour_of(name), whole=True)
        ax.set(title=title, xlabel=xlabel)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.xaxis.set_major_formatter(share_ticks())
    return figure


def costs(labels: Labels) -> Figure:
    """Draw accuracy over multiply-adds, a panel a label."""
    return _panels(labels, draw_costs, COST_LABEL)


def stopping(labels: Labels) -> Figure:
    """Draw accuracy over mean glimpses, a panel a label."""
    return _panels(labels, lambda ax, results: draw_stopping(ax, results.stopping, {}), "mean glimpses")


def stopping_together(labels: Labels) -> Figure:
    """Draw accuracy over mean glimpses, a mean over the labels, where one setting of a rule serves all of them."""
    figure = Figure(figsize=(WIDTH, 4.2))
    ax = figure.subplots()
    held_out = [[mean(seeds) for seeds in zip(*of.held_out_accuracy_by_glimpse, strict=True)] for of in labels.values()]
    draw_stopping(ax, over_tasks([of.stopping_by_seed for of in labels.values()], held_out), {})
    ax.legend(loc="lower right", ncols=2)
    return figure


def comparable(labels: Labels) -> bool:
    """Return whether stopping rules were fitted for all of several labels, for the same number of glimpses."""
    held_out = [results.held_out_accuracy_by_glimpse for results in labels.values()]
    return len(held_out) > 1 and all(held_out) and len({len(of[0]) for of in held_out}) == 1


def _places(labels: Labels) -> list[tuple[float, str, Results]]:
    """Return (height, method, results) of all methods of all labels; those of a label surround its row."""
    order = methods_of(labels)
    return [
        (height_of(row, order.index(name), len(order)), name, results)
        for row, results in enumerate(labels.values())
        for name in results.methods
    ]


def rows_of(titles: Sequence[str], methods: Sequence[str], columns: int) -> tuple[Figure, list[Axes]]:
    """Return panels side by side that share ``titles`` as rows, with a legend of the methods above."""
    figure = Figure(figsize=(WIDE, 1.5 + len(titles) * max(0.3, 0.14 * len(methods) + 0.12)))
    axes = list(figure.subplots(1, columns, sharey=True, squeeze=False)[0])
    axes[0].set_yticks(range(len(titles)), map(plain, titles), color=INK)
    axes[0].set_ylim(len(titles) - 0.5, -0.5)
    for ax in axes:
        ax.grid(axis="y", visible=False)
        for row in range(1, len(titles)):
            ax.axhline(row - 0.5, color=LINE, linewidth=0.6)
    dots = [Line2D([], [], marker="o", linestyle="", color=colour_of(name), label=title_of(name)) for name in methods]
    figure.legend(handles=dots, loc="outside upper center", ncols=min(7, len(methods)))
    return figure, axes


def spread(ax: Axes, y: float, values: Sequence[Number], colour: str, *, whole: bool) -> None:
    """Draw dots, a line over their range, and with ``whole``, where all seeds are there, a bar at their mean."""
    if not values:
        return
    ax.plot([min(values), max(values)], [y, y], color=colour, linewidth=1.4)
    ax.plot(values, [y] * len(values), "o", color=colour, markersize=3.6)
    if whole:
        ax.plot(mean(values), y, "|", color=colour, markersize=10, markeredgewidth=2)


def height_of(row: int, method: int, methods: int) -> float:
    """Return the height of a method in a row: methods lie beneath each other, about the row."""
    return row + 0.8 * ((method + 0.5) / methods - 0.5)


def _panels(labels: Labels, draw: Callable[[Axes, Results], None], xlabel: str) -> Figure:
    """Draw small multiples with one legend, which names what any panel has."""
    columns = min(COLUMNS, len(labels))
    rows = ceil(len(labels) / columns)
    figure = Figure(figsize=(max(5.2, WIDE * columns / COLUMNS), 2.7 * rows + 1.1))
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    named: dict[str, Artist] = {}
    for ax, (title, results) in zip(axes, labels.items(), strict=False):
        draw(ax, results)
        ax.set_title(plain(title))
        ax.set_xlabel("")
        ax.tick_params(labelsize=8)
        handles, titles = ax.get_legend_handles_labels()
        named |= dict(zip(titles, handles, strict=True))
    for ax in axes[len(labels) :]:
        ax.set_axis_off()
    figure.supxlabel(xlabel, fontsize=9.5)
    figure.legend(list(named.values()), list(named), loc="outside upper center", ncols=3, fontsize=8.5)
    return figure
