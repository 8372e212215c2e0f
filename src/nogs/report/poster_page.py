"""The poster: one page over several runs, a label each. It has no photograph, only mean images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nogs.report.figures import labels as poster
from nogs.report.figures import looks
from nogs.report.lead import lead_of_poster
from nogs.report.page import Fact, Page, draw_page
from nogs.report.read import Material, gather
from nogs.report.section import Cell, Column, Drawing, Line, Section, Table
from nogs.report.style import title_of
from nogs.report.tables import methods_table

TABLES = (
    "Test accuracy",
    "Test accuracy, minus RAM",
    "Test accuracy, minus one designed path",
    "Iterations to target",
    "Iterations to target, RAM ÷ method",
    "Iterations to target, path ÷ method",
    "Seconds to target, from nothing",
)
"""Lines of the results table of which the poster has a table each, with a line for each label."""


def build_poster(runs: Sequence[Path], titles: Sequence[str] = ()) -> Page:
    """Read the runs, draw everything and write the page. ``titles``: of the runs, in place of their tasks."""
    materials = _titled(runs, titles)
    results = {title: material.results for title, material in materials.items()}
    return draw_page(
        sections_of(materials),
        title=f"Near-optimal glimpse sequences on {len(runs)} labels",
        lead=lead_of_poster(results),
        facts=[
            Fact(title, f"{of.data}, {of.test.images:,} test images" + _skipped(of.test.skipped_files))
            for title, of in results.items()
        ],
        methods=poster.methods_of(results),
    )


def sections_of(materials: Mapping[str, Material]) -> list[Section]:
    labels = {title: material.results for title, material in materials.items()}
    stopped = {title: of for title, of in labels.items() if of.stopping}
    costed = {title: of for title, of in labels.items() if of.cnn_means or of.stopping}
    figures = (
        (
            "accuracies",
            "Accuracy on the test split",
            "Greedy policy, all glimpses; a dot is a seed, a bar the mean. Where a class is rare, read balanced "
            "accuracy, a mean over classes.",
            [Drawing("accuracy of each method and seed, a row a label", lambda: poster.accuracies(labels))],
        ),
        (
            "races",
            "Iterations to the target and to convergence",
            "A dot is a seed, a line goes from the quickest to the slowest, a bar is their mean; the axis is "
            "logarithmic. An arrow is a seed that ended without reaching the target: RAM’s best validation loss, a "
            "mean over seeds or that of its best seed, plus 0.01 nats.",
            [Drawing("iterations of each method and seed, a row a label", lambda: poster.races(labels))],
        ),
        (
            "where-they-look",
            "Where each method looks",
            "Share of test images whose glimpse covers a pixel, over the mean image; a row a method, a column a "
            "glimpse.",
            [looks.drawing(material, title) for title, material in materials.items()],
        ),
        (
            "stopping",
            "Stopping when enough was seen",
            "A line is a mean over seeds; their spread is in each run’s own report. Up and to the left is better.",
            [Drawing("accuracy over mean glimpses, a panel a label", lambda: poster.stopping(stopped))] * bool(stopped),
        ),
        (
            "stopping-together",
            "One setting for all labels",
            "A mean over the labels, where one setting serves all of them: one threshold, one cost, one number of "
            "glimpses; or a number for each label, chosen on validation images at one price for a glimpse.",
            [Drawing("accuracy over mean glimpses, all labels", lambda: poster.stopping_together(labels))]
            * poster.comparable(labels),
        ),
        (
            "cost",
            "Accuracy for its cost",
            "Test accuracy, balanced where the axis is. Hard attention by its number of glimpses, and with adaptive "
            "stopping, against networks that see the whole image; the grey line joins the CNNs that no other beats on "
            "validation images for fewer multiply-adds, the dashed one is the large network.",
            [Drawing("accuracy over multiply-adds, a panel a label", lambda: poster.costs(costed))] * bool(costed),
        ),
    )
    sections = [Section(name, title, text, tuple(drawings)) for name, title, text, drawings in figures if drawings]
    return [*sections[:2], *_tables(materials), *sections[2:]]


def _titled(runs: Sequence[Path], titles: Sequence[str]) -> dict[str, Material]:
    """Return each run under its title, or its task or data, with the directory where two would be alike."""
    materials = {path: gather(path, argument="runs", publishable=True) for path in runs}
    if titles:
        return dict(zip(titles, materials.values(), strict=True))
    names = {path: material.results.task or material.results.data for path, material in materials.items()}
    several = [name for name in names.values() if list(names.values()).count(name) > 1]
    return {f"{name} ({path.name})" if name in several else name: materials[path] for path, name in names.items()}


def _tables(materials: Mapping[str, Material]) -> list[Section]:
    """Return a table for each of `TABLES` that a run has, with a line for each label."""
    tables = {title: methods_table(material.results) for title, material in materials.items()}
    methods = poster.methods_of({title: material.results for title, material in materials.items()})
    sections = []
    for number, wanted in enumerate(TABLES, 1):
        lines = []
        for label, table in tables.items():
            row = next((line for line in table.lines if line.title == wanted), None)
            cells = dict(zip(materials[label].methods, row.cells, strict=True)) if row else {}
            lines.append(Line(label, tuple(cells.get(name, Cell()) for name in methods)))
        if any(cell != Cell() for line in lines for cell in line.cells):
            columns = (Column(""), *(Column(title_of(name), name) for name in methods))
            note = "Mean over seeds, each seed beneath; ≥ and ≤ where a seed never reached the target."
            sections.append(Section(f"table-{number}", wanted, note, table=Table(columns, tuple(lines))))
    return sections


def _skipped(files: int) -> str:
    return f", {files:,} files left out" if files else ""
