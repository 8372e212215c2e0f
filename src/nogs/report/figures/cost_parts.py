"""The figure of where the multiply-adds of one glimpse go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nogs.report.notation import percent, short_count
from nogs.report.read import Material
from nogs.report.style import WIDTH, Palette


def parts_of_a_glimpse(material: Material) -> dict[str, int]:
    """Part of the network → multiply-adds of one step and one answer.

    All methods use the same network; those with a policy also run its location head, so the costliest is shown.
    """
    found = [scores["macs_by_part"] for scores in material.methods.values() if "macs_by_part" in scores]
    return {part: macs for part, macs in max(found, key=lambda parts: sum(parts.values()), default={}).items() if macs}


def where_cost_goes(parts: Mapping[str, int], palette: Palette) -> Figure:
    """A bar a part."""
    figure = Figure(figsize=(WIDTH, 1.1 + 0.4 * len(parts)), layout="constrained")
    ax, whole = figure.subplots(), sum(parts.values())
    ax.barh(range(len(parts)), list(parts.values()), height=0.6, color=palette.designed)
    for row, macs in enumerate(parts.values()):
        label = f" {short_count(macs)}, {percent(macs / whole)}"
        ax.text(macs, row, label, va="center", fontsize=9, color=palette.ink)
    name_rows(ax, list(parts), palette)
    ax.set(xlabel="multiply-adds of one glimpse and one answer (1 = 2 FLOPs)", xlim=(0, 1.2 * max(parts.values())))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    return figure


def name_rows(ax: Axes, names: Sequence[str], palette: Palette) -> None:
    """Rows of bars, the first above."""
    ax.set_yticks(range(len(names)), names, color=palette.ink)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.grid(axis="y", visible=False)
