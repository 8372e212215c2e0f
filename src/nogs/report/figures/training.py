"""The figures of curves: the network and its posterior, the races, and accuracy for its cost.

Each function is pure: data in, a matplotlib Figure out, in the palette it is drawn in. Seeds are thin and
their mean is bold. A mean over seeds ends where the first seed does.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nogs.attention.methods import METHODS
from nogs.report.figures.network import draw_network
from nogs.report.notation import Real, short_count
from nogs.report.read import Logs, Row
from nogs.report.style import WIDTH, Palette, share_ticks, title_of

LOG_RATIO = 8.0
"""A loss that falls by more than this factor is drawn on a logarithmic axis."""


def network_and_posterior(
    results: dict[str, Any],
    palette: Palette,
    *,
    glimpse_px: int | None = None,
    locations: int | None = None,
    hidden: int | None = None,
) -> Figure:
    """The network as a diagram; beside it the posterior by glimpse, on random and on designed locations."""
    posterior, sequences = results.get("posterior", {}), results.get("sequences", {})
    panels = (
        ("loss (nats)", "nll_nats_by_glimpse", "random_nll_nats_by_glimpse"),
        ("accuracy", "accuracy_by_glimpse", "random_accuracy_by_glimpse"),
        ("calibration error", "calibration_error_by_glimpse", "random_calibration_error_by_glimpse"),
    )
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axes = figure.subplot_mosaic(
        [["network", str(row)] for row in range(len(panels))], width_ratios=(1.45, 1), sharex=False
    )
    draw_network(
        axes["network"],
        palette,
        glimpse_px=glimpse_px,
        locations=locations,
        classes=len(results["classes"]),
        hidden=hidden,
        sequences=any(METHODS[name].sequences != "none" for name in results["methods"] if name in METHODS),
    )
    axes["network"].set_title("The network that is trained")
    for row, (title, key, random_key) in enumerate(panels):
        ax = axes[str(row)]
        for name, colour, values in (
            ("random locations", palette.random, sequences.get(random_key) or posterior.get(key)),
            ("designed locations", palette.designed, sequences.get(key)),
        ):
            if values:
                ax.plot(_counts(values), values, "o-", color=colour, label=name, markersize=4, linewidth=2)
        ax.set_ylabel(title)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(4))
        if key.startswith("accuracy"):
            ax.yaxis.set_major_formatter(share_ticks())
        if row < len(panels) - 1:
            ax.tick_params(labelbottom=False)
    axes["0"].set_title("The posterior that designs")
    _legend(axes["0"])
    axes[str(len(panels) - 1)].set_xlabel("glimpses")
    return figure


def validation_loss(logs: Logs, target_nll_nats: Real | None, palette: Palette) -> Figure:
    """Validation loss in nats over iterations and over seconds of training, with the target."""
    figure = Figure(figsize=(WIDTH, 4.0), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, key in zip(axes, ("iteration", "seconds"), strict=True):
        for name, seeds in logs.items():
            _loss_curves(ax, [rows for rows in seeds if rows], key, title_of(name), palette.method(name))
        if target_nll_nats is not None:
            ax.axhline(target_nll_nats, color=palette.ink, linestyle=(0, (4, 3)), linewidth=1.1)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        ax.xaxis.set_major_locator(MaxNLocator(6))
        ax.set_xlim(left=0)
    losses = [row["nll_nats"] for seeds in logs.values() for rows in seeds for row in rows]
    if losses and min(losses) > 0 and max(losses) > LOG_RATIO * min(losses):
        axes[0].set_yscale("log")
        axes[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if target_nll_nats is not None:
        axes[1].annotate(
            f"target {target_nll_nats:.3f}",
            (1, target_nll_nats),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 4),
            textcoords="offset points",
            ha="right",
            fontsize=9,
        )
    axes[0].set(ylabel="validation loss (nats)", xlabel="iterations")
    axes[1].set(xlabel="seconds of training")
    axes[1].tick_params(labelleft=False)
    _legend(axes[0])
    return figure


def races(methods: dict[str, dict[str, Any]], trained: dict[str, list[Real | None]], palette: Palette) -> Figure:
    """Iterations to the target and to convergence: a dot a seed, a bar to the mean, a line for ± 1 s.d.

    ``trained`` are the iterations each seed was trained for: where one never arrived, an arrow starts there.
    """
    figure = Figure(figsize=(WIDTH, 1.5 + 0.62 * len(methods)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    panels = (("to the target", "iterations_to_target"), ("to convergence", "iterations_to_converge"))
    for ax, (title, key) in zip(axes, panels, strict=True):
        for row, (name, scores) in enumerate(methods.items()):
            _race(ax, row, scores[key], trained.get(name, []), palette.method(name), palette)
        ax.set(title=f"Iterations {title}", yticks=range(len(methods)), ylim=(len(methods) - 0.5, -0.5))
        ax.set_yticklabels([title_of(name) for name in methods], fontsize=10.5, color=palette.ink)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        ax.xaxis.set_major_locator(MaxNLocator(6))
        ax.set_xlim(left=0)
        ax.grid(axis="y", visible=False)
    axes[1].tick_params(labelleft=False)
    return figure


def accuracy_by_glimpse(methods: dict[str, dict[str, Any]], palette: Palette) -> Figure:
    """Test accuracy after each glimpse; on the upper axis what that many glimpses cost."""
    figure = Figure(figsize=(WIDTH * 0.72, 4.2), layout="constrained")
    ax = figure.subplots()
    for name, scores in methods.items():
        seeds, colour = scores["test_accuracy_by_glimpse"], palette.method(name)
        if len(seeds) > 1:
            for values in seeds:
                ax.plot(_counts(values), values, color=colour, linewidth=0.9, alpha=0.45)
        means = [mean(column) for column in zip(*seeds, strict=True)]
        ax.plot(_counts(means), means, "o-", color=colour, label=title_of(name), linewidth=2.4, markersize=5)
    ax.set(xlabel="glimpses", ylabel="test accuracy")
    counts = _counts(max((scores["macs_by_glimpse"] for scores in methods.values()), key=len, default=[]))
    ax.set_xticks(counts)
    ax.yaxis.set_major_formatter(share_ticks())
    cost = ax.secondary_xaxis("top")
    cost.set_xticks(counts, [_costs(methods, t) for t in counts])
    cost.set_xlabel("multiply-adds an image")
    cost.spines["top"].set_visible(True)
    ax.legend(loc="best")
    return figure


def _counts(values: Sequence[Real]) -> list[int]:
    return list(range(1, len(values) + 1))


def _costs(methods: dict[str, dict[str, Any]], t: int) -> str:
    """What t glimpses cost; a range where methods differ."""
    costs = sorted({s["macs_by_glimpse"][t - 1] for s in methods.values() if len(s["macs_by_glimpse"]) >= t})
    return "–".join(short_count(cost) for cost in dict.fromkeys((costs[0], costs[-1])))


def _loss_curves(ax: Axes, seeds: list[list[Row]], key: str, label: str, colour: str) -> None:
    if not seeds:
        return
    for rows in seeds:
        ax.plot(
            [row[key] for row in rows],
            [row["nll_nats"] for row in rows],
            color=colour,
            linewidth=0.8,
            alpha=0.45 if len(seeds) > 1 else 0,
        )
    together = list(zip(*seeds, strict=False))
    ax.plot(
        [mean(row[key] for row in rows) for rows in together],
        [mean(row["nll_nats"] for row in rows) for rows in together],
        color=colour,
        linewidth=2.3,
        label=label,
    )


def _race(
    ax: Axes, row: int, values: list[Real | None], trained: list[Real | None], colour: str, palette: Palette
) -> None:
    # Seeds one beneath the other, so that equal ones are all seen.
    heights = [row + 0.3 * ((seed + 0.5) / len(values) - 0.5) for seed in range(len(values))]
    known = zip(values, trained or [None] * len(values), heights, strict=True)
    dots = [(last if value is None else value, y, value is None) for value, last, y in known]
    arrived = [x for x, _, missed in dots if not missed and x is not None]
    never = [(x, y) for x, y, missed in dots if missed and x is not None]
    if arrived and len(arrived) == len(values):
        ax.barh(row, mean(arrived), height=0.5, color=colour, alpha=0.28)
        if len(arrived) > 1:
            ax.errorbar(mean(arrived), row, xerr=stdev(arrived), color=palette.ink, capsize=4, linewidth=1.3)
    ax.plot(
        arrived,
        [y for _, y, missed in dots if not missed],
        "o",
        color=colour,
        markersize=7,
        markeredgecolor=palette.paper,
    )
    for x, y in never:
        ax.plot(x, y, ">", color=palette.paper, markersize=8, markeredgecolor=colour)
        ax.annotate("never", (x, y), (-8, 0), textcoords="offset points", ha="right", va="center", fontsize=8.5)
    if not arrived and not never:
        ax.text(0.02, row, "not known", transform=ax.get_yaxis_transform(), va="center", color=palette.faint)


def _legend(ax: Axes) -> None:
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="best")
