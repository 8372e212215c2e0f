"""Hand-crafted glimpse sequences: look at the annotated parts of an image, in an order that a person chose.

The rule of PS-HGS (*Near-Optimal Glimpse Sequences*, section 5) on birds: beak, eye, forehead, belly, feet. A
part that cannot be seen gives its turn to the next that can; when all were looked at, what is left of the T
glimpses goes to the centre of the image, which is the box's where images are cropped to one.
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
    """Of each image of a CSV file ``image,part,row,col,visible``, the places of its visible parts.

    Of a part that is there more than once (two eyes), the first that is visible counts.
    """
    columns, table = rows(file, faults)
    for column in COLUMNS:
        if column not in columns:
            raise UserError(
                f"{file}: has no column {column!r} (but {', '.join(columns)}); it needs {','.join(COLUMNS)}"
            )
    found: dict[str, dict[str, Point]] = {}
    for line, values in table:
        parts = found.setdefault(values["image"], {})
        visible = _TRUTH.get(values["visible"].lower())
        if visible is None:
            faults.add(f"{file} line {line}", f"column visible: {values['visible']!r} is not 0 or 1")
        elif visible:
            try:
                parts.setdefault(values["part"], (float(values["row"]), float(values["col"])))
            except ValueError:
                where = f"{values['row']!r}, {values['col']!r}"
                faults.add(f"{file} line {line}", f"{where} are not a row and a column in pixels")
    return found


def follow(parts: Mapping[str, Point], order: Sequence[str], *, glimpses: int, centre: Point) -> list[Point]:
    """Where the centres of T glimpses fall: on the visible parts in ``order``, then on the centre."""
    seen = [parts[name] for name in order if name in parts][:glimpses]
    return seen + [centre] * (glimpses - len(seen))


def check_order(parts: Mapping[str, Mapping[str, Point]], order: Sequence[str]) -> None:
    """Raise UserError for a part that no image has: it is spelt otherwise."""
    known = sorted({name for mine in parts.values() for name in mine})
    for name in order:
        if name not in known:
            raise UserError(f"parts_order={name}: no image has this part visible; choose among {', '.join(known)}")
