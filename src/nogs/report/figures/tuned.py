"""Validation accuracy of all trials of an architecture search over multiply-adds, and their front."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from nogs.evaluation.tuned import TuneResults
from nogs.report.notation import short_count
from nogs.report.style import ARCHITECTURE_TITLES, FAINT, PAPER, WIDTH, colour_of, share_ticks, title_of


def accuracy_over_macs(results: TuneResults) -> Figure:
    """Draw trials as dots, those that were stopped early hollow, the front as a line, and CNNs as diamonds."""
    figure = Figure(figsize=(WIDTH, 4.2))
    ax, colour = figure.subplots(), colour_of(results.method)
    for pruned, label in ((False, f"{title_of(results.method)}, trials"), (True, "stopped early")):
        points = [(trial.macs, trial.validation_accuracy) for trial in results.trials if trial.pruned == pruned]
        if points:
            face = PAPER if pruned else colour
            ax.plot(*zip(*points, strict=True), "o", color=colour, markerfacecolor=face, markersize=4, label=label)
    line = [(results.trials[i].macs, results.trials[i].validation_accuracy) for i in results.front]
    ax.plot(*zip(*line, strict=True), "-", color=colour, linewidth=2.1, label="front", drawstyle="steps-post")
    for network in results.whole_images:
        label = f"{ARCHITECTURE_TITLES.get(network.architecture, network.architecture)}, whole image"
        at = network.macs, network.validation_accuracy
        ax.plot(*at, "D", color=PAPER, markeredgecolor=FAINT, markersize=6, label=label)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    ax.yaxis.set_major_formatter(share_ticks())
    ax.set(xlabel="multiply-adds of an image", ylabel="validation accuracy")
    named = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    ax.legend(list(named.values()), list(named), loc="best")
    return figure
