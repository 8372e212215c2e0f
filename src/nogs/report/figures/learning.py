"""Validation loss over iterations and over seconds of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nogs.evaluation.convergence import Row
from nogs.evaluation.typed_json import Number
from nogs.report.notation import listed, nats
from nogs.report.read import Material
from nogs.report.section import Drawing, Section
from nogs.report.style import INK, WIDTH, colour_of, count_ticks, title_of
from nogs.report.tables import no_race

LOG_RATIO = 8.0
"""A loss that falls by more than this factor is drawn on a logarithmic axis."""


def section(material: Material) -> Section | None:
    if not material.logs:
        return None
    results = material.results
    target = results.target_nll_nats if results.has_race else None
    text = "Validation loss under the greedy policy, each seed thin and their mean bold. "
    if results.target_is_chance:
        text += no_race(results)
    elif target is None:
        text += "There is no target, because RAM, which sets it, was not trained."
    else:
        reached = [
            f"{title_of(name)} in {sum(value is not None for value in scores.iterations_to_target)} of "
            f"{len(scores.seeds)} seeds"
            for name, scores in material.methods.items()
        ]
        text += (
            f"The dashed line is the target, {nats(target)} nats: RAM’s best loss, a mean over seeds, plus 0.01. "
            f"It is reached by {listed(reached)}."
        )
    draw = Drawing(
        "validation loss over iterations and over seconds, for each method and seed",
        lambda: validation_loss(material.logs, target),
    )
    return Section("validation-loss", "Learning, by iterations and by seconds", text, (draw,))


def validation_loss(logs: Mapping[str, Sequence[Sequence[Row]]], target_nll_nats: Number | None) -> Figure:
    """Draw {method: validations of each seed}, with the target."""
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots(1, 2, sharey=True)
    for ax, key in zip(axes, ("iteration", "seconds"), strict=True):
        for name, seeds in logs.items():
            _loss_curves(ax, seeds, key, name)
        if target_nll_nats is not None:
            ax.axhline(target_nll_nats, color=INK, linestyle=(0, (4, 3)), linewidth=1.1)
        ax.xaxis.set_major_formatter(count_ticks())
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_xlim(left=0)
    losses = [row["nll_nats"] for seeds in logs.values() for rows in seeds for row in rows]
    if losses and min(losses) > 0 and max(losses) > LOG_RATIO * min(losses):
        axes[0].set_yscale("log")
        axes[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes[0].set(ylabel="validation loss (nats)", xlabel="iterations")
    axes[1].set(xlabel="seconds of training")
    axes[0].legend(loc="best")
    return figure


def _loss_curves(ax: Axes, seeds: Sequence[Sequence[Row]], key: str, method: str) -> None:
    """Draw every seed, and their mean as far as all of them were trained."""
    colour, several = colour_of(method), len(seeds) > 1
    for rows in seeds if several else ():
        ax.plot([row[key] for row in rows], [row["nll_nats"] for row in rows], color=colour, linewidth=0.8, alpha=0.45)
    together = [rows for rows in zip_longest(*seeds) if None not in rows]
    columns = [[mean(row[name] for row in rows) for rows in together] for name in (key, "nll_nats")]
    ax.plot(*columns, color=colour, linewidth=2.1, label=title_of(method))
