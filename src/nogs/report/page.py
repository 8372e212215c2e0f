"""The page: sections, figures and captions put together as one HTML file that needs no network.

Every figure is drawn twice, for light and for dark screens, and sits in the page as SVG. For print it is
also given as PNG and PDF, in the light palette.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from nogs.report import captions, figures, maps
from nogs.report.material import Material
from nogs.report.notation import seconds
from nogs.report.style import DARK, LIGHT, Palette, drawn_in, title_of
from nogs.report.table import results_table, time_breakdown

DPI = 200
PX_PER_INCH = 104
"""How large figures are shown at most: their 10 pt letters are then about as large as the captions."""
Draw = Callable[[Palette], Figure]


@dataclass(frozen=True)
class Section:
    """A figure, or several alike, under one title and caption; without any, ``caption`` says why."""

    id: str
    title: str
    caption: str
    draws: tuple[tuple[str, Draw], ...]
    """(what it shows, for those who cannot see it; how it is drawn)"""


class Drawn(NamedTuple):
    """A figure as it is written: SVG for the page in both palettes, PNG and PDF for print."""

    name: str
    alt: str
    light: str
    dark: str
    png: bytes
    pdf: bytes
    width_px: int


class Page(NamedTuple):
    html: str
    figures: list[Drawn]


def build(material: Material, *, publishable: bool) -> Page:
    """Draw everything and write the page."""
    drawn: list[Drawn] = []
    sections = []
    for section in _sections(material, publishable=publishable):
        several = len(section.draws) > 1
        of_section = [
            _drawn(f"{section.id}-{number}" if several else section.id, alt, draw)
            for number, (alt, draw) in enumerate(section.draws, 1)
        ]
        drawn += of_section
        sections.append({"id": section.id, "title": section.title, "caption": section.caption, "figures": of_section})
    results = material.results
    pages = Environment(
        loader=PackageLoader("nogs.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["duration"] = seconds
    html = pages.get_template("page.html.j2").render(
        data=results["data"],
        task=results["task"],
        facts=_facts(material),
        lead=captions.lead(material),
        target=results["target_nll_nats"],
        methods=[(title_of(name), LIGHT.method(name), DARK.method(name)) for name in material.methods],
        table=results_table(material),
        times=time_breakdown(material),
        sections=sections,
        light=LIGHT,
        dark=DARK,
    )
    return Page(html, drawn)


def _sections(material: Material, *, publishable: bool) -> list[Section]:
    results, methods, grid, mean_image = material.results, material.methods, material.grid, material.mean_image
    logged = any(rows for seeds in material.logs.values() for rows in seeds)
    examples: tuple[tuple[str, Draw], ...] = ()
    looks: tuple[tuple[str, Draw], ...] = ()
    if grid is not None and mean_image is not None:
        examples = tuple(_example(material, number, publishable) for number in range(len(material.examples)))
        if material.looks or material.designed is not None:
            looks = (
                (
                    "heat maps over the mean image, a row a method and a column a glimpse",
                    lambda p: maps.where_they_look(_rows(material, p), mean_image, grid, p),
                ),
            )
    iterations = {name: material.trained(name, "iteration") for name in methods}
    missing = "Not drawn: the evaluation kept no example images."
    return [
        Section(
            "network",
            "The network and its posterior at a glance",
            captions.network_and_posterior(material),
            (
                (
                    "block diagram of the network, and curves of the posterior by glimpse",
                    lambda p: figures.network_and_posterior(
                        results,
                        p,
                        glimpse_px=grid.glimpse_px if grid else None,
                        locations=len(grid) if grid else None,
                        hidden=material.hidden,
                    ),
                ),
            ),
        ),
        Section(
            "information-gain",
            "Where the next glimpse would tell most",
            captions.information_gain(material, publishable=publishable) if examples else missing,
            examples,
        ),
        Section(
            "where-they-look",
            "Where each method looks",
            captions.where_they_look(material) if looks else missing,
            looks,
        ),
        Section(
            "validation-loss",
            "Learning, by iterations and by seconds",
            captions.validation_loss(material) if logged else "Not drawn: the logs of training are missing.",
            (
                (
                    "validation loss over iterations and over seconds, for each method and seed",
                    lambda p: figures.validation_loss(material.logs, results["target_nll_nats"], p),
                ),
            )
            if logged
            else (),
        ),
        Section(
            "iterations",
            "Iterations to the target and to convergence",
            captions.races(material),
            (
                (
                    "iterations to target and to convergence of each method and seed",
                    lambda p: figures.races(methods, iterations, p),
                ),
            ),
        ),
        Section(
            "accuracy",
            "Accuracy, glimpse by glimpse",
            captions.accuracy_by_glimpse(material),
            (("test accuracy by number of glimpses", lambda p: figures.accuracy_by_glimpse(methods, p)),),
        ),
    ]


def _example(material: Material, number: int, publishable: bool) -> tuple[str, Draw]:
    example, grid, mean_image = material.examples[number], material.grid, material.mean_image
    assert grid is not None
    assert mean_image is not None
    name = maps.example_name(number + 1, material.results["classes"][example.label])
    most_nats = max(float(other.eig.max()) for other in material.examples)
    picture = mean_image if publishable else example.picture
    return (
        f"{name}: maps of information gain above, glimpses below",
        lambda p: maps.information_gain(example, picture, grid, p, name=name, most_nats=most_nats),
    )


def _rows(material: Material, palette: Palette) -> dict[str, tuple[str, Any]]:
    rows = {title_of(name): (palette.method(name), shares) for name, shares in material.looks.items()}
    if material.designed is not None:
        rows["Designed"] = (palette.designed, material.designed)
    return rows


def _drawn(name: str, alt: str, draw: Draw) -> Drawn:
    with warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as boxes: no reason to fail or to complain.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        with drawn_in(DARK):
            dark = _saved(draw(DARK), "svg")
        with drawn_in(LIGHT):
            figure = draw(LIGHT)
            light, png, pdf = (_saved(figure, kind) for kind in ("svg", "png", "pdf"))
    svg, svg_dark = (base64.b64encode(file).decode() for file in (light, dark))
    return Drawn(name, alt, svg, svg_dark, png, pdf, round(figure.get_figwidth() * PX_PER_INCH))


def _saved(figure: Figure, kind: str) -> bytes:
    """The file, without its date: the same data give the same bytes, whenever they are drawn."""
    dates: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=DPI, metadata=dates[kind])
    return file.getvalue()


def _facts(material: Material) -> list[tuple[str, str]]:
    """What was run, on what, when."""
    results, provenance, grid = material.results, material.provenance, material.grid
    versions = provenance.get("versions", {})
    commit = provenance.get("commit")
    machine = [str(provenance[key]) for key in ("hardware", "device", "platform") if provenance.get(key)]
    glimpses = len(next(iter(material.methods.values()))["macs_by_glimpse"]) if material.methods else 0
    facts = [
        ("Data", results["data"]),
        ("Task", results["task"] or f"{len(results['classes'])} classes"),
        (
            "Glimpses",
            f"{glimpses} of {grid.glimpse_px} × {grid.glimpse_px} px, at {len(grid)} locations of a "
            f"{grid.image_px} × {grid.image_px} px image"
            if grid
            else f"{glimpses}",
        ),
        ("Date", str(provenance.get("finished") or provenance.get("started") or "not recorded")[:10]),
        (
            "Versions",
            ", ".join(f"{name} {versions[name]}" for name in ("nogs", "torch", "python") if name in versions)
            + (f", commit {commit[:10]}" if commit else ""),
        ),
        ("Hardware", ", ".join(machine) or "not recorded"),
    ]
    return [(name, value) for name, value in facts if value]
