"""The page of an architecture search: one plot, and a table of its front."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nogs.evaluation.schema import read_results
from nogs.evaluation.tuned import Trial, TuneResults
from nogs.report.figures.tuned import accuracy_over_macs
from nogs.report.notation import percent, short_count
from nogs.report.page import Fact, Page, draw_page
from nogs.report.section import Cell, Column, Drawing, Line, Section, Table
from nogs.report.tables import print_table
from nogs.runs.directory import RunDirectory

COLUMNS = ("validation accuracy", "multiply-adds", "learning rate")


def build_tune(results: TuneResults, provenance: Mapping[str, Any]) -> Page:
    """Draw the plot and write the page."""
    return draw_page(
        [
            Section(
                "front",
                "Accuracy for its cost",
                "Each dot is a trial: its best validation accuracy over the multiply-adds of an image after all "
                "glimpses. Hollow: stopped early, because it fell behind. The line is the front.",
                (Drawing("validation accuracy of all trials over multiply-adds", lambda: accuracy_over_macs(results)),),
            ),
            Section(
                "networks",
                "The front",
                "Networks that no other beats, cheapest first. The best by the objective was trained anew.",
                table=tune_table(results),
            ),
        ],
        title=f"{len(results.trials)} networks on {results.task or results.data}",
        lead=lead_of_tune(results),
        facts=[
            Fact("Data", f"{results.data}{f', {results.task}' if results.task else ''}"),
            Fact("Objective", f"accuracy - {results.cost_weight:g} log(multiply-adds)"),
            Fact("Hardware", str(provenance.get("hardware") or "not recorded")),
        ],
        methods=[results.method],
    )


def lead_of_tune(results: TuneResults) -> list[str]:
    """Return what the best network is, and the number of trials."""
    best = results.trials[results.best]
    stopped = sum(trial.pruned for trial in results.trials)
    return [
        f"The best of {len(results.trials)} networks has {percent(results.test_accuracy)} test accuracy at "
        f"{short_count(best.macs)} multiply-adds: {_name_of(best)}.",
        f"{stopped} trials were stopped early. The front has {len(results.front)} networks.",
    ]


def tune_table(results: TuneResults) -> Table:
    """Return a line for each network of the front, and one for the best if it is not among them."""
    shown = list(results.front) if results.best in results.front else [*results.front, results.best]
    lines = [
        Line(
            f"{_name_of(trial)}{' (best)' if i == results.best else ''}",
            (
                Cell(percent(trial.validation_accuracy)),
                Cell(short_count(trial.macs)),
                Cell(f"{trial.learning_rate:.1e}"),
            ),
        )
        for i in shown
        for trial in [results.trials[i]]
    ]
    return Table((Column(""), *map(Column, COLUMNS)), tuple(lines))


def print_tune(path: Path) -> None:
    """Print the front of the search in ``path``, and the path of its page."""
    results = read_results(RunDirectory(path), TuneResults, "tune.json")
    print_table(tune_table(results), title=lead_of_tune(results)[0])
    print(f"report: {path / 'tune.html'}")


def _name_of(trial: Trial) -> str:
    scales = f", {trial.scales} scales" if trial.scales > 1 else ""
    overview = f", overview of {trial.overview} px" if trial.overview else ""
    several = "glimpses" if trial.glimpses > 1 else "glimpse"
    return f"{trial.glimpses} {several} of {trial.glimpse_size} px{scales}{overview}, {trial.hidden} hidden units"
