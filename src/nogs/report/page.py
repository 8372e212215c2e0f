"""The page: sections, figures and captions put together as one HTML file that needs no network.

Every figure is embedded as SVG in two palettes, for light and for dark screens. It is drawn once and recoloured,
unless its pixels hold colours of the palette. `image_file` gives it as a file for print.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from nogs.report import captions
from nogs.report.notation import seconds
from nogs.report.read import Material
from nogs.report.sections import Draw, Section, sections_of
from nogs.report.style import DARK, LIGHT, darkened, drawn_in, title_of
from nogs.report.tables import results_table, time_breakdown

FORMATS = ("png", "pdf", "svg")
"""Formats of files of figures."""
DPI = 200
PX_PER_INCH = 104
"""How large figures are shown at most: their 10 pt letters are then about as large as the captions."""

WIDE_PX = 800
"""Wider figures of one section stand under each other: side by side their panels were too small to see."""


class Drawn(NamedTuple):
    """A figure, drawn in the light palette, and its SVG in both palettes, in base64."""

    name: str
    alt: str
    light: str
    dark: str
    figure: Figure
    width_px: int


class Page(NamedTuple):
    html: str
    figures: list[Drawn]


def build(material: Material, *, publishable: bool) -> Page:
    """Draw everything and write the page of one run."""
    results = material.results
    return draw_page(
        "page.html.j2",
        sections_of(material, publishable=publishable),
        methods=tuple(material.methods),
        content={
            "data": results["data"],
            "task": results["task"],
            "facts": _facts(material),
            "lead": captions.lead(material),
            "target": results["target_nll_nats"],
            "table": results_table(material),
            "times": time_breakdown(material),
        },
    )


def draw_page(
    template: str, sections: Sequence[Section], *, methods: Sequence[str], content: dict[str, object]
) -> Page:
    """Draw the figures of ``sections``, and put them and ``content`` into a template."""
    drawn: list[Drawn] = []
    shown = []
    for section in sections:
        several = len(section.draws) > 1
        of_section = [
            _drawn(f"{section.id}-{number}" if several else section.id, alt, draw, redraw=section.coloured_pixels)
            for number, (alt, draw) in enumerate(section.draws, 1)
        ]
        drawn += of_section
        shown.append(
            {
                "id": section.id,
                "title": section.title,
                "caption": section.caption,
                "figures": of_section,
                "table": section.table,
                "layout": ("stacked" if of_section[0].width_px > WIDE_PX else "several") if several else "one wide",
            }
        )
    pages = Environment(
        loader=PackageLoader("nogs.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["duration"] = seconds
    html = pages.get_template(template).render(
        {
            **content,
            "methods": [(title_of(name), LIGHT.method(name), DARK.method(name)) for name in methods],
            "sections": shown,
            "light": LIGHT,
            "dark": DARK,
        }
    )
    return Page(html, drawn)


def image_file(drawn: Drawn, kind: str) -> bytes:
    """Return the figure as a file of ``kind``, one of `FORMATS`, in the light palette."""
    with drawn_in(LIGHT):
        return _saved(drawn.figure, kind)


def _drawn(name: str, alt: str, draw: Draw, *, redraw: bool) -> Drawn:
    with drawn_in(LIGHT):
        figure = draw(LIGHT)
        light = _saved(figure, "svg")
    dark = darkened(light)
    if redraw:
        with drawn_in(DARK):
            dark = _saved(draw(DARK), "svg")
    svg, svg_dark = (base64.b64encode(file).decode() for file in (light, dark))
    return Drawn(name, alt, svg, svg_dark, figure, round(figure.get_figwidth() * PX_PER_INCH))


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
