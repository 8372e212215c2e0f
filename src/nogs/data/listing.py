"""What a source knows before any pixel is decoded: names, labels, splits, people; and what is bad."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from nogs.data.decode import Box
from nogs.errors import UserError

LISTED = 10  # bad files that a warning names


@dataclass(frozen=True)
class Annotations:
    """All of an ImageSet but its pixels. ``split`` and ``groups`` are None where the source has none."""

    names: tuple[str, ...]
    labels: Int[np.ndarray, " N"] | Int[np.ndarray, "N K"]
    classes: tuple[str, ...]
    split: Int[np.ndarray, " N"] | None = None
    groups: Int[np.ndarray, " N"] | None = None

    def keep(self, rows: Int[np.ndarray, " M"]) -> Annotations:
        """The same, of these rows only."""
        return Annotations(
            names=tuple(self.names[row] for row in rows),
            labels=self.labels[rows],
            classes=self.classes,
            split=None if self.split is None else self.split[rows],
            groups=None if self.groups is None else self.groups[rows],
        )


class Listing(NamedTuple):
    """Image files, what errors call each (a path, or a file and its row), and what is known of them.

    With ``boxes``, only that part of each image is kept.
    """

    files: tuple[Path, ...]
    where: tuple[str, ...]
    about: Annotations
    boxes: tuple[Box, ...] | None = None


def by_path(files: Sequence[Path], about: Annotations, *, boxes: Sequence[Box] | None = None) -> Listing:
    """The listing of files that errors call by their paths."""
    return Listing(tuple(files), tuple(map(str, files)), about, None if boxes is None else tuple(boxes))


@dataclass
class Faults:
    """Files and rows that cannot be used: with ``skip`` they are left out and listed, else they stop us."""

    skip: bool
    found: list[tuple[str, str]] = field(default_factory=list)

    def add(self, where: str, reason: str) -> None:
        self.found.append((where, reason))

    def stop(self) -> None:
        """Raise UserError for the first, with the count of all, unless they are to be skipped."""
        if self.found and not self.skip:
            where, reason = self.found[0]
            count = f" ({len(self.found)} such in all)" if len(self.found) > 1 else ""
            raise UserError(f"{where}: {reason}{count}; mend it, or add skip_bad=True to leave it out")

    def warn(self) -> None:
        """List on stderr what was left out."""
        if not self.found:
            return
        print(f"warning: left out {len(self.found)} that cannot be used:", file=sys.stderr)
        for where, reason in self.found[:LISTED]:
            print(f"  {where}: {reason}", file=sys.stderr)
        if len(self.found) > LISTED:
            print(f"  ... and {len(self.found) - LISTED} more", file=sys.stderr)


def in_order(classes: Iterable[str]) -> tuple[str, ...]:
    """Distinct class names, sorted; by value where all are integers."""
    distinct = sorted(set(classes))
    try:
        return tuple(sorted(distinct, key=int))
    except ValueError:
        return tuple(distinct)
