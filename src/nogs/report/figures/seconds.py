"""The figure and table of seconds from nothing to the target loss: what comes before a training, and the training.

Sequences cost a posterior, a bank and a search before the first step of training: a method is faster in seconds
only if what it saves in training is more than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from nogs.attention.methods import METHODS, TEACHER
from nogs.report.figures.cost_parts import name_rows
from nogs.report.notation import Real, brief, seconds
from nogs.report.read import Material
from nogs.report.style import WIDTH, Palette, title_of
from nogs.report.tables import Cell, Line, Numbers

PARTS = {
    "posterior": ("posterior", 0.95),
    "bank": ("bank", 0.65),
    "search": ("search", 0.4),
    "teacher": (f"training {METHODS[TEACHER].title}", 0.6),
    "recording": ("recording it", 0.3),
}
"""What a method may need before it is trained: as it is called, and the opacity of its bar in the designs' colour."""


class Spent(NamedTuple):
    """Seconds that a method needs to reach the target: a ``bound`` from below where a seed never did."""

    method: str
    before: Mapping[str, Real]
    training: Real
    total: Real
    bound: bool
    reached: str


def spent(material: Material) -> list[Spent]:
    """A row a method whose seconds are known, as the evaluation counted them."""
    return [
        Spent(
            name,
            {part: found[part] for part in PARTS if part in found},
            found["training_at_least"],
            found["total_at_least"],
            bound=not all(found["reached"]),
            reached=f"{sum(found['reached'])} of {len(found['reached'])}",
        )
        for name, found in material.results.get("end_to_end", {}).items()
    ]


def table(rows: Sequence[Spent]) -> Numbers:
    """Seconds of each part; those that no method needs are left out."""
    parts = _used(rows)
    return Numbers(
        ("seconds", *(PARTS[part][0] for part in parts), "training", "total", "seeds that arrived"),
        tuple(
            Line(
                title_of(row.method),
                (
                    *(Cell(brief(row.before[part]) if part in row.before else "–") for part in parts),
                    *(Cell(_bounded(brief(value), row)) for value in (row.training, row.total)),
                    Cell(row.reached),
                ),
            )
            for row in rows
        ),
    )


def seconds_to_target(rows: Sequence[Spent], palette: Palette) -> Figure:
    """A stacked bar a method."""
    figure = Figure(figsize=(WIDTH, 1.35 + 0.5 * len(rows)), layout="constrained")
    ax = figure.subplots()
    for place, row in enumerate(rows):
        start: Real = 0
        for part, value in row.before.items():
            ax.barh(place, value, left=start, height=0.6, color=palette.designed, alpha=PARTS[part][1])
            start += value
        ax.barh(place, row.training, left=start, height=0.6, color=palette.method(row.method))
        label = f" {_bounded(seconds(row.total), row)}"
        ax.text(row.total, place, label, va="center", fontsize=9, color=palette.ink)
    for part in _used(rows):
        ax.barh(0, 0, color=palette.designed, alpha=PARTS[part][1], label=PARTS[part][0])
    name_rows(ax, [title_of(row.method) for row in rows], palette)
    ax.set(xlabel="seconds to the target loss, one training", xlim=(0, 1.15 * max(row.total for row in rows)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    handles, _ = ax.get_legend_handles_labels()
    if handles:
        figure.legend(handles=handles, loc="outside lower right", ncols=5, fontsize=8.5)
    return figure


def _used(rows: Sequence[Spent]) -> list[str]:
    return [part for part in PARTS if any(part in row.before for row in rows)]


def _bounded(figure: str, row: Spent) -> str:
    return f"≥ {figure}" if row.bound else figure
