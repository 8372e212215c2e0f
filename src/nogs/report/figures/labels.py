"""The figures over several labels: the race, the accuracies, and what adaptive stopping and CNNs do on each.

After *Near-Optimal Glimpse Sequences* (Harvey, Teng, Wood): the poster's figures of 40 labels. A row, or a panel,
is a label; every method keeps its colour. A line goes from the lowest seed to the highest, a bar is their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from statistics import mean

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from nogs.report.figures.costs import COST_LABEL, draw_costs
from nogs.report.figures.stopping import draw_stopping
from nogs.report.notation import Real, short_count
from nogs.report.read import Material
from nogs.report.style import WIDTH, Palette, share_ticks, title_of
from nogs.stopping.curves import over_tasks

Labels = Mapping[str, Material]
"""What each run is called in print → what it holds."""
COLUMNS = 3


def methods_of(labels: Labels) -> list[str]:
    """Methods of any run, in the order in which they first come."""
    return list(dict.fromkeys(name for material in labels.values() for name in material.methods))


def races(labels: Labels, palette: Palette) -> Figure:
    """Iterations to the target and to convergence, logarithmic: a row a label, a dot a seed."""
    panels = (("to the target", "iterations_to_target"), ("to convergence", "iterations_to_converge"))
    figure, axes = _rows(labels, len(panels), palette)
    for ax, (title, key) in zip(axes, panels, strict=True):
        for y, name, material in _places(labels):
            trained = material.trained(name, "iteration")
            values: Sequence[Real | None] = material.methods[name][key]
            arrived = [value for value in values if value is not None]
            known = [last for value, last in zip(values, trained, strict=True) if value is None and last is not None]
            if known and material.results["target_nll_nats"] is not None:
                ax.plot(known, [y] * len(known), ">", color=palette.paper, markeredgecolor=palette.method(name))
            _spread(ax, y, arrived, palette.method(name), whole=len(arrived) == len(values))
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set(title=f"Iterations {title}", xlabel="iterations")
    return figure


def accuracies(labels: Labels, palette: Palette) -> Figure:
    """Test accuracy, and balanced over classes: a row a label, a dot a seed."""
    panels = (("Test accuracy", "test_accuracy"), ("Balanced test accuracy", "test_balanced_accuracy"))
    figure, axes = _rows(labels, len(panels), palette)
    for ax, (title, key) in zip(axes, panels, strict=True):
        for y, name, material in _places(labels):
            _spread(ax, y, material.methods[name][key], palette.method(name), whole=True)
        ax.set(title=title, xlabel="share of test images" if key == "test_accuracy" else "mean over classes")
        ax.xaxis.set_major_formatter(share_ticks())
    return figure


def costs(labels: Labels, palette: Palette) -> Figure:
    """Accuracy over multiply-adds, a panel a label; only runs that have CNNs or adaptive stopping."""
    drawn = {title: material for title, material in labels.items() if material.costs.cnn or material.costs.adaptive}
    return _panels(drawn, lambda ax, material: draw_costs(ax, material.costs, palette), COST_LABEL)


def stopping(labels: Labels, palette: Palette) -> Figure:
    """Accuracy over mean glimpses, a panel a label; only runs that have stopping rules."""
    drawn = {title: material for title, material in labels.items() if material.results.get("stopping")}
    return _panels(
        drawn, lambda ax, material: draw_stopping(ax, material.results["stopping"], {}, palette), "mean glimpses"
    )


def stopping_together(labels: Labels, palette: Palette) -> Figure:
    """Accuracy over mean glimpses, a mean over the labels, where one setting of a rule serves all of them."""
    results = [material.results for material in labels.values()]
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    ax = figure.subplots()
    held_out = [[mean(seeds) for seeds in zip(*of["held_out_accuracy_by_glimpse"], strict=True)] for of in results]
    draw_stopping(ax, over_tasks([of["stopping_by_seed"] for of in results], held_out), {}, palette)
    ax.legend(loc="lower right", ncols=2)
    return figure


def comparable(labels: Labels) -> bool:
    """Whether stopping rules were fitted for all of several labels, for the same number of glimpses."""
    known = [material.results.get("held_out_accuracy_by_glimpse") for material in labels.values()]
    return len(known) > 1 and all(known) and len({len(of[0]) for of in known if of}) == 1


def _places(labels: Labels) -> list[tuple[float, str, Material]]:
    """(height, method, run): methods of a label lie beneath each other, about its row."""
    order = methods_of(labels)
    step = 0.8 / len(order)
    return [
        (row + step * (order.index(name) + 0.5) - 0.4, name, material)
        for row, material in enumerate(labels.values())
        for name in material.methods
    ]


def _rows(labels: Labels, columns: int, palette: Palette) -> tuple[Figure, list[Axes]]:
    """Panels side by side that share the labels as rows, with a legend of the methods above."""
    methods = methods_of(labels)
    height = 1.5 + len(labels) * max(0.3, 0.14 * len(methods) + 0.12)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = list(figure.subplots(1, columns, sharey=True, squeeze=False)[0])
    axes[0].set_yticks(range(len(labels)), [title.replace("$", r"\$") for title in labels], color=palette.ink)
    axes[0].set_ylim(len(labels) - 0.5, -0.5)
    for ax in axes:
        ax.grid(axis="y", visible=False)
        for row in range(1, len(labels)):
            ax.axhline(row - 0.5, color=palette.line, linewidth=0.6)
    dots = [
        Line2D([], [], marker="o", linestyle="", color=palette.method(name), label=title_of(name)) for name in methods
    ]
    figure.legend(handles=dots, loc="outside upper center", ncols=min(7, len(methods)))
    return figure, axes


def _spread(ax: Axes, y: float, values: Sequence[Real], colour: str, *, whole: bool) -> None:
    """Dots, a line over their range, and a bar at their mean where all seeds are there."""
    if not values:
        return
    ax.plot([min(values), max(values)], [y, y], color=colour, linewidth=1.4)
    ax.plot(values, [y] * len(values), "o", color=colour, markersize=3.6)
    if whole:
        ax.plot(mean(values), y, "|", color=colour, markersize=10, markeredgewidth=2)


def _panels(labels: Labels, draw: Callable[[Axes, Material], None], xlabel: str) -> Figure:
    """Small multiples with one legend, which names what any panel has."""
    columns = min(COLUMNS, len(labels))
    rows = ceil(len(labels) / columns)
    figure = Figure(figsize=(max(5.2, WIDTH * columns / COLUMNS), 2.7 * rows + 1.1), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    named: dict[str, Artist] = {}
    for ax, (title, material) in zip(axes, labels.items(), strict=False):
        draw(ax, material)
        ax.set_title(title.replace("$", r"\$"))
        ax.set_xlabel("")
        ax.tick_params(labelsize=8)
        handles, titles = ax.get_legend_handles_labels()
        named |= dict(zip(titles, handles, strict=True))
    for ax in axes[len(labels) :]:
        ax.set_axis_off()
    figure.supxlabel(xlabel, fontsize=9.5)
    figure.legend(list(named.values()), list(named), loc="outside upper center", ncols=3, fontsize=8.5)
    return figure
