"""Figures of a bench: accuracy over multiply-adds, pixels read and seconds; and, of many tasks, a row for each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from nogs.evaluation.bench import BenchMethod, BenchResults, BenchTask
from nogs.evaluation.schema import WholeImage
from nogs.evaluation.typed_json import Number
from nogs.report.figures.labels import height_of, rows_of, spread
from nogs.report.notation import short_count
from nogs.report.style import ARCHITECTURE_TITLES, FAINT, PAPER, WIDTH, colour_of, plain, share_ticks, title_of

PANELS = ("multiply-adds of an image", "share of the pixels read", "seconds of training, from nothing")
MARKERS = "D^sov"
"""Markers of architectures of networks on whole images, in the order in which they first come."""
Curve = Sequence[tuple[Number, Number]]
"""(x, accuracy)"""


def accuracy_over_costs(results: BenchResults) -> Figure:
    """Draw test accuracy over the first two costs, by glimpse, and validation accuracy over seconds."""
    tasks = results.tasks
    figure = Figure(figsize=(1.5 * WIDTH, 2.5 * len(tasks) + 1.0))
    rows = figure.subplots(len(tasks), len(PANELS), squeeze=False, sharey="row")
    for (title, task), axes in zip(tasks.items(), rows, strict=True):
        for name, method in task.methods.items():
            for ax, curves in zip(axes, curves_of(method), strict=True):
                _draw(ax, curves, colour_of(name), title_of(name))
        _whole_images(list(axes[:2]), task)
        for ax in axes:
            ax.set_xscale("log")
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.yaxis.set_major_formatter(share_ticks())
        axes[0].xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes[0].xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
        axes[1].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes[1].xaxis.set_major_formatter(share_ticks())
        axes[2].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes[0].set_title(plain(title))
        axes[0].set_ylabel("test accuracy")
        axes[2].set_title("validation accuracy", fontweight="normal", fontsize=9)
    for ax, label in zip(rows[-1], PANELS, strict=True):
        ax.set_xlabel(label)
    named = {text: handle for ax in rows.flat for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(list(named.values()), list(named), loc="outside upper center", ncols=5)
    return figure


def accuracy_of_tasks(results: BenchResults) -> Figure:
    """Draw test accuracy, balanced accuracy and iterations to the target: a row a task, a dot a seed.

    Seeds that never reached the target have no dot. A grey line is the share of the commonest class.
    """
    tasks, methods = results.tasks, methods_of(results)
    figure, axes = rows_of(list(tasks), methods, 3)
    for row, task in enumerate(tasks.values()):
        for name, method in task.methods.items():
            y, colour = height_of(row, methods.index(name), len(methods)), colour_of(name)
            spread(axes[0], y, method.test_accuracy, colour, whole=True)
            spread(axes[1], y, method.test_balanced_accuracy, colour, whole=True)
            reached = [value for value in method.iterations_to_target if value is not None]
            spread(axes[2], y, reached, colour, whole=len(reached) == len(method.seeds))
        if task.commonest_class_share is not None:
            axes[0].plot([task.commonest_class_share] * 2, [row - 0.4, row + 0.4], color=FAINT, linewidth=1, zorder=0)
    for ax, title in zip(axes, ("test accuracy", "balanced test accuracy", "iterations to the target"), strict=True):
        ax.set_title(title)
    for ax in axes[:2]:
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.xaxis.set_major_formatter(share_ticks())
    axes[2].set_xscale("log")
    axes[2].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[2].xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes[2].xaxis.set_minor_formatter(NullFormatter())
    return figure


def methods_of(results: BenchResults) -> list[str]:
    """Return the methods of all tasks, in the order in which they first come."""
    return list(dict.fromkeys(name for task in results.tasks.values() for name in task.methods))


def curves_of(method: BenchMethod) -> tuple[list[Curve], list[Curve], list[Curve]]:
    """Return the curves of each seed: over multiply-adds, over the share of pixels read, and over seconds."""
    accuracy = method.test_accuracy_by_glimpse
    return (
        [list(zip(method.macs_by_glimpse, seed, strict=True)) for seed in accuracy],
        [
            list(zip(read, seed, strict=True))
            for read, seed in zip(method.pixels_read_share_by_glimpse, accuracy, strict=True)
        ],
        [[(of.seconds, of.accuracy) for of in seed] for seed in method.learning],
    )


def _draw(ax: Axes, curves: Sequence[Curve], colour: str, label: str) -> None:
    """Draw every seed thin, and their mean, as far as all of them go, bold."""
    for curve in curves if len(curves) > 1 else ():
        ax.plot(*zip(*curve, strict=True), color=colour, linewidth=0.8, alpha=0.45)
    together = [points for points in zip_longest(*curves) if None not in points]
    means = [tuple(map(mean, zip(*points, strict=True))) for points in together]
    ax.plot(*zip(*means, strict=True), "o-", color=colour, linewidth=2.1, markersize=3, label=label)


def whole_pixels(network: WholeImage, task: BenchTask) -> float:
    """Return the share of the image's pixels that a network reads of the reduced image, its overview counted."""
    read_px = network.pixels_read_share * network.resolution_px**2 + network.overview_px**2
    return read_px / task.image_px**2


def _whole_images(axes: Sequence[Axes], task: BenchTask) -> None:
    architectures = list(dict.fromkeys(network.architecture for network in task.whole_images))
    for network in task.whole_images:
        marker = MARKERS[architectures.index(network.architecture) % len(MARKERS)]
        label = f"{ARCHITECTURE_TITLES.get(network.architecture, network.architecture)}, whole image"
        for ax, x in zip(axes, (network.macs, whole_pixels(network, task)), strict=True):
            ax.plot(x, network.test_accuracy, marker, color=PAPER, markeredgecolor=FAINT, markersize=6, label=label)
