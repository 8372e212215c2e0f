"""Seconds from nothing to the target loss: what comes before a training, and the training.

Sequences cost a posterior, a bank and a search before the first step of training. A method is faster in seconds only
if it saves more than that in training.
"""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nogs.attention.methods import METHODS, REFERENCE
from nogs.evaluation.seconds import Seconds
from nogs.report.notation import brief, listed, nats, seconds
from nogs.report.read import Material
from nogs.report.section import Cell, Column, Drawing, Line, Section, Table
from nogs.report.style import DESIGNED, INK, WIDTH, colour_of, count_ticks, title_of

PARTS = {
    "posterior": ("posterior", 0.95),
    "bank": ("bank", 0.65),
    "search": ("search", 0.4),
    "teacher": (f"training {METHODS[REFERENCE].title}", 0.6),
    "recording": ("recording it", 0.3),
}
"""Field of `Seconds` → title, and opacity of its bar."""


def section(material: Material) -> Section | None:
    rows, target = material.results.end_to_end, material.results.target_nll_nats
    if not rows or target is None or not material.results.has_race:
        return None
    text = (
        f"Wall time to a validation loss of {nats(target)} nats, as if all stages ran one after the other on this "
        "machine; reading the data is not counted. The training, in the method’s colour, is one, a mean over seeds. "
        "What comes before it, in green, is made once and serves every later training."
    )
    if not all(all(row.reached) for row in rows.values()):
        text += " A seed that never reached the target counts with all the time it ran, so its method has a bound (≥)."
    if unknown := [title_of(name) for name in material.methods if name not in rows]:
        text += f" The cost of the sequences of {listed(unknown)} is not known."
    return Section(
        "end-to-end",
        "Seconds from nothing to the target",
        text,
        (Drawing("bars of seconds, a stack a method", lambda: seconds_to_target(rows)),),
        table(rows),
    )


def table(rows: Mapping[str, Seconds]) -> Table:
    """Return the seconds of each part; parts that no method needs are left out."""
    used = _used(rows)
    lines = []
    for name, row in rows.items():
        values = [getattr(row, part) for part in used]
        totals = (row.training_at_least, row.total_at_least)
        cells = (
            *(Cell() if value is None else Cell(brief(value)) for value in values),
            *(Cell(_bounded(brief(value), row)) for value in totals),
            Cell(f"{sum(row.reached)} of {len(row.reached)}"),
        )
        lines.append(Line(title_of(name), cells))
    titles = ("seconds", *(PARTS[part][0] for part in used), "training", "total", "seeds that reached it")
    return Table(tuple(map(Column, titles)), tuple(lines))


def seconds_to_target(rows: Mapping[str, Seconds]) -> Figure:
    """Draw a stacked bar for each method."""
    figure = Figure(figsize=(WIDTH, 1.35 + 0.45 * len(rows)))
    ax = figure.subplots()
    for place, (name, row) in enumerate(rows.items()):
        start = 0.0
        for part, (_, opacity) in PARTS.items():
            if value := getattr(row, part):
                ax.barh(place, value, left=start, height=0.6, color=DESIGNED, alpha=opacity)
                start += value
        ax.barh(place, row.training_at_least, left=start, height=0.6, color=colour_of(name))
        label = f" {_bounded(seconds(row.total_at_least), row)}"
        ax.text(row.total_at_least, place, label, va="center", fontsize=9, color=INK)
    for part in _used(rows):
        ax.barh(0, 0, color=DESIGNED, alpha=PARTS[part][1], label=PARTS[part][0])
    ax.set_yticks(range(len(rows)), map(title_of, rows), color=INK)
    ax.set(ylim=(len(rows) - 0.5, -0.5), xlim=(0, 1.2 * max(row.total_at_least for row in rows.values())))
    ax.set_xlabel("seconds to the target loss, one training")
    ax.grid(axis="y", visible=False)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(count_ticks())
    if handles := ax.get_legend_handles_labels()[0]:
        figure.legend(handles=handles, loc="outside lower right", ncols=5, fontsize=8.5)
    return figure


def _used(rows: Mapping[str, Seconds]) -> list[str]:
    return [part for part in PARTS if any(getattr(row, part) is not None for row in rows.values())]


def _bounded(figure: str, row: Seconds) -> str:
    return figure if all(row.reached) else f"≥ {figure}"
