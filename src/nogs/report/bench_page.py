"""The page of a bench: one plot and one table over tasks and methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from nogs.evaluation.bench import BenchMethod, BenchResults, BenchTask
from nogs.evaluation.schema import WholeImage
from nogs.evaluation.typed_json import MismatchError, from_json
from nogs.report.figures.bench import accuracy_over_costs, whole_pixels
from nogs.report.notation import brief, brief_nats, listed, percent, short_count
from nogs.report.page import Fact, Page, draw_page
from nogs.report.section import Cell, Column, Drawing, Line, Section, Table
from nogs.report.style import title_of
from nogs.report.tables import print_table
from nogs.runs.directory import RunDirectory
from nogs.runs.files import damaged

Figure = Callable[[BenchMethod], Cell]


def build_bench(results: BenchResults, provenance: Mapping[str, Any]) -> Page:
    """Draw the plot and write the page."""
    sections = [
        Section(
            "accuracy",
            "Accuracy for its cost",
            "A row a task. Left and middle: test accuracy after each glimpse, greedy policy, over multiply-adds of an "
            "image and over the share of its pixels that were read, an overview counted; diamonds and triangles read "
            "the whole image, reduced. Right: validation accuracy over wall seconds from nothing, preparations such as "
            "a search counted. Each seed is thin and their mean bold.",
            (
                Drawing(
                    "accuracy over three costs, a row a task and a line a method", lambda: accuracy_over_costs(results)
                ),
            ),
        ),
        Section("results", "Results", "Mean over seeds, each seed beneath.", table=bench_table(results)),
    ]
    names = methods_of(results)
    return draw_page(
        sections,
        title=f"{len(names)} methods on {len(results.tasks)} tasks",
        lead=lead_of_bench(results),
        facts=[
            *(
                Fact(name, f"{task.data}{f', {task.task}' if task.task else ''}, {task.test_images:,} test images")
                for name, task in results.tasks.items()
            ),
            Fact("Hardware", str(provenance.get("hardware") or "not recorded")),
        ],
        methods=names,
    )


def methods_of(results: BenchResults) -> list[str]:
    """Return the methods of all tasks, in the order in which they first come."""
    return list(dict.fromkeys(name for task in results.tasks.values() for name in task.methods))


def lead_of_bench(results: BenchResults) -> list[str]:
    """Return which method is the most accurate on each task, and whether a network on the whole image is better."""
    sentences = []
    for title, task in results.tasks.items():
        ranked = sorted(task.methods, key=lambda name: -task.methods[name].mean_test_accuracy)
        ends = [f"{title_of(name)} {percent(task.methods[name].mean_test_accuracy)}" for name in ranked]
        whole = max(task.whole_images, key=lambda network: network.test_accuracy, default=None)
        beside = f"; {whole.architecture} on whole images has {percent(whole.test_accuracy)}" if whole else ""
        sentences.append(f"{title}: {listed(ends)}{beside}.")
    return sentences


def bench_table(results: BenchResults) -> Table:
    """Return lines for each task, and a column for each method and for the best network on whole images."""
    names = methods_of(results)
    lines = [line for title, task in results.tasks.items() for line in _lines(title, task, names)]
    columns = (Column(""), *(Column(title_of(name), name) for name in names), Column("Best on whole images"))
    return Table(columns, tuple(lines))


def print_bench(path: Path) -> None:
    """Print the table of the bench in ``path``, and the path of its page."""
    run = RunDirectory(path)
    try:
        results = from_json(BenchResults, run.load_json("bench.json"))
    except MismatchError as mismatch:
        raise damaged(path / "bench.json", f"has another schema, {mismatch}") from None
    print_table(bench_table(results), title=f"{len(methods_of(results))} methods on {len(results.tasks)} tasks")
    print(f"report: {path / 'bench.html'}")


def _lines(title: str, task: BenchTask, names: list[str]) -> list[Line]:
    figures: dict[str, tuple[Figure, Callable[[WholeImage], str] | None]] = {
        "test accuracy": (_accuracy, lambda network: percent(network.test_accuracy)),
        "multiply-adds": (lambda of: Cell(short_count(of.macs_by_glimpse[-1])), lambda n: short_count(n.macs)),
        "pixels read": (_pixels, lambda network: percent(whole_pixels(network, task))),
        "seconds of training, from nothing": (_seconds, None),
        "adaptivity by glimpse (nats)": (_adaptivity, None),
    }
    best = max(task.whole_images, key=lambda network: network.validation_accuracy, default=None)
    lines = []
    for figure, (of_method, of_whole) in figures.items():
        cells = [of_method(task.methods[name]) if name in task.methods else Cell() for name in names]
        beside = Cell(of_whole(best), (best.architecture,)) if best and of_whole else Cell()
        lines.append(Line(f"{title}: {figure}", (*cells, beside)))
    return lines


def _accuracy(of: BenchMethod) -> Cell:
    each = tuple(percent(value).removesuffix(" %") for value in of.test_accuracy)
    return Cell(percent(of.mean_test_accuracy), each if len(each) > 1 else ())


def _pixels(of: BenchMethod) -> Cell:
    return Cell(percent(mean(seed[-1] for seed in of.pixels_read_share_by_glimpse)))


def _seconds(of: BenchMethod) -> Cell:
    each = [seed[-1].seconds for seed in of.learning]
    return Cell(brief(mean(each)), tuple(map(brief, each)) if len(each) > 1 else ())


def _adaptivity(of: BenchMethod) -> Cell:
    return Cell(", ".join(brief_nats(mean(seeds)) for seeds in zip(*of.adaptivity_nats_by_glimpse, strict=True)))
