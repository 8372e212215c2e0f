"""A page: lead, sections and facts put together as one HTML file that needs no network.

Each figure is drawn once and embedded once, as an SVG that follows light and dark screens.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from nogs.report.player import Player
from nogs.report.section import Section
from nogs.report.style import BASIC, OF_METHOD, colour_of, for_both_papers, styled

FORMATS = ("png", "pdf", "svg")
"""Formats of files of figures."""
DPI = 200
PX_PER_INCH = 104
"""Greatest size of figures on screen, at which their 10 pt letters are about as large as captions."""
LARGE_BYTES = 8192
"""Pictures in figures of no fewer bytes are embedded with some loss."""
BESIDE_PX = 560
"""Figures of one section stand side by side if they are no wider than this, else beneath each other."""


class Drawn(NamedTuple):
    """A figure, and its SVG for both papers in base64."""

    name: str
    alt: str
    svg: str
    figure: Figure
    width_px: int


class Page(NamedTuple):
    html: str
    figures: list[Drawn]


class Fact(NamedTuple):
    title: str
    text: str


def draw_page(
    sections: Sequence[Section],
    *,
    title: str,
    lead: Sequence[str],
    facts: Sequence[Fact],
    methods: Sequence[str],
    player: Player | None = None,
) -> Page:
    """Draw the figures of ``sections`` and put all into the template.

    ``lead``: sentences, of which the first stands above the first section and the others beneath it. ``methods``: those
    whose colours the heads of tables have. ``player``: what a reader with a script plays with, above all sections.
    """
    drawn = {section.id: _drawn(section) for section in sections}
    pages = Environment(
        loader=PackageLoader("nogs.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = pages.get_template("page.html.j2").render(
        title=title,
        lead=lead,
        facts=facts,
        sections=[(section, drawn[section.id], _layout(drawn[section.id])) for section in sections],
        methods=[(name, *OF_METHOD.get(name, (colour_of(name), colour_of(name)))) for name in methods],
        basic=BASIC,
        player=player,
        player_script=Markup((files("nogs.report") / "player.js").read_text(encoding="utf-8")) if player else "",
    )
    return Page(html, [figure for figures in drawn.values() for figure in figures])


def image_file(drawn: Drawn, kind: str) -> bytes:
    """Return the figure as a file of ``kind``, one of `FORMATS`, for light paper."""
    with styled():
        return _saved(drawn.figure, kind)


def _drawn(section: Section) -> list[Drawn]:
    figures = []
    for number, (alt, draw) in enumerate(section.drawings, 1):
        with styled():
            figure = draw()
            svg = for_both_papers(lighter(_saved(figure, "svg").decode()))
        name = f"{section.id}-{number}" if len(section.drawings) > 1 else section.id
        width_px = round(figure.get_figwidth() * PX_PER_INCH)
        figures.append(Drawn(name, alt, base64.b64encode(svg.encode()).decode(), figure, width_px))
    return figures


def lighter(svg: str) -> str:
    """Return an SVG whose large photographs are WebP, a fifth of the size of the PNG that matplotlib writes."""

    def webp(png: re.Match[str]) -> str:
        content = base64.b64decode(png[1])
        if len(content) < LARGE_BYTES:
            return png[0]
        file = io.BytesIO()
        Image.open(io.BytesIO(content)).save(file, "WEBP", quality=85)
        return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()

    return re.sub(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)", webp, svg)


def _layout(figures: Sequence[Drawn]) -> str:
    if len(figures) < 2:
        return "one"
    return "beside" if max(figure.width_px for figure in figures) <= BESIDE_PX else "stacked"


def _saved(figure: Figure, kind: str) -> bytes:
    """Return the file without its date, so that the same data give the same bytes."""
    dates: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=DPI, metadata=dates[kind])
    return file.getvalue()
