"""The page of a bench: one plot and one table over tasks and methods."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from nogs.evaluation.bench import BenchMethod, BenchResults, BenchTask
from nogs.evaluation.schema import WholeImage, read_results
from nogs.evaluation.typed_json import Number
from nogs.report.figures.bench import accuracy_of_tasks, accuracy_over_costs, methods_of, whole_pixels
from nogs.report.notation import brief, brief_nats, count, listed, percent, short_count
from nogs.report.page import Fact, Page, draw_page
from nogs.report.section import Cell, Column, Drawing, Line, Section, Table
from nogs.report.style import ARCHITECTURE_TITLES, title_of
from nogs.report.tables import print_table, whole_image_title
from nogs.runs.directory import RunDirectory

COLUMNS = ("accuracy", "multiply-adds", "pixels", "seconds", "nats by glimpse")
"""Figures of the table. Short, so that the table fits a terminal; `NOTE` explains them."""
NOTE = (
    "Test accuracy after all glimpses, multiply-adds of an image, share of its pixels read, wall seconds of one "
    "training from nothing, and mutual information between image and cell at each glimpse (0 where all images get the "
    "same). Mean over seeds, each seed beneath. Networks with a side length in pixels read the whole image, reduced to "
    "it."
)

MANY = 8
"""Tasks above which the page has a line for each task."""
NOTE_OF_MANY = (
    "Test accuracy after all glimpses, a mean over seeds, and beneath it balanced accuracy. Then mean iterations until "
    "the validation loss is at or under the mean of RAM's best, plus 0.01 nats, where a constant answer is not. Last, "
    "the best network on whole images (logistic regression on 24 pixels if no CNN was trained), and the accuracy of "
    "always answering the commonest class."
)


def build_bench(results: BenchResults, provenance: Mapping[str, Any]) -> Page:
    """Draw the plot and write the page. More than `MANY` tasks get a line each, in place of one for each method."""
    names = methods_of(results)
    return draw_page(
        _sections_of_many(results) if len(results.tasks) > MANY else _sections(results),
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


def _sections(results: BenchResults) -> list[Section]:
    return [
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
        Section("results", "Results", NOTE, table=bench_table(results)),
    ]


def _sections_of_many(results: BenchResults) -> list[Section]:
    return [
        Section(
            "accuracy",
            "Accuracy on every task",
            "Test split, all glimpses, greedy policy. A dot is a seed, a bar the mean, and a grey line the share of "
            "the commonest class, which a constant answer reaches. Balanced accuracy is a mean over classes: read it "
            "where a class is rare. Right: iterations until the validation loss is at or under the mean of RAM's best, "
            "plus 0.01 nats; seeds that never got there have no dot.",
            (Drawing("accuracies and iterations, a row a task and a dot a seed", lambda: accuracy_of_tasks(results)),),
        ),
        Section("results", "Results", NOTE_OF_MANY, table=table_of_many(results)),
    ]


def lead_of_bench(results: BenchResults) -> list[str]:
    """Return the most accurate method of each task, then all of each task beside the best network on whole images."""
    if len(results.tasks) > MANY:
        return _lead_of_many(results)
    best, sentences = [], []
    for title, task in results.tasks.items():
        ranked = sorted(task.methods, key=lambda name: -task.methods[name].mean_test_accuracy)
        best.append(f"{title_of(ranked[0])} on {title} ({percent(task.methods[ranked[0]].mean_test_accuracy)})")
        whole = best_whole_image(task)
        beside = f"; {whole_image_title(whole)} has {percent(whole.test_accuracy)}" if whole else ""
        sentences.append(f"{title}: {accuracies_of(task)}{beside}.")
    return [f"The most accurate method is {listed(best)}.", *sentences]


def accuracies_of(task: BenchTask) -> str:
    """Return the test accuracy of each method, the best first: "PS-NOGS 89.5 % and RAM 80.8 %"."""
    ranked = sorted(task.methods, key=lambda name: -task.methods[name].mean_test_accuracy)
    return listed([f"{title_of(name)} {percent(task.methods[name].mean_test_accuracy)}" for name in ranked])


def _lead_of_many(results: BenchResults) -> list[str]:
    """Return on how many tasks each method is the most accurate, and its mean accuracies over the tasks of all."""
    shared = [task for task in results.tasks.values() if set(task.methods) == set(methods_of(results))]
    counts, means = [], []
    for name in methods_of(results):
        of_tasks = [task.methods[name] for task in shared]
        ahead = sum(of.mean_test_accuracy == _most(task) for of, task in zip(of_tasks, shared, strict=True))
        accuracy = mean(of.mean_test_accuracy for of in of_tasks)
        balanced = mean(mean(of.test_balanced_accuracy) for of in of_tasks)
        counts.append(f"{title_of(name)} on {ahead}")
        means.append(f"{title_of(name)} {percent(accuracy)} ({percent(balanced)})")
    whole = [network for task in shared if (network := best_whole_image(task))]
    if len(whole) == len(shared):
        accuracy, balanced = mean(of.test_accuracy for of in whole), mean(of.test_balanced_accuracy for of in whole)
        means.append(f"the best on whole images {percent(accuracy)} ({percent(balanced)})")
    return [
        f"Of {len(shared)} tasks, the most accurate is {listed(counts)}; ties count for all.",
        f"Mean test accuracy over tasks, balanced accuracy in brackets: {listed(means)}.",
    ]


def _most(task: BenchTask) -> Number:
    return max(method.mean_test_accuracy for method in task.methods.values())


def best_whole_image(task: BenchTask) -> WholeImage | None:
    """Return the network on whole images with the best validation accuracy; None if there is none."""
    return max(task.whole_images, key=lambda network: network.validation_accuracy, default=None)


def bench_table(results: BenchResults) -> Table:
    """Return a line for each method on each task, and one for the best network on whole images of the task."""
    lines = []
    for title, task in results.tasks.items():
        lines += [Line(f"{title}: {title_of(name)}", _cells(method)) for name, method in task.methods.items()]
        if whole := best_whole_image(task):
            cells = (
                Cell(percent(whole.test_accuracy)),
                Cell(short_count(whole.macs)),
                Cell(percent(whole_pixels(whole, task))),
            )
            lines.append(Line(f"{title}: {_name_of(whole)}", (*cells, Cell(), Cell())))
    return Table((Column(""), *map(Column, COLUMNS)), tuple(lines))


def table_of_many(results: BenchResults) -> Table:
    """Return a line for each task, and for each method its accuracy above its balanced accuracy, then iterations."""
    names = methods_of(results)
    lines = [
        Line(
            title,
            (
                *(_accuracies(task.methods.get(name)) for name in names),
                *(_iterations(task.methods.get(name)) for name in names),
                _on_whole_images(task),
                Cell() if task.commonest_class_share is None else Cell(percent(task.commonest_class_share)),
            ),
        )
        for title, task in results.tasks.items()
    ]
    columns = (
        Column(""),
        *(Column(title_of(name), name) for name in names),
        *(Column(f"{title_of(name)}, iterations", name) for name in names),
        Column("whole image"),
        Column("commonest class"),
    )
    return Table(columns, tuple(lines))


def _on_whole_images(task: BenchTask) -> Cell:
    whole = best_whole_image(task)
    return Cell(percent(whole.test_accuracy), (percent(whole.test_balanced_accuracy),)) if whole else Cell()


def _accuracies(method: BenchMethod | None) -> Cell:
    if method is None:
        return Cell()
    balanced = (percent(mean(method.test_balanced_accuracy)),) if method.test_balanced_accuracy else ()
    return Cell(percent(method.mean_test_accuracy), balanced)


def _iterations(method: BenchMethod | None) -> Cell:
    if method is None or not method.iterations_to_target:
        return Cell()
    reached = [value for value in method.iterations_to_target if value is not None]
    if len(reached) < len(method.iterations_to_target):
        return Cell(f"never in {len(method.iterations_to_target) - len(reached)} of {len(method.seeds)}")
    return Cell(count(mean(reached)))


def print_bench(path: Path) -> None:
    """Print the table of the bench in ``path``, and the path of its page."""
    results = read_results(RunDirectory(path), BenchResults, "bench.json")
    table = table_of_many(results) if len(results.tasks) > MANY else bench_table(results)
    print_table(table, title=f"{len(methods_of(results))} methods on {len(results.tasks)} tasks")
    print(f"report: {path / 'bench.html'}")


def _name_of(network: WholeImage) -> str:
    title = ARCHITECTURE_TITLES.get(network.architecture, network.architecture.capitalize())
    return f"{title}, {network.resolution_px} px"


def _cells(of: BenchMethod) -> tuple[Cell, ...]:
    """Return the figures of a method in the order of ``COLUMNS``."""
    accuracy = tuple(percent(value).removesuffix(" %") for value in of.test_accuracy)
    seconds = [seed[-1].seconds for seed in of.learning]
    adaptivity = (brief_nats(mean(seeds)) for seeds in zip(*of.adaptivity_nats_by_glimpse, strict=True))
    several = len(of.seeds) > 1
    return (
        Cell(percent(of.mean_test_accuracy), accuracy if several else ()),
        Cell(short_count(of.macs_by_glimpse[-1])),
        Cell(percent(mean(seed[-1] for seed in of.pixels_read_share_by_glimpse))),
        Cell(brief(mean(seconds)), tuple(map(brief, seconds)) if several else ()),
        Cell(", ".join(adaptivity)),
    )
