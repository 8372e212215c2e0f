"""The results table and the time breakdown: numbers of results.json, put into words.

In brackets is the 95 % bootstrap interval of a mean over seeds (`nogs.evaluation.uncertainty`). A seed that never
reached the target is shown as "never", and counts in means, ratios and differences with the iterations it was
trained for; such a figure is a bound, and says so (≥, ≤).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from nogs.evaluation.uncertainty import PairedDifference, Speedup, bootstrap_interval, paired_difference, speedup
from nogs.report.notation import Real, brief, count, nats, percent, seconds, short_count
from nogs.report.read import Material, gather
from nogs.report.style import title_of

REFERENCE = "ram"
Number = Real | None
Write = Callable[[Real], str]


class Cell(NamedTuple):
    """A figure of one method: over seeds, what can be said of it, and of every seed."""

    summary: str
    note: str = ""
    seeds: tuple[str, ...] = ()


class Line(NamedTuple):
    """One figure of all methods, in their order."""

    title: str
    cells: tuple[Cell, ...]


class Numbers(NamedTuple):
    """The numbers of a figure, for those who want to read them: what each column is, that of titles first, and rows."""

    head: tuple[str, ...]
    lines: tuple[Line, ...]


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
        Line("Iterations to target, RAM ÷ method", tuple(_faster(material, name) for name in material.methods)),
        _line(material, "Iterations to convergence", "iterations_to_converge", count, "iteration"),
        _line(material, "Seconds to target", "seconds_to_target", brief, "seconds"),
        _line(material, "Seconds to convergence", "seconds_to_converge", brief, "seconds"),
        Line("Seconds to target, everything counted", _everything_counted(material)),
        _line(material, "Test accuracy", "test_accuracy", percent),
        Line("Test accuracy, method − RAM", tuple(_better(material, name) for name in material.methods)),
        Line("Images that only it : only RAM is right about", _right_alone(material)),
        _line(material, "Balanced accuracy", "test_balanced_accuracy", percent),
        _line(material, "Area under the ROC curve", "test_auroc", nats),
        _line(material, "Test loss (nats)", "test_nll_nats", nats),
        Line(
            "Multiply-adds an image",
            tuple(Cell(short_count(scores["macs_by_glimpse"][-1])) for scores in material.methods.values()),
        ),
    ]
    alone = REFERENCE not in material.methods or len(material.methods) == 1
    return [line for line in lines if line.cells and not (alone and "RAM" in line.title)]


def mean_or_bound(values: Sequence[Number], trained: Sequence[Number]) -> Mean | None:
    """The mean of what seeds needed; those that never arrived count with what they were ``trained`` for."""
    counted = _counted(values, trained)
    return Mean(mean(counted), bound=None in values) if counted else None


def ratio(material: Material, name: str) -> str:
    """How many times fewer iterations to the target a method needs than RAM."""
    if name == REFERENCE and material.results["target_nll_nats"] is not None:
        return "1"
    found = speedup_of(material, name)
    if found is None or found.bound == "unknown":
        return "–"
    return {"exact": "", "at least": "≥ ", "at most": "≤ "}[found.bound] + f"{found.ratio:.1f}"


def speedup_of(material: Material, name: str) -> Speedup | None:
    """Iterations to the target, RAM's over a method's; None where nothing is known of them."""
    methods, key = material.methods, "iterations_to_target"
    if REFERENCE not in methods or material.results["target_nll_nats"] is None:
        return None
    times = {other: _counted(methods[other][key], material.trained(other, "iteration")) for other in (REFERENCE, name)}
    if any(times_of is None for times_of in times.values()):
        return None
    return speedup(
        methods[REFERENCE][key],
        methods[name][key],
        ram_last=times[REFERENCE] or [],
        other_last=times[name] or [],
    )


def paired_with_ram(material: Material, name: str, values: Callable[[str], Sequence[Real]]) -> PairedDifference | None:
    """A method minus RAM over the seeds that both have; None for fewer than two."""
    seeds = {
        other: dict(zip(material.methods[other]["seeds"], values(other), strict=True)) for other in (REFERENCE, name)
    }
    both = [seed for seed in seeds[name] if seed in seeds[REFERENCE]]
    if name == REFERENCE or len(both) < 2:
        return None
    return paired_difference([seeds[name][seed] for seed in both], [seeds[REFERENCE][seed] for seed in both])


def time_breakdown(material: Material) -> list[Duration]:
    """Wall time of the posterior, the bank, the search and every method's training, all seeds together."""
    results, parts = material.results, []
    if "posterior" in results:
        parts.append(("Posterior", results["posterior"]["seconds"], "once"))
    banks = [found["bank"] for found in results.get("end_to_end", {}).values() if "bank" in found]
    if banks:
        parts.append(("Bank", banks[0], "once"))
    if "sequences" in results:
        found = results["sequences"]
        each = f", {seconds(found['seconds'] / found['count'])} each" if found["count"] else ""
        parts.append(("Search", found["seconds"], f"once: {count(found['count'])} sequences{each}"))
    for name in material.methods:
        trained = [last for last in material.trained(name, "wall_seconds") if last is not None]
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
        table.add_row(line.title, *(" ".join(filter(None, (cell.summary, cell.note))) for cell in line.cells))
    Console(markup=False, emoji=False).print(table)  # names are the user's
    print(f"report: {path / 'report.html'}")


