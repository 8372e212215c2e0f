"""Read images listed in a CSV file: a header with column ``file``, one or more label columns, maybe ``split``.

``file`` is relative to the CSV. Every column other than ``file`` and ``split`` is a label. Rows whose split is
``unlabelled`` have no label, and what their label columns hold is not read. The distinct values of a
single label column are the classes, sorted, or by value if all are integers. Several columns of 0/1, -1/1 or
false/true are a multi-label set. Any column can be read alone as the ``task``; columns that are not 0/1 are then
ignored. Errors call rows by their line in the file. The header is line 1.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from nogs.config.groups import Source
from nogs.data.files import check_regular, is_zarr
from nogs.data.imageset import ALL_SPLITS, NO_LABEL, UNLABELLED
from nogs.data.listing import Annotations, Faults, Listing, in_order, split_numbers
from nogs.errors import UserError

FILE, SPLIT = "file", "split"
_MISSING = {"", "nan"}
_TRUTH = {"1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "false": 0, "-1": -1, "-1.0": -1}
_DISTINCT = 20
"""Distinct numbers in a column, up to which they may be classes however few images have each."""


class Row(NamedTuple):
    """A line of the table; ``values`` has a string for each column."""

    line: int
    values: dict[str, str]

    @property
    def labelled(self) -> bool:
        return self.values.get(SPLIT) != UNLABELLED


def table(path: Path, source: Source, faults: Faults) -> Listing:
    """Return the images of a CSV file, in its order. The name of an image is its value of column ``file``."""
    columns, lines = rows(path, faults)
    targets = _targets(path, columns, lines, source.task)
    # a single column of 0/1 among others remains a label of a multi-label set, with the classes "not NAME" and NAME
    multilabel = len(targets) > 1 or (bool(source.task) and _is_binary(lines, targets[0]))
    good: list[Row] = []
    seen: dict[str, int] = {}
    for row in lines:
        name = row.values[FILE]
        if reason := _fault(row.values, path.parent, targets if row.labelled else (), multilabel=multilabel):
            faults.add(f"{path} line {row.line}", reason)
        elif name in seen:
            faults.add(f"{path} line {row.line}", f"column {FILE}: {name} is already in line {seen[name]}")
        else:
            good.append(row)
            seen[name] = row.line
    if multilabel:
        classes, labels = tuple(targets), _signs(path, good, targets)
    else:
        classes, labels = _classes(path, good, targets[0])
    about = Annotations(
        names=tuple(row.values[FILE] for row in good),
        labels=labels,
        classes=classes,
        split=split_numbers(row.values[SPLIT] for row in good) if SPLIT in columns else None,
        task=None if multilabel else source.task,
    )
    files = tuple(path.parent / name for name in about.names)
    where = tuple(f"{path} line {row.line}: {file}" for row, file in zip(good, files, strict=True))
    return Listing(files, where, about)


def rows(path: Path, faults: Faults) -> tuple[list[str], list[Row]]:
    """Return the header of a CSV file and its rows, with values stripped. Rows of another length become faults."""
    kept: list[Row] = []
    check_regular(path)
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
                    kept.append(Row(reader.line_num, values))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8 ({error}); save it as one") from error
    if not columns:
        raise UserError(f"{path}: is empty; it needs a header, which names its columns")
    return columns, kept


def _targets(path: Path, columns: Sequence[str], lines: Sequence[Row], task: str | None) -> list[str]:
    """Return the label columns to read: all, or if ``task`` names one, that column, or all that are 0/1 as it is."""
    targets = [column for column in columns if column not in (FILE, SPLIT)]
    if FILE not in columns:
        raise UserError(f"{path}: has no column {FILE!r} (but {', '.join(columns)}); name the images in one")
    if not targets:
        raise UserError(f"{path}: has no label column (only {', '.join(columns)}); add one or more")
    if task is None:
        return targets
    if task not in targets:
        raise UserError(f"task={task} does not exist: choose one of {', '.join(targets)}")
    return [column for column in targets if _is_binary(lines, column)] if _is_binary(lines, task) else [task]


def _is_binary(lines: Sequence[Row], column: str) -> bool:
    """Return whether most values of a column that are not missing are 0/1, -1/1 or false/true."""
    values = [value for row in lines if row.labelled and (value := row.values[column].lower()) not in _MISSING]
    return 2 * sum(value in _TRUTH for value in values) > len(values)


def _fault(values: dict[str, str], root: Path, targets: Sequence[str], *, multilabel: bool) -> str | None:
    """Return why a row cannot be used (column, value and the fix), None if it can."""
    for target in targets:
        if values[target].lower() in _MISSING:
            return f"column {target}: the label is missing ({values[target]!r})"
        if multilabel and values[target].lower() not in _TRUTH:
            return (
                f"column {target}: {values[target]!r} is not 0 or 1, as each of several labels must be; "
                "to use one column, give its name as `task`"
            )
    if SPLIT in values and values[SPLIT] not in ALL_SPLITS:
        return f"column {SPLIT}: {values[SPLIT]!r} is not train, val, test or unlabelled"
    file = root / values[FILE]
    if not values[FILE] or not file.exists():
        return f"column {FILE}: there is no file {values[FILE]!r} in {root}"
    if file.is_dir() and not is_zarr(file):
        return f"column {FILE}: {values[FILE]!r} is a folder"
    return None


def _classes(path: Path, good: Sequence[Row], target: str) -> tuple[tuple[str, ...], Int[np.ndarray, " N"]]:
    """Return the classes of one column and the label of each row. Raises UserError for a target of regression."""
    values = [row.values[target] for row in good if row.labelled]
    classes = in_order(values)
    numbers = [number for name in classes if (number := _number(name)) is not None]
    measured = len(numbers) == len(classes) and any(number % 1 for number in numbers)
    if measured and len(classes) > min(_DISTINCT, len(values) / 3):
        raise UserError(
            f"{path}: column {target} has {len(classes)} different numbers for {len(values)} images, and regression "
            "is not supported; give classes"
        )
    of = {name: which for which, name in enumerate(classes)}
    labels = [of[row.values[target]] if row.labelled else NO_LABEL for row in good]
    return classes, np.array(labels, dtype=np.int64)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _signs(path: Path, good: Sequence[Row], targets: Sequence[str]) -> Int[np.ndarray, "N K"]:
    """Return labels 0/1. A column with both 0 and -1 is refused, because one of them may mean unknown."""
    labelled = [row for row in good if row.labelled]
    signs = np.array([[_TRUTH[row.values[t].lower()] for t in targets] for row in labelled], dtype=np.int64)
    signs = signs.reshape(len(labelled), len(targets))
    for column, target in enumerate(targets):
        if {-1, 0} <= set(signs[:, column].tolist()):
            line = labelled[int((signs[:, column] == -1).argmax())].line
            raise UserError(f"{path} line {line}, column {target}: has -1 beside 0 and 1; write 0/1 or -1/1")
    labels = np.full((len(good), len(targets)), NO_LABEL, dtype=np.int64)
    labels[[row.labelled for row in good]] = signs > 0
    return labels
