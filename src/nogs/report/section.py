"""A section of a page: a title, drawings, a caption and a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from matplotlib.figure import Figure

from nogs.report.notation import NONE


class Drawing(NamedTuple):
    """A figure: a description for screen readers, and the function that draws it."""

    alt: str
    draw: Callable[[], Figure]


class Column(NamedTuple):
    """Title of a column; with ``method``, in the colour of that method."""

    title: str
    method: str = ""


class Cell(NamedTuple):
    """A figure, and beneath it that of every seed or its p-value."""

    summary: str = NONE
    beneath: tuple[str, ...] = ()


class Line(NamedTuple):
    title: str
    cells: tuple[Cell, ...]


class Table(NamedTuple):
    """``columns`` includes that of the lines' titles, the first."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Section:
    """``id`` is the anchor in the page and the name of the figures' files."""

    id: str
    title: str
    caption: str
    drawings: tuple[Drawing, ...] = ()
    table: Table | None = None
