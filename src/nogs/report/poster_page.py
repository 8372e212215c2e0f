"""The poster: one page over several runs, a label each, of the same figures as their own pages and a few across."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from pathlib import Path
from statistics import mean

from nogs.report import captions
from nogs.report.figures import labels as poster
from nogs.report.notation import percent
from nogs.report.page import Page, draw_page
from nogs.report.read import Material, gather
from nogs.report.sections import Section, looks_of
from nogs.report.style import title_of
from nogs.report.tables import REFERENCE, Cell, Line, results_table, speedup_of

MISSING = Cell("–")


def build_poster(runs: Sequence[Path]) -> Page:
    """Read the runs, draw everything and write the page. No photograph is in it, only mean images."""
    labels = _titled(runs)
    tables = {path: {line.title: line for line in results_table(material)} for path, material in labels.items()}
    methods = poster.methods_of(labels)
    return draw_page(
        "poster.html.j2",
        _sections(labels),
        methods=methods,
        content={
            "lead": lead(labels),
            "runs": [(title, material.results["data"]) for title, material in labels.items()],
            "tables": [
                (
                    title,
                    [Line(label, _cells(labels[label], lines.get(title), methods)) for label, lines in tables.items()],
                )
                for title in ("Iterations to target", "Iterations to target, RAM ÷ method", "Test accuracy")
            ],
        },
    )


def lead(labels: poster.Labels) -> str:
    """How much faster and more accurate than RAM each method is, over the labels that have both."""
    parts = []
    for name in poster.methods_of(labels):
        both = [m.methods for m in labels.values() if name in m.methods and REFERENCE in m.methods]
        if name == REFERENCE or not both:
            continue
        found = [speedup_of(material, name) for material in labels.values() if name in material.methods]
        known = [speed for speed in found if speed and speed.bound in ("exact", "at least")]
        if known:
            ratio = exp(mean(log(speed.ratio) for speed in known))
            least = "at least " if any(speed.bound == "at least" for speed in known) else ""
            parts.append(
                f"RAM takes {least}{ratio:.1f} times as many iterations to the target loss as {title_of(name)} "
                f"(geometric mean over {len(known)} of {len(labels)} labels)."
            )
        ours, rams = (mean(mean(of[which]["test_accuracy"]) for of in both) for which in (name, REFERENCE))
        parts.append(
            f"{title_of(name)} ends at {percent(ours)} test accuracy, RAM at {percent(rams)} "
            f"(means over {len(both)} of {len(labels)} labels)."
        )
    return " ".join(parts) or "None of these runs has both RAM and another method."


def _titled(runs: Sequence[Path]) -> dict[str, Material]:
    """Each run under its task, or its data; with its directory where two would be called the same."""
    found = {path: gather(path, argument="runs") for path in runs}
    names = {path: str(m.results["task"] or m.results["data"]) for path, m in found.items()}
    several = [name for name in names.values() if list(names.values()).count(name) > 1]
    return {
        f"{names[path]} ({path.name})" if names[path] in several else names[path]: material
        for path, material in found.items()
    }


def _cells(material: Material, line: Line | None, methods: Sequence[str]) -> tuple[Cell, ...]:
    """The cells of a run's line, in the order of the poster's methods."""
    cells = dict(zip(material.methods, line.cells, strict=True)) if line else {}
    return tuple(cells.get(name, MISSING) for name in methods)


def _sections(labels: poster.Labels) -> list[Section]:
    looks = [(f"{title}: {alt}", draw) for title, m in labels.items() for alt, draw in looks_of(m)]
    shown = [title for title, material in labels.items() if looks_of(material)]
    sections = [
        Section(
            "races",
            "Iterations to the target and to convergence",
            "A dot is a seed, a line goes from the quickest to the slowest, a bar is their mean; the axis is "
            "logarithmic. An arrow stands where training ended without reaching the target, which is RAM’s best "
            "validation loss, a mean over seeds, plus 0.01 nats. Look for distance to RAM on the left.",
            (("iterations of each method and seed, a row a label", lambda p: poster.races(labels, p)),),
        ),
        Section(
            "accuracies",
            "Accuracy on the test split",
            "Greedy policy, all glimpses; a dot is a seed, a bar the mean. Balanced accuracy, a mean over classes, is "
            "the one to read where a class is rare.",
            (("accuracy of each method and seed, a row a label", lambda p: poster.accuracies(labels, p)),),
        ),
    ]
    if looks:
        caption = "Share of test images whose glimpse covers a pixel, over the mean image; a row a method, a column a "
        caption += f"glimpse. In turn: {captions.listed(shown)}."
        sections.append(
            Section("where-they-look", "Where each method looks", caption, tuple(looks), coloured_pixels=True)
        )
    if any(material.results.get("stopping") for material in labels.values()):
        caption = "A line is a mean over seeds; their spread is in each run’s own report. Up and to the left is better."
        draws = (("accuracy over mean glimpses, a panel a label", lambda p: poster.stopping(labels, p)),)
        sections.append(Section("stopping", "Stopping when enough was seen", caption, draws))
    if poster.comparable(labels):
        caption = (
            "A mean over the labels, where one setting serves all of them: one threshold, one cost, one number of "
            "glimpses; or a number for each label, chosen on validation images at one price for a glimpse."
        )
        together = (("accuracy over mean glimpses, all labels", lambda p: poster.stopping_together(labels, p)),)
        sections.append(Section("stopping-together", "One setting for all labels", caption, together))
    if any(material.costs.cnn or material.costs.adaptive for material in labels.values()):
        caption = (
            "Test accuracy, balanced where the axis says so. Hard attention by its number of glimpses, and with "
            "adaptive stopping, against CNNs that see the whole image; the grey line joins those that no other beats "
            "on validation images for less, the dashed one is the large network."
        )
        draws = (("accuracy over multiply-adds, a panel a label", lambda p: poster.costs(labels, p)),)
        sections.append(Section("cost", "Accuracy for its cost", caption, draws))
    return sections
