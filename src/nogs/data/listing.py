"""Results of a data source: names, labels, splits and groups, with images in files or in memory; and bad rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from nogs.data.drawn import Drawn
from nogs.data.frame import Box, Cut
from nogs.data.imageset import ALL_SPLITS
from nogs.data.notices import notice
from nogs.errors import UserError

LISTED = 10
"""Number of bad files and rows that a notice names."""


@dataclass(frozen=True)
class Annotations:
    """An ImageSet without its pixels.

    ``split`` and ``groups``: None if the source has none. ``task``: the label of ``labels``, if the source has several
    and read only this one.
    """

    names: tuple[str, ...]
    labels: Int[np.ndarray, " N"] | Int[np.ndarray, "N K"]
    classes: tuple[str, ...]
    split: Int[np.ndarray, " N"] | None = None
    groups: Int[np.ndarray, " N"] | None = None
    task: str | None = None

    def keep(self, rows: Int[np.ndarray, " M"]) -> Annotations:
        """Return the annotations of these rows."""
        return Annotations(
            names=tuple(self.names[row] for row in rows),
            labels=self.labels[rows],
            classes=self.classes,
            split=None if self.split is None else self.split[rows],
            groups=None if self.groups is None else self.groups[rows],
            task=self.task,
        )


class Listing(NamedTuple):
    """Image files that are still to be decoded, and their annotations.

    ``where``: how errors name each file (a path, or a table and its row). ``boxes``: the part of each image to keep.
    """

    files: tuple[Path, ...]
    where: tuple[str, ...]
    about: Annotations
    boxes: tuple[Box, ...] | None = None


class Arrays(NamedTuple):
    """Images in memory, or to be drawn, and their annotations."""

    images: UInt8[np.ndarray, "N c H H"] | Drawn
    about: Annotations


@dataclass
class About:
    """Facts about files, in addition to their pixels. Files are identified by their index.

    ``bad``: the reason why a file has no image. ``twins``: pairs of files with the same pixels, the first such file
    with every later one. ``cut``: the area that cropping removes.
    """

    bad: dict[int, str]
    twins: list[tuple[int, int]]
    cut: Cut

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> About:
        """Return the facts from the fields of this class as JSON has them."""
        bad = {int(index): str(reason) for index, reason in content["bad"].items()}
        images, largest = content["cut"]
        return cls(bad, [(int(i), int(j)) for i, j in content["twins"]], Cut(int(images), float(largest)))


def by_path(files: Sequence[Path], about: Annotations, *, boxes: Sequence[Box] | None = None) -> Listing:
    """Return the listing of files that errors name by their paths."""
    return Listing(tuple(files), tuple(map(str, files)), about, None if boxes is None else tuple(boxes))


@dataclass
class Faults:
    """Files and rows that cannot be used. With ``skip`` they are left out and listed; otherwise they are an error."""

    skip: bool
    found: list[tuple[str, str]] = field(default_factory=list)

    def add(self, where: str, reason: str) -> None:
        self.found.append((where, reason))

    def stop(self) -> None:
        """Raise UserError for the first fault, with the count of all, unless faults are skipped."""
        if self.found and not self.skip:
            where, reason = self.found[0]
            count = f" ({len(self.found)} such in all)" if len(self.found) > 1 else ""
            raise UserError(f"{where}: {reason}{count}; mend it, or add skip_bad=True to leave it out")

    def warn(self) -> None:
        """List on stderr the files and rows that were left out."""
        if not self.found:
            return
        lines = [f"left out {len(self.found)} that cannot be used:"]
        lines += [f"  {where}: {reason}" for where, reason in self.found[:LISTED]]
        if len(self.found) > LISTED:
            lines.append(f"  ... and {len(self.found) - LISTED} more")
        notice("\n".join(lines))


def in_order(classes: Iterable[str]) -> tuple[str, ...]:
    """Return distinct class names, sorted; by value if all are integers."""
    distinct = sorted(set(classes))
    try:
        return tuple(sorted(distinct, key=int))
    except ValueError:
        return tuple(distinct)


def split_numbers(names: Iterable[str]) -> Int[np.ndarray, " N"]:
    """Return the number of each split by name, as in `ImageSet.split`, and -1 for a name that is not one."""
    numbers = {str(name): which for which, name in enumerate(ALL_SPLITS)}
    return np.array([numbers.get(name, -1) for name in names], dtype=np.int64)
