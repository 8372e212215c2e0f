"""Read the German Traffic Sign Detection Benchmark: street photographs, labelled with the speed limit that they show.

========================  ======================================================================
``00000.ppm`` ...         900 photographs of 1360 x 800 pixels
``gt.txt``                a row for each sign: file;left;top;right;bottom;class, in pixels
========================  ======================================================================

A photograph without a row in ``gt.txt`` shows no sign. The label is the speed limit (20, 30, 50, 60, 70, 80, 100 or
120) if a training photograph shows it, or "none". Of several limits in one photograph the largest sign counts. The
first 600 photographs are for training and the last 300 the test split, as published. The benchmark does not tell which
photographs show the same place, so each is a group of its own. Houben et al. (2013), "Detection of traffic signs in
real-world images".
"""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nogs.config.groups import Source
from nogs.data.files import check_present, is_number, read_lines
from nogs.data.frame import Box
from nogs.data.imageset import SPLITS
from nogs.data.listing import Annotations, Faults, Listing, by_path
from nogs.errors import UserError

SIGNS = "gt.txt"
LIMITS = {0: "20", 1: "30", 2: "50", 3: "60", 4: "70", 5: "80", 7: "100", 8: "120"}
"""Class of a sign → its speed limit in km/h. Class 6 ends a limit, and others are no limits."""
NONE = "none"
LAST_CLASS = 42
TEST_BEGINS = 600
"""Number of the first photograph of the test split."""
FIELDS = 6


class Sign(NamedTuple):
    """A row of ``gt.txt``: a sign of class ``kind`` in a photograph."""

    photograph: str
    box: Box
    kind: int


def gtsdb(root: Path, source: Source, faults: Faults) -> Listing:
    """Return all photographs of the folder, in the order of their numbers. Rows of other files become faults."""
    check_present("gtsdb", root, (SIGNS,))
    numbers = _photographs(root)
    largest: dict[str, tuple[int, str]] = {}
    for sign in signs(root, numbers, faults):
        if sign.kind in LIMITS:
            area = (sign.box.right - sign.box.left) * (sign.box.bottom - sign.box.top)
            largest[sign.photograph] = max(largest.get(sign.photograph, (0, "")), (area, LIMITS[sign.kind]))
    shown = {name: largest[name][1] if name in largest else NONE for name in numbers}
    learned = {shown[name] for name in numbers if numbers[name] < TEST_BEGINS}
    classes = tuple(name for name in (NONE, *LIMITS.values()) if name in learned)
    names = []
    for name in sorted(numbers, key=numbers.__getitem__):
        if shown[name] in learned:
            names.append(name)
        else:
            faults.add(str(root / name), f"shows the limit {shown[name]}, which no training photograph shows")
    about = Annotations(
        names=tuple(names),
        labels=np.array([classes.index(shown[name]) for name in names]),
        classes=classes,
        split=np.array([SPLITS.index("test" if numbers[name] >= TEST_BEGINS else "train") for name in names]),
    )
    return by_path([root / name for name in names], about)


def signs(root: Path, photographs: Container[str], faults: Faults) -> list[Sign]:
    """Return the signs of all rows of ``gt.txt``. Rows that cannot be used, or are of other files, become faults."""
    found = []
    for row, line in enumerate(read_lines(root / SIGNS), start=1):
        if not line.strip():
            continue
        where, fields = f"{root / SIGNS}, row {row}", line.strip().split(";")
        if len(fields) != FIELDS or not all(map(is_number, fields[1:])):
            faults.add(where, "is not file;left;top;right;bottom;class in whole numbers")
            continue
        name, (left, top, right, bottom, kind) = fields[0], map(int, fields[1:])
        if name not in photographs:
            faults.add(where, f"there is no photograph {name}")
        elif kind > LAST_CLASS:
            faults.add(where, f"class {kind} does not exist: 0 to {LAST_CLASS}")
        elif right <= left or bottom <= top:
            faults.add(where, f"a sign from {left},{top} to {right},{bottom} has no pixels")
        else:
            found.append(Sign(name, Box(left, top, right, bottom), kind))
    return found


def _photographs(root: Path) -> dict[str, int]:
    """Return the names of all photographs and their numbers. Raises UserError if there are none."""
    numbers = {
        entry.name: int(entry.name.removesuffix(".ppm"))
        for entry in os.scandir(root)
        if entry.name.endswith(".ppm") and is_number(entry.name.removesuffix(".ppm"))
    }
    if not numbers:
        raise UserError(f"data=gtsdb:{root}: has no photographs (00000.ppm ...); unpack them there")
    return numbers
