"""The results table and the time breakdown: numbers of results.json, put into words.

± is the standard deviation over seeds. A seed that never reached the target is shown as "never", and counts
in means and ratios with the iterations it was trained for; such a figure is a bound, and says so (≥, ≤).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from nogs.report.material import Material, gather
from nogs.report.notation import Real, brief, count, nats, percent, seconds, short_count
from nogs.report.style import title_of

REFERENCE = "ram"
Number = Real | None
Write = Callable[[Real], str]


class Cell(NamedTuple):
    """A figure of one method: over seeds, and of every seed."""

    summary: str
    seeds: tuple[str, ...] = ()


class Line(NamedTuple):
    """One figure of all methods, in their order."""

    title: str
    cells: tuple[Cell, ...]


class Mean(NamedTuple):
    """A mean over seeds; where a seed never arrived, no more than a lower bound of it."""

    value: Real
    bound: bool


class Duration(NamedTuple):
    """Time that a part of the pipeline took."""

    title: str
    seconds: Real
    share: Real
    note: str


def results_table(material: Material) -> list[Line]:
    """The table's lines: speed, quality, cost."""
    lines = [
        _line(material, "Iterations to target", "iterations_to_target", count, "iteration"),
        Line("Iterations to target, RAM ÷ method", tuple(Cell(ratio(material, name)) for name in material.methods)),
        _line(material, "Iterations to convergence", "iterations_to_converge", count, "iteration"),
        _line(material, "Seconds to target", "seconds_to_target", brief, "seconds"),
        _line(material, "Seconds to convergence", "seconds_to_converge", brief, "seconds"),
        _line(material, "Test accuracy", "test_accuracy", percent),
        _line(material, "Balanced accuracy", "test_balanced_accuracy", percent),
        _line(material, "Test loss (nats)", "test_nll_nats", nats),
        Line(
            "Multiply-adds an image",
            tuple(Cell(short_count(scores["macs_by_glimpse"][-1])) for scores in material.methods.values()),
        ),
    ]
    if REFERENCE not in material.methods or len(material.methods) == 1:
        del lines[1]
    return lines


def mean_or_bound(values: Sequence[Number], trained: Sequence[Number]) -> Mean | None:
    """The mean of what seeds needed; those that never arrived count with what they were ``trained`` for."""
    needed = [last if value is None else value for value, last in zip(values, trained, strict=True)]
    known = [value for value in needed if value is not None]
    if not known or len(known) < len(needed):
        return None
    return Mean(mean(known), bound=None in values)


def ratio(material: Material, name: str) -> str:
    """How many times fewer iterations to the target a method needs than RAM."""
    methods, key = material.methods, "iterations_to_target"
    if REFERENCE not in methods or material.results["target_nll_nats"] is None:
        return "–"
    if name == REFERENCE:
        return "1"
    reference = mean_or_bound(methods[REFERENCE][key], material.trained(REFERENCE, "iteration"))
    other = mean_or_bound(methods[name][key], material.trained(name, "iteration"))
    if reference is None or other is None or (reference.bound and other.bound):
        return "–"
    sign = "≥ " if reference.bound else "≤ " if other.bound else ""
    return f"{sign}{reference.value / other.value:.1f}"


def time_breakdown(material: Material) -> list[Duration]:
    """Seconds of the posterior, the search and every method's training, all seeds together."""
    results, parts = material.results, []
    if "posterior" in results:
        parts.append(("Posterior", results["posterior"]["seconds"], "once"))
    if "sequences" in results:
        found = results["sequences"]
        each = f", {seconds(found['seconds'] / found['count'])} each" if found["count"] else ""
        parts.append(("Search", found["seconds"], f"once: {count(found['count'])} sequences{each}"))
    for name in material.methods:
        trained = [last for last in material.trained(name, "seconds") if last is not None]
        if trained:
            seeds = f"{len(trained)} seed" + ("s" if len(trained) > 1 else "")
            parts.append((f"Training {title_of(name)}", sum(trained), f"{seeds}, {seconds(mean(trained))} each"))
    whole = sum(part[1] for part in parts) or 1.0
    return [Duration(title, spent, spent / whole, note) for title, spent, note in parts]


def print_results(path: Path) -> None:
    """The results table of a run on the terminal, and where its report is."""
    material = gather(path)
    table = Table(title=f"{material.results['data']}, {material.results['task'] or 'all classes'}")
    table.add_column("")
    for name in material.methods:
        table.add_column(title_of(name), justify="right")
    for line in results_table(material):
        table.add_row(line.title, *(cell.summary for cell in line.cells))
    Console().print(table)
    print(f"report: {path / 'report.html'}")


def _line(material: Material, title: str, key: str, write: Write, logged: str | None = None) -> Line:
    cells = []
    for name, scores in material.methods.items():
        values: list[Any] = scores[key]
        if logged and key.endswith("_to_target") and material.results["target_nll_nats"] is None:
            cells.append(Cell("–"))
            continue
        trained = material.trained(name, logged) if logged else values
        each = tuple("never" if value is None else write(value) for value in values)
        cells.append(Cell(_summary(values, trained, write), each if len(each) > 1 else ()))
    return Line(title, tuple(cells))


def _summary(values: Sequence[Number], trained: Sequence[Number], write: Write) -> str:
    if all(value is None for value in values):
        return "never"
    needed = mean_or_bound(values, trained)
    if needed is None:
        return "–"
    if needed.bound:
        return f"≥ {write(needed.value)}"
    arrived = [value for value in values if value is not None]
    if len(arrived) == 1:
        return write(arrived[0])
    value, unit = _split_unit(write(needed.value))
    return f"{value} ± {_split_unit(write(stdev(arrived)))[0]}{unit}"


def _split_unit(written: str) -> tuple[str, str]:
    """ "97.5 %" → ("97.5", " %"): the unit is said once, after ±."""
    number, space, unit = written.partition(" ")
    return number, space + unit
