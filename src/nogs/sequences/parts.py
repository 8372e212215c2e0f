"""Hand-crafted glimpse sequences: the annotated parts of an image in a given order.

The rule of PS-HGS (*Near-Optimal Glimpse Sequences*, section 5), for birds: beak, eye, forehead, belly, feet. Parts
that are not visible are skipped. After the last visible part the remaining glimpses are at the centre of the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nogs.data.listing import Faults
from nogs.data.sources.cub import Point
from nogs.data.sources.table import rows
from nogs.errors import UserError

COLUMNS = ("image", "part", "row", "col", "visible")
_TRUTH = {"1": True, "true": True, "0": False, "false": False}


def read_parts(file: Path, faults: Faults) -> dict[str, dict[str, Point]]:
    """Return image → part → (row, column) of its visible parts, from a CSV file ``image,part,row,col,visible``.

    If a part occurs more than once (two eyes), the first visible one counts. Rows that do not parse become faults.
    """
    columns, table = rows(file, faults)
    for column in COLUMNS:
        if column not in columns:
            raise UserError(
                f"{file}: has no column {column!r} (but {', '.join(columns)}); it needs {','.join(COLUMNS)}"
            )
    places: dict[str, dict[str, Point]] = {}
    for line, values in table:
        parts = places.setdefault(values["image"], {})
        visible = _TRUTH.get(values["visible"].lower())
        if visible is None:
            faults.add(f"{file} line {line}", f"column visible: {values['visible']!r} is not 0 or 1")
        elif visible:
            try:
                parts.setdefault(values["part"], (float(values["row"]), float(values["col"])))
            except ValueError:
                where = f"{values['row']!r}, {values['col']!r}"
                faults.add(f"{file} line {line}", f"{where} are not a row and a column in pixels")
    return places


def follow(parts: Mapping[str, Point], order: Sequence[str], *, glimpses: int, centre: Point) -> list[Point]:
    """Return the centres of T = ``glimpses`` glimpses: the visible ``parts`` in ``order``, then ``centre``.

    All points are (row, column) in pixels.
    """
    visible = [parts[name] for name in order if name in parts][:glimpses]
    return visible + [centre] * (glimpses - len(visible))


def check_order(parts: Mapping[str, Mapping[str, Point]], order: Sequence[str]) -> None:
    """Raise UserError if ``order`` has a part that no image has, as when it is misspelt."""
    known = sorted({name for of_image in parts.values() for name in of_image})
    for name in order:
        if name not in known:
            raise UserError(f"parts_order={name}: no image has this part visible; choose among {', '.join(known)}")
