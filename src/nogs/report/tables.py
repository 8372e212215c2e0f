"""Tables of numbers of results.json: the results of all methods, their exact tests, and the answers by class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as TerminalTable

from nogs.attention.methods import CONTROL, REFERENCE
from nogs.evaluation.schema import Comparison, MethodScores, Results, WholeImage, read_results
from nogs.report.notation import (
    Write,
    bounded,
    brief,
    brief_nats,
    count,
    nats,
    p_value,
    percent,
    points,
    short_count,
    times,
)
from nogs.report.read import evaluation_of
from nogs.report.section import Cell, Column, Line, Section, Table
from nogs.report.style import ARCHITECTURE_TITLES, title_of

ACCURACY, BALANCED_ACCURACY, COST = "Test accuracy", "Balanced accuracy", "Multiply-adds of an image"
"""Lines of the results table that networks on whole images have values for too."""
MOST_CNNS = 3
"""Largest number of CNNs that the results table lists; of more it has the best alone."""
LEAST_ACCURATE = 20
"""Classes that are listed, of more than a confusion matrix is kept for."""


def results_table(results: Results) -> Table:
    """Return the lines of `methods_table`, with columns for networks on whole images beside the methods."""
    table, networks = methods_table(results), whole_images(results)
    figures = [
        {
            ACCURACY: Cell(percent(network.test_accuracy)),
            BALANCED_ACCURACY: Cell(percent(network.test_balanced_accuracy)),
            COST: Cell(short_count(network.macs)),
        }
        for network in networks
    ]
    columns = (*table.columns, *(Column(whole_image_title(network)) for network in networks))
    lines = (Line(line.title, (*line.cells, *(of.get(line.title, Cell()) for of in figures))) for line in table.lines)
    return Table(columns, tuple(lines))


def whole_images(results: Results) -> list[WholeImage]:
    """Return logistic regression and the CNNs; of many CNNs the most accurate on validation images alone."""
    cnns = results.cnn_means
    if len(cnns) > MOST_CNNS:
        cnns = (max(cnns, key=lambda network: network.validation_accuracy),)
    return [*([results.linear] if results.linear else []), *cnns]


def whole_image_title(network: WholeImage) -> str:
    """Return "MobileNetV2, whole image at 48 px"."""
    title = ARCHITECTURE_TITLES.get(network.architecture, network.architecture.capitalize())
    return f"{title}, whole image at {network.resolution_px} px"


def methods_table(results: Results) -> Table:
    """Return a line for each figure and a column for each method. Lines that no method has a value for are left out."""
    lines = [
        _scores(results, ACCURACY, "test_accuracy", percent),
        _compared(results, REFERENCE, "Test accuracy, minus RAM", _difference),
        _compared(results, CONTROL, "Test accuracy, minus one designed path", _difference),
        _scores(results, "Test accuracy, sampled policy", "sampled_test_accuracy", percent),
        *(_balanced(results) if results.test.uneven else ()),
        _scores(results, "Test loss (nats)", "test_nll_nats", nats),
        *(_race(results) if results.has_race else ()),
        _scores(results, "Mean glimpses", "mean_glimpses", brief),
        _adaptivity(results),
        _scores(results, "Pixels read", "pixels_read_share", percent),
        Line(
            COST,
            tuple(Cell(short_count(scores.macs_by_glimpse[-1])) for scores in results.methods.values()),
        ),
    ]
    columns = (Column(""), *(Column(title_of(name), name) for name in results.methods))
    return Table(columns, tuple(line for line in lines if any(cell != Cell() for cell in line.cells)))


def _balanced(results: Results) -> tuple[Line, Line]:
    """Return balanced accuracies: of the most probable class, and of answers under an equal prior."""
    return (
        _scores(results, BALANCED_ACCURACY, "test_balanced_accuracy", percent),
        _scores(results, "Balanced accuracy, equal prior", "test_equal_prior_balanced_accuracy", percent),
    )


def _race(results: Results) -> tuple[Line, ...]:
    """Return the lines on iterations and seconds to the target."""
    return (
        _scores(results, "Iterations to target", "iterations_to_target", count),
        _compared(results, REFERENCE, "Iterations to target, RAM ÷ method", _iterations_ratio),
        _compared(results, CONTROL, "Iterations to target, path ÷ method", _iterations_ratio),
        _scores(results, "Iterations to RAM’s best seed", "iterations_to_best_seed", count),
        Line("Seconds to target, from nothing", tuple(_seconds(results, name) for name in results.methods)),
    )


def note_on(results: Results) -> str:
    """Return how to read the results table."""
    if results.target_nll_nats is None:
        return "Mean over seeds, each seed beneath. There is no target, because RAM, which sets it, was not trained."
    if results.target_is_chance:
        return f"Mean over seeds, each seed beneath. {no_race(results)}"
    return (
        "Mean over seeds, each seed beneath. Greedy policy and all glimpses, unless a line has another. The target is "
        f"a validation loss of {nats(results.target_nll_nats)} nats: RAM’s best, a mean over seeds, plus 0.01. For its "
        f"best seed alone it is {nats(results.best_seed_nll_nats or results.target_nll_nats)}. A seed that never "
        "reached it counts with the iterations that it was trained for, so means and ratios are bounds (≥, ≤). "
        "Equal prior: answers as if all classes were equally frequent. "
        "Adaptivity is the mutual information between test image and cell. Pixels read are a share of the image’s; an "
        "overview counts with as many as the reduced image has."
    )


def no_race(results: Results) -> str:
    """Return why iterations and seconds to the target are left out, where a constant answer reaches it."""
    return (
        f"RAM’s best loss plus 0.01, {nats(results.target_nll_nats or 0)} nats, is no better than the class "
        "frequencies, which any network reaches at once, so iterations and seconds to it are left out."
    )


def exact_tests(results: Results) -> Section | None:
    """Return the exact tests of each method against each reference."""
    compared = {(name, other): of for other, methods in results.comparisons.items() for name, of in methods.items()}
    if not compared:
        return None
    seeds = sorted({seed for of in compared.values() for seed in of.seeds})
    titles = ("", "accuracy", *(["iterations"] * results.has_race), *(f"images, seed {seed}" for seed in seeds))
    lines = []
    for (name, reference), of in compared.items():
        by_seed = {
            seed: Cell(f"{images.only_method} : {images.only_reference}", (p_value(images.p_value),))
            for seed, images in zip(of.seeds, of.images, strict=True)
        }
        cells = (
            Cell(points(of.mean_test_accuracy_difference), (p_value(of.test_accuracy_p_value),)),
            *([Cell(bounded(of.iterations_ratio, times), (p_value(of.iterations_p_value),))] * results.has_race),
            *(by_seed.get(seed, Cell()) for seed in seeds),
        )
        lines.append(Line(f"{title_of(name)} against {title_of(reference)}", cells))
    return Section(
        "tests",
        "Exact tests",
        f"Over paired seeds, the sign-flip test of accuracy{' and of iterations to the target' * results.has_race}; "
        "with n seeds its p is at least 2 / 2ⁿ. Over test images, each seed on its own: how many only the method : "
        "only the reference classifies correctly, and McNemar’s test.",
        table=Table(tuple(map(Column, titles)), tuple(lines)),
    )


def by_class(results: Results, method: str) -> Section | None:
    """Return the confusion matrix of a method; of many classes, the least accurate ones."""
    scores, classes = results.methods[method], results.classes
    correct = dict(zip(classes, scores.mean_accuracy_by_class, strict=True))
    if scores.test_confusion:
        lines = [
            Line(name, (*map(Cell, map(count, row)), Cell() if share is None else Cell(percent(share))))
            for (name, share), row in zip(correct.items(), scores.test_confusion, strict=True)
        ]
        columns = (Column("class ↓, answer →"), *map(Column, classes), Column("correct"))
        text = "Test images of each class by the answer, all seeds together."
    else:
        known = sorted((share, name) for name, share in correct.items() if share is not None)
        lines = [Line(name, (Cell(percent(share)),)) for share, name in known[:LEAST_ACCURATE]]
        columns, text = (Column("class"), Column("correct")), f"The {len(lines)} least accurate classes."
    return Section("classes", f"{title_of(method)} on each class", text, table=Table(columns, tuple(lines)))


def print_results(path: Path) -> None:
    """Print the means of the results table of a run on the terminal, and the path of its report."""
    results = read_results(evaluation_of(path), Results)
    title = f"{results.data}, {results.task or 'all classes'}, {count(results.test.images)} images"
    print_table(results_table(results), title=title)
    print(f"report: {path / 'report.html'}")


def print_table(shown: Table, *, title: str) -> None:
    """Print a table of a page on the terminal, without the figures of single seeds."""
    table = TerminalTable(title=title, box=SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(shown.columns):
        table.add_column(column.title, justify="right" if place else "left")
    for line in shown.lines:
        table.add_row(line.title, *(cell.summary for cell in line.cells))
    Console(markup=False, emoji=False).print(table)  # names are the user's


def _scores(results: Results, title: str, key: str, write: Write) -> Line:
    cells = []
    for scores in results.methods.values():
        values, of_all = getattr(scores, key), scores.means.get(key)
        each = tuple("never" if value is None else write(value).removesuffix(" %") for value in values)
        summary = "never" if values and not any(value is not None for value in values) else bounded(of_all, write)
        cells.append(Cell(summary, each if len(each) > 1 else ()) if of_all else Cell())
    return Line(title, tuple(cells))


def _compared(results: Results, reference: str, title: str, cell_of: Callable[[Comparison], Cell]) -> Line:
    compared = results.comparisons.get(reference, {})
    return Line(title, tuple(cell_of(compared[name]) if name in compared else Cell() for name in results.methods))


def _difference(of: Comparison) -> Cell:
    each = tuple(points(difference).removesuffix(" points") for difference in of.test_accuracy_difference)
    return Cell(points(of.mean_test_accuracy_difference), each if len(each) > 1 else ())


def _iterations_ratio(of: Comparison) -> Cell:
    return Cell(bounded(of.iterations_ratio, times))


def _seconds(results: Results, name: str) -> Cell:
    return Cell(bounded(results.end_to_end[name].needed, brief)) if name in results.end_to_end else Cell()


def _adaptivity(results: Results) -> Line:
    def cell(scores: MethodScores) -> Cell:
        means = scores.means_by_glimpse["adaptivity_nats_by_glimpse"]
        return Cell(", ".join(brief_nats(means[t]) for t in sorted({0, len(means) - 1})))

    return Line("Adaptivity, first and last glimpse (nats)", tuple(map(cell, results.methods.values())))
