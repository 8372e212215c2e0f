"""Images listed in a CSV file: a header; a column ``file``, relative to the CSV; labels; maybe ``split``.

Every other column is a label. One label column: its distinct values are the classes, sorted, by value where
all are integers. Several: each is 0/1, -1/1 or false/true, and the set is multi-label. Rows are called by
their line in the file, the header being line 1.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from nogs.data.imageset import SPLITS
from nogs.data.listing import Annotations, Faults, Listing, in_order
from nogs.errors import UserError

FILE, SPLIT = "file", "split"
_MISSING = {"", "nan"}
_TRUTH = {"1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "false": 0, "-1": -1, "-1.0": -1}


class Row(NamedTuple):
    """A line of the table; ``values`` has a string for each column."""

    line: int
    values: dict[str, str]


def table(path: Path, faults: Faults) -> Listing:
    """The images of a CSV file, in its order; an image's name is what column ``file`` says."""
    columns, lines = rows(path, faults)
    targets = [column for column in columns if column not in (FILE, SPLIT)]
    if FILE not in columns:
        raise UserError(f"{path}: has no column {FILE!r} (but {', '.join(columns)}); name the images in one")
    if not targets:
        raise UserError(f"{path}: has no label column (only {', '.join(columns)}); add one or more")
    multilabel = len(targets) > 1
    good: list[Row] = []
    seen: dict[str, int] = {}
    for row in lines:
        reason = _fault(row.values, path.parent, targets) or (
            f"column {FILE}: {row.values[FILE]} is already in line {seen[row.values[FILE]]}"
            if row.values[FILE] in seen
            else None
        )
        if reason:
            faults.add(f"{path} line {row.line}", reason)
        else:
            good.append(row)
            seen[row.values[FILE]] = row.line
    if multilabel:
        classes, labels = tuple(targets), _signs(path, good, targets)
    else:
        classes = in_order(row.values[targets[0]] for row in good)
        of = {name: which for which, name in enumerate(classes)}
        labels = np.array([of[row.values[targets[0]]] for row in good], dtype=np.int64)
    names = tuple(row.values[FILE] for row in good)
    split = None
    if SPLIT in columns:
        numbers = {str(name): which for which, name in enumerate(SPLITS)}
        split = np.array([numbers[row.values[SPLIT]] for row in good], dtype=np.int64)
    return Listing(
        files=tuple(path.parent / name for name in names),
        where=tuple(f"{path} line {row.line}: {path.parent / row.values[FILE]}" for row in good),
        about=Annotations(names=names, labels=labels, classes=classes, split=split),
    )


def rows(path: Path, faults: Faults) -> tuple[list[str], list[Row]]:
    """The header of a CSV file and all rows of its length, values stripped; other rows are faults."""
    found: list[Row] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            columns = [name.strip() for name in next(reader, [])]
            if len(set(columns)) < len(columns):
                twice = next(name for name in columns if columns.count(name) > 1)
                raise UserError(f"{path}: two columns are called {twice!r}; rename or remove one")
            for fields in reader:
                if fields and len(fields) != len(columns):
                    faults.add(
                        f"{path} line {reader.line_num}",
                        f"has {len(fields)} fields for {len(columns)} columns",
                    )
                elif fields:
                    values = dict(zip(columns, (field.strip() for field in fields), strict=True))
                    found.append(Row(reader.line_num, values))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8 ({error}); save it as one") from error
    if not columns:
        raise UserError(f"{path}: is empty; it needs a header, which names its columns")
    return columns, found


def _fault(values: dict[str, str], root: Path, targets: list[str]) -> str | None:
    """Why a row cannot be used, if it cannot: the column, the value and what it should be."""
    for target in targets:
        if values[target].lower() in _MISSING:
            return f"column {target}: the label is missing ({values[target]!r})"
        if len(targets) > 1 and values[target].lower() not in _TRUTH:
            return f"column {target}: {values[target]!r} is not 0 or 1, as each of several labels must be"
    if SPLIT in values and values[SPLIT] not in SPLITS:
        return f"column {SPLIT}: {values[SPLIT]!r} is not train, val or test"
    if not values[FILE] or not (root / values[FILE]).is_file():
        return f"column {FILE}: there is no file {values[FILE]!r} in {root}"
    return None


def _signs(path: Path, rows: list[Row], targets: list[str]) -> Int[np.ndarray, "N K"]:
    """Labels 0/1. A column with both 0 and -1 is refused: one of them may well mean unknown."""
    signs = np.array([[_TRUTH[row.values[t].lower()] for t in targets] for row in rows], dtype=np.int64)
    signs = signs.reshape(len(rows), len(targets))
    for column, target in enumerate(targets):
        if {-1, 0} <= set(signs[:, column].tolist()):
            line = rows[int((signs[:, column] == -1).argmax())].line
            raise UserError(f"{path} line {line}, column {target}: has -1 beside 0 and 1; write 0/1 or -1/1")
    return (signs > 0).astype(np.int64)
