"""Accuracy over multiply-adds: hard attention against small networks that see the whole image.

After the cost figure of *Near-Optimal Glimpse Sequences* (Harvey, Teng, Wood), with multiply-adds of one image on a
logarithmic axis. Where classes are uneven, accuracy is balanced over them.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from nogs.evaluation.schema import ByGlimpse, Results, WholeImage
from nogs.evaluation.typed_json import Number
from nogs.report.notation import percent, short_count
from nogs.report.read import Material
from nogs.report.section import Drawing, Section
from nogs.report.style import (
    ARCHITECTURE_TITLES,
    FAINT,
    INK,
    PAPER,
    RULE_COLOURS,
    WIDTH,
    colour_of,
    share_ticks,
    title_of,
)

MARKERS = {"shufflenet-v2": "^", "mobilenet-v2": "s"}
COST_LABEL = "multiply-adds of an image (1 multiply-add = 2 FLOPs)"


def section(material: Material) -> Section | None:
    results = material.results
    if not (results.cnn_means or results.linear or results.upper_bound or results.stopping):
        return None
    text = (
        f"{'Balanced test' if results.test.uneven else 'Test'} accuracy over multiply-adds of an image; bands go from "
        "the lowest seed to the highest."
    )
    if results.stopping_method:
        text += f" Dashed: {title_of(results.stopping_method)} stops where the next glimpse is expected to gain little."
    if results.cnn_means:
        text += (
            " The grey line joins the CNNs on whole images that no other beats on validation images for fewer "
            "multiply-adds."
        )
    if results.upper_bound:
        macs = short_count(results.upper_bound.macs)
        text += f" The upper bound is a large network that sees the image at full size, for {macs} multiply-adds."
    if results.linear:
        linear = results.linear
        text += (
            f" Logistic regression on {linear.resolution_px} × {linear.resolution_px} px images has "
            f"{percent(accuracy_of(linear, results))}."
        )
    draw = Drawing("accuracy over multiply-adds of an image", lambda: accuracy_over_cost(results))
    return Section("cost", "Accuracy for its cost", text, (draw,))


def accuracy_of(network: WholeImage, results: Results) -> Number:
    """Return the accuracy that the figure shows: balanced where classes are uneven."""
    return network.test_balanced_accuracy if results.test.uneven else network.test_accuracy


def accuracy_over_cost(results: Results) -> Figure:
    figure = Figure(figsize=(WIDTH, 4.6))
    ax = figure.subplots()
    draw_costs(ax, results)
    figure.legend(handles=ax.get_legend_handles_labels()[0], loc="outside lower center", ncols=2, fontsize=8.5)
    return figure


def draw_costs(ax: Axes, results: Results) -> None:
    """Draw one panel, of one label."""
    key = "test_balanced_accuracy_by_glimpse" if results.test.uneven else "test_accuracy_by_glimpse"
    for name, scores in results.methods.items():
        label = f"{title_of(name)}, 1–{len(scores.macs_by_glimpse)} glimpses"
        _draw_by_cost(ax, scores.macs_by_glimpse, getattr(scores, key), colour_of(name), label, "o-")
    if results.stopping_method and results.stopping:
        curves = (results.stopping_balanced_by_seed or results.stopping_by_seed)["eig"]
        macs = [point.macs for point in results.stopping["eig"]]
        accuracy = [tuple(point.accuracy for point in curve) for curve in curves]
        label = f"{title_of(results.stopping_method)}, adaptive stopping"
        _draw_by_cost(ax, macs, accuracy, RULE_COLOURS["eig"], label, "--")
    _whole_images(ax, results)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(axis="x", which="minor", length=0)
    ax.set(xlabel=COST_LABEL, ylabel="balanced test accuracy" if results.test.uneven else "test accuracy")
    ax.yaxis.set_major_formatter(share_ticks())


def _whole_images(ax: Axes, results: Results) -> None:
    """Draw CNNs, their frontier, logistic regression and the upper bound."""
    networks = (*results.cnn_means, *((results.linear,) if results.linear else ()))
    for architecture in dict.fromkeys(network.architecture for network in networks):
        marker, title = MARKERS.get(architecture, "D"), ARCHITECTURE_TITLES.get(architecture, architecture)
        of_kind = [(n.macs, accuracy_of(n, results)) for n in networks if n.architecture == architecture]
        ax.plot(*zip(*of_kind, strict=True), marker, color=PAPER, markeredgecolor=FAINT, markersize=6, label=title)
    if frontier := [(n.macs, accuracy_of(n, results)) for n in results.cnn_means if n.on_frontier]:
        ax.plot(*zip(*frontier, strict=True), color=FAINT, linewidth=1.4, label="best CNNs on validation", zorder=1.5)
    if results.upper_bound:
        height = accuracy_of(results.upper_bound, results)
        ax.axhline(height, color=INK, linestyle=(0, (4, 3)), linewidth=1.1, label="upper bound")


def _draw_by_cost(
    ax: Axes, macs: Sequence[Number], by_seed: Sequence[ByGlimpse], colour: str, label: str, style: str
) -> None:
    """Draw the mean over seeds in order of cost, and a band from the lowest seed to the highest."""
    columns = sorted(zip(macs, zip(*by_seed, strict=True), strict=True))
    costs = [cost for cost, _ in columns]
    if len(by_seed) > 1:
        lowest, highest = [min(seeds) for _, seeds in columns], [max(seeds) for _, seeds in columns]
        ax.fill_between(costs, lowest, highest, color=colour, alpha=0.16, linewidth=0)
    means = [sum(seeds) / len(seeds) for _, seeds in columns]
    ax.plot(costs, means, style, color=colour, label=label, linewidth=2.1, markersize=4.2)
