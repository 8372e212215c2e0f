"""The figure of where cost goes: multiply-adds within one glimpse, and wall-clock seconds to the target.

Sequences cost a posterior, a bank and a search before the first step of training: a method is faster in seconds
only if what it saves in training is more than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nogs.methods import METHODS, TEACHER
from nogs.report.material import Material
from nogs.report.notation import Real, percent, seconds, short_count
from nogs.report.style import WIDTH, Palette, title_of
from nogs.report.table import mean_or_bound

PREPARATIONS = {"posterior": 0.95, "bank": 0.65, "search": 0.4, "training RAM": 0.6}
"""What a method may need before it is trained, and the opacity that it is drawn with, in the designs' colour."""


class ToTarget(NamedTuple):
    """Seconds that a method spends until it reaches the target; a mean over seeds, ``bound`` where one never did."""

    method: str
    before: Mapping[str, Real]
    training: Real
    bound: bool

    @property
    def total(self) -> Real:
        return sum(self.before.values()) + self.training


def seconds_to_target(material: Material) -> list[ToTarget]:
    """A row a method whose time is known: what is made once for all seeds, and one training."""
    if material.results["target_nll_nats"] is None:
        return []
    rows = []
    for name, scores in material.methods.items():
        needed = mean_or_bound(scores["seconds_to_target"], material.trained(name, "seconds"))
        before = _before(material, name)
        if needed is not None and before is not None:
            rows.append(ToTarget(name, before, needed.value, needed.bound))
    return rows


def parts_of_a_glimpse(material: Material) -> dict[str, int]:
    """Part of the network → multiply-adds of one step and one answer; the same network serves every method."""
    found = (scores["macs_by_part"] for scores in material.methods.values() if "macs_by_part" in scores)
    return {part: macs for part, macs in next(found, {}).items() if macs}


def where_cost_goes(parts: Mapping[str, int], times: Sequence[ToTarget], palette: Palette) -> Figure:
    """A panel of each that is known."""
    panels = [name for name, known in (("parts", parts), ("times", times)) if known]
    rows = max(len(parts), len(times))
    figure = Figure(figsize=(WIDTH, 1.5 + 0.42 * rows), layout="constrained")
    axes = dict(zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True))
    if parts:
        _parts(axes["parts"], parts, palette)
    if times:
        _times(axes["times"], times, palette)
        handles, _ = axes["times"].get_legend_handles_labels()
        if handles:
            figure.legend(handles=handles, loc="outside lower right", ncols=4, fontsize=8.5)
    return figure


def _before(material: Material, name: str) -> dict[str, Real] | None:
    """What comes before the training; None where how long it took is not known."""
    of = METHODS[name].sequences if name in METHODS else "none"
    if of == "search":
        found = material.results
        if "posterior" not in found or "sequences" not in found:
            return None
        bank = {"bank": material.bank_seconds} if material.bank_seconds else {}
        return {"posterior": found["posterior"]["seconds"], **bank, "search": found["sequences"]["seconds"]}
    if of == "record":
        whole = [last for last in material.trained(TEACHER, "seconds") if last is not None]
        return {"training RAM": sum(whole) / len(whole)} if whole else None
    return {}


def _parts(ax: Axes, parts: Mapping[str, int], palette: Palette) -> None:
    whole = sum(parts.values())
    ax.barh(range(len(parts)), list(parts.values()), height=0.6, color=palette.designed)
    for row, macs in enumerate(parts.values()):
        label = f" {short_count(macs)}, {percent(macs / whole)}"
        ax.text(macs, row, label, va="center", fontsize=8.5, color=palette.ink)
    _rows(ax, list(parts), palette)
    ax.set(
        title="One glimpse and one answer", xlabel="multiply-adds (1 = 2 FLOPs)", xlim=(0, 1.5 * max(parts.values()))
    )
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))


def _times(ax: Axes, times: Sequence[ToTarget], palette: Palette) -> None:
    for row, time in enumerate(times):
        start: Real = 0
        for part, spent in time.before.items():
            ax.barh(row, spent, left=start, height=0.6, color=palette.designed, alpha=PREPARATIONS[part])
            start += spent
        ax.barh(row, time.training, left=start, height=0.6, color=palette.method(time.method))
        label = f" {'≥ ' if time.bound else ''}{seconds(time.total)}"
        ax.text(time.total, row, label, va="center", fontsize=8.5, color=palette.ink)
    used = dict.fromkeys(part for time in times for part in time.before)
    for part in used:
        ax.barh(0, 0, color=palette.designed, alpha=PREPARATIONS[part], label=part)
    _rows(ax, [title_of(time.method) for time in times], palette)
    ax.set(title="Seconds to the target loss", xlabel="seconds", xlim=(0, 1.3 * max(time.total for time in times)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _rows(ax: Axes, names: Sequence[str], palette: Palette) -> None:
    ax.set_yticks(range(len(names)), names, color=palette.ink)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.grid(axis="y", visible=False)
