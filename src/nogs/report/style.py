"""How the report looks: one colour a method and a stopping rule, the same in every figure, on light paper and dark.

Text that comes from users (class and data names) is never read as mathematics, and is kept short.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import matplotlib as mpl
from matplotlib.ticker import FuncFormatter

from nogs.attention.methods import METHODS

LONGEST_NAME = 22


@dataclass(frozen=True)
class Palette:
    """Colours of one theme; ``others`` serve methods that have none of their own, and classes."""

    paper: str
    ink: str
    faint: str
    line: str
    fill: str
    designed: str
    random: str
    methods: dict[str, str]
    rules: dict[str, str]
    others: tuple[str, ...]

    def method(self, name: str) -> str:
        return self.methods.get(name) or self.others[sum(map(ord, name)) % len(self.others)]


def _colours(palette: Palette, name: str) -> list[str]:
    colours: str | dict[str, str] | tuple[str, ...] = getattr(palette, name)
    return [colours] if isinstance(colours, str) else list(colours.values() if isinstance(colours, dict) else colours)


LIGHT = Palette(
    paper="#ffffff",
    ink="#1d2430",
    faint="#6a7484",
    line="#d5dae2",
    fill="#f3f5f8",
    designed="#1f8a5b",
    random="#8a93a3",
    methods={
        "ram": "#3567b0",
        "ps-nogs": "#d4552a",
        "ws-ram": "#7a58b5",
        "ps-ram": "#0f8f9c",
        "ps-hgs": "#b07d10",
        "act": "#c2255c",
        "random": "#7d8796",
        "centre": "#a23b72",
        "path": "#4d7c0f",
    },
    rules={
        "eig": "#b5179e",
        "accuracy": "#d9822b",
        "confidence": "#5b7f2b",
        "act": "#0b7285",
        "stochastic": "#7b4b2a",
        "fixed": "#4d5a70",
        "fixed_per_task": "#8a94a6",
    },
    others=("#4d5a70", "#d9822b", "#5b7f2b", "#b5179e", "#0b7285", "#7b4b2a", "#c92a2a", "#5f3dc4"),
)
DARK = Palette(
    paper="#171c24",
    ink="#e6eaf0",
    faint="#98a3b3",
    line="#3a4453",
    fill="#222935",
    designed="#4fc48d",
    random="#8d97a8",
    methods={
        "ram": "#6f9fe6",
        "ps-nogs": "#f58459",
        "ws-ram": "#ab8ce0",
        "ps-ram": "#4cc3cf",
        "ps-hgs": "#deb04d",
        "act": "#f27ba0",
        "random": "#9aa5b5",
        "centre": "#dd7fb0",
        "path": "#a3d65c",
    },
    rules={
        "eig": "#f06fdb",
        "accuracy": "#f5ab61",
        "confidence": "#9fc768",
        "act": "#4cc3cf",
        "stochastic": "#c99b78",
        "fixed": "#a5b1c6",
        "fixed_per_task": "#707c92",
    },
    others=("#a5b1c6", "#f5ab61", "#9fc768", "#f06fdb", "#4cc3cf", "#c99b78", "#ff8787", "#a18bf0"),
)
DARK_OF = {
    light.encode(): dark.encode()
    for field in fields(Palette)
    for light, dark in zip(_colours(LIGHT, field.name), _colours(DARK, field.name), strict=True)
}
"""Each colour of the light palette → the same of the dark one."""
RULES = {
    "eig": "Entropy gain",
    "accuracy": "Accuracy gain",
    "confidence": "Confidence",
    "act": "ACT",
    "stochastic": "Stochastic stop",
    "fixed": "Fixed number",
    "fixed_per_task": "Fixed number for each task",
}
"""Stopping rules as they are written in print, in their order; the last one is of several tasks."""
WIDTH = 9.6
"""Width of a full-width figure in inches."""
CHOSEN = "#18c5ff"
"""Outline of a glimpse: seen on photographs and on every colour of the maps alike."""


@contextmanager
def drawn_in(palette: Palette) -> Iterator[None]:
    """Draw and save figures in a palette; matplotlib's settings come back afterwards."""
    settings: Any = {
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 9.5,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 9.5,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": palette.line,
        "grid.linewidth": 0.6,
        "xtick.color": palette.faint,
        "ytick.color": palette.faint,
        "axes.edgecolor": palette.line,
        "axes.labelcolor": palette.ink,
        "axes.titlecolor": palette.ink,
        "text.color": palette.ink,
        "axes.facecolor": palette.paper,
        "figure.facecolor": palette.paper,
        "savefig.facecolor": palette.paper,
        "lines.solid_capstyle": "round",
        "svg.fonttype": "path",
        "svg.hashsalt": "nogs",
        "pdf.fonttype": 42,
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as boxes: no reason to fail or to complain.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def darkened(svg: bytes) -> bytes:
    """Replace the colours of the light palette in an SVG by those of the dark one."""
    return re.sub(rb"#[0-9a-f]{6}\b", lambda colour: DARK_OF.get(colour[0], colour[0]), svg)


def share_ticks() -> FuncFormatter:
    """0.975 → 97.5%, with no more digits than ticks need."""
    return FuncFormatter(lambda value, _: f"{100 * value:.4g}%")


def title_of(method: str) -> str:
    """A method as it is written in print."""
    return METHODS[method].title if method in METHODS else method.upper()


def short(name: str) -> str:
    """A user's name on one line, cut where it is too long to fit."""
    line = " ".join(name.split())
    return line if len(line) <= LONGEST_NAME else line[: LONGEST_NAME - 1] + "…"
