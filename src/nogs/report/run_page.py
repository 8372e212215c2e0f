"""The page of one run: its sections in order, and the facts on the run."""

from __future__ import annotations

from nogs.config.stages import Train
from nogs.config.table import stage_of
from nogs.evaluation.pictures import headline
from nogs.report.figures import (
    adaptivity,
    answers,
    costs,
    design_step,
    gain_maps,
    learning,
    looks,
    posterior,
    seconds,
    stopping,
)
from nogs.report.lead import lead_of_run
from nogs.report.page import Fact, Page, draw_page
from nogs.report.player import player_of
from nogs.report.read import Material
from nogs.report.section import Section
from nogs.report.tables import by_class, exact_tests, note_on, results_table


def build(material: Material) -> Page:
    """Draw everything and write the page of one run."""
    results = material.results
    title = f"{results.data}, {results.task}" if results.task else results.data
    return draw_page(
        sections_of(material),
        title=title,
        lead=lead_of_run(results),
        facts=facts_on(material),
        methods=tuple(results.methods),
        player=player_of(material),
    )


def sections_of(material: Material) -> list[Section]:
    """Return the sections in their order: the outcome first, then how it came about, then the details."""
    results = material.results
    sections = (
        answers.section(material),
        adaptivity.section(material),
        Section("results", "Results", note_on(results), table=results_table(results)),
        learning.section(material),
        seconds.section(material),
        by_class(results, material.answers.method),
        looks.section(material),
        design_step.section(material),
        gain_maps.section(material),
        posterior.section(material),
        costs.section(material),
        stopping.section(material),
        exact_tests(results),
    )
    return [section for section in sections if section]


def facts_on(material: Material) -> list[Fact]:
    """Return the facts of the run: data, settings, date and versions, and the command that uses the trained network."""
    results, provenance, grid = material.results, material.provenance, material.grid
    versions, commit = provenance.get("versions", {}), provenance.get("commit")
    machine = [str(provenance[key]) for key in ("hardware", "device", "platform") if provenance.get(key)]
    named = [f"{name} {versions[name]}" for name in ("nogs", "torch", "python") if name in versions]
    T = len(next(iter(material.methods.values())).macs_by_glimpse)
    method = headline(results.methods) or next(iter(material.methods))
    return [
        Fact("Data", results.data),
        Fact("Task", results.task or f"{len(results.classes)} classes"),
        Fact(
            "Glimpses",
            f"{T} of {grid.glimpse_px} × {grid.glimpse_px} px, at {len(grid)} locations of a {grid.image_px} × "
            f"{grid.image_px} px image",
        ),
        Fact("Date", str(provenance.get("finished") or provenance.get("started") or "not recorded")[:10]),
        Fact("Versions", ", ".join([*named, *([f"commit {commit[:10]}"] if commit else [])]) or "not recorded"),
        Fact("Hardware", ", ".join(machine) or "not recorded"),
        Fact(
            "Use it",
            f"nogs predict {stage_of(Train).directory}/{method}-seed{material.methods[method].seeds[0]} IMAGE…, in "
            "this directory",
        ),
    ]