def _line(material: Material, title: str, key: str, write: Write, logged: str | None = None) -> Line:
    cells = []
    if any(key not in scores for scores in material.methods.values()):
        return Line(title, ())  # an evaluation from before the figure was known
    for name, scores in material.methods.items():
        values: list[Any] = scores[key]
        if logged and key.endswith("_to_target") and material.results["target_nll_nats"] is None:
            cells.append(Cell("–"))
            continue
        trained = material.trained(name, logged) if logged else values
        each = tuple("never" if value is None else write(value) for value in values)
        cells.append(Cell(*_summary(values, trained, write), each if len(each) > 1 else ()))
    return Line(title, tuple(cells))


def _summary(values: Sequence[Number], trained: Sequence[Number], write: Write) -> tuple[str, str]:
    """The mean, and its interval where every seed arrived."""
    if all(value is None for value in values):
        return "never", ""
    needed = mean_or_bound(values, trained)
    if needed is None:
        return "–", ""
    if needed.bound:
        return f"≥ {write(needed.value)}", ""
    interval = bootstrap_interval([value for value in values if value is not None])
    return write(needed.value), f"[{write(interval.low)}, {write(interval.high)}]" if interval else ""


def _counted(values: Sequence[Number], trained: Sequence[Number]) -> list[Real] | None:
    """What each seed needed, or was trained for where it never arrived; None where that is not known."""
    counted = [last if value is None else value for value, last in zip(values, trained, strict=True)]
    known = [value for value in counted if value is not None]
    return known if known and len(known) == len(counted) else None


def _everything_counted(material: Material) -> tuple[Cell, ...]:
    """Nothing where the evaluation is from before this was counted, or there is no target."""
    found = material.results.get("end_to_end", {})
    cells = {
        name: Cell(("" if all(of["reached"]) else "≥ ") + brief(of["total_at_least"])) for name, of in found.items()
    }
    return tuple(cells.get(name, Cell("–")) for name in material.methods) if cells else ()


def _faster(material: Material, name: str) -> Cell:
    found = speedup_of(material, name)
    if found is None or found.bound == "unknown" or name == REFERENCE:
        return Cell(ratio(material, name))

    def needed(other: str) -> list[Real]:
        trained = material.trained(other, "iteration")
        return _counted(material.methods[other]["iterations_to_target"], trained) or []

    return Cell(ratio(material, name), _p_value(paired_with_ram(material, name, needed)))


def _better(material: Material, name: str) -> Cell:
    if name == REFERENCE or REFERENCE not in material.methods:
        return Cell("–")
    found = paired_with_ram(material, name, lambda other: material.methods[other]["test_accuracy"])
    if found is None:
        ours, rams = (mean(material.methods[other]["test_accuracy"]) for other in (name, REFERENCE))
        return Cell(f"{100 * (ours - rams):+.1f} %")
    return Cell(f"{100 * found.mean:+.1f} %", _p_value(found))


def _right_alone(material: Material) -> tuple[Cell, ...]:
    """Seed by seed, for the images are the same ones: their p-values do not add up."""
    cells = []
    for name in material.methods:
        seeds = material.against_ram.get(name, [])
        counts = " · ".join(f"{of.only_a} : {of.only_b}" for of in seeds)
        only_it, only_ram = (mean([getattr(of, side) for of in seeds] or [0]) for side in ("only_a", "only_b"))
        p_values = tuple(f"p = {of.p_value:.1g}" for of in seeds)
        cells.append(Cell(f"{only_it:.0f} : {only_ram:.0f}", counts, p_values) if seeds else Cell("–"))
    return tuple(cells) if material.against_ram else ()


def _p_value(found: PairedDifference | None) -> str:
    return f"p = {found.p_value:.2g}" if found else ""
