"""How the report looks: one colour a method, the same in every figure, on light paper and on dark.

Text that comes from users (class and data names) is never read as mathematics, and is kept short.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl

from nogs.methods import METHODS

LONGEST_NAME = 22


@dataclass(frozen=True)
class Palette:
    """Colours of one theme; ``others`` serve methods that have none of their own."""

    paper: str
    ink: str
    faint: str
    line: str
    fill: str
    designed: str
    random: str
    methods: dict[str, str]
    others: tuple[str, ...]

    def method(self, name: str) -> str:
        return self.methods.get(name) or self.others[sum(map(ord, name)) % len(self.others)]


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
    },
    others=("#a23b72", "#5b7f2b", "#4d5a70"),
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
    },
    others=("#dd7fb0", "#9fc768", "#a5b1c6"),
)
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
    with mpl.rc_context(settings):
        yield


def title_of(method: str) -> str:
    """A method as it is written in print."""
    return METHODS[method].title if method in METHODS else method.upper()


def short(name: str) -> str:
    """A user's name on one line, cut where it is too long to fit."""
    line = " ".join(name.split())
    return line if len(line) <= LONGEST_NAME else line[: LONGEST_NAME - 1] + "…"
