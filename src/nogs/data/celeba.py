"""CelebA in its official layout: photographs of faces, 40 attributes each.

``img_align_celeba/*.jpg``, ``list_attr_celeba.txt`` (a count, the attributes' names, then a row an image of
-1 or 1), ``list_eval_partition.txt`` (0 train, 1 val, 2 test) and, optionally, ``identity_CelebA.txt`` (a
number a person) and ``celebahq_index.txt`` (the CelebA-HQ index of each image that has one). Liu et al. (2015),
"Deep learning face attributes in the wild". An image without a row is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nogs.data.listing import Annotations, Faults, Listing
from nogs.errors import UserError

IMAGES = "img_align_celeba"
ATTRIBUTES = "list_attr_celeba.txt"
PARTITION = "list_eval_partition.txt"
IDENTITY = "identity_CelebA.txt"
CELEBAHQ = "celebahq_index.txt"
_SIGNS = {"1", "-1"}


def celeba(root: Path, faults: Faults) -> Listing:
    """The images that the attribute file names, under labels [N, 40]; people are groups where known."""
    for name in (IMAGES, ATTRIBUTES, PARTITION):
        if not (root / name).exists():
            raise UserError(f"--data celeba:{root}: {name} is missing; unpack it there as CelebA publishes it")
    table = Attributes(root / ATTRIBUTES)
    present = {entry.name for entry in os.scandir(root / IMAGES)}
    partition = numbers(root / PARTITION)
    identity = numbers(root / IDENTITY) if (root / IDENTITY).exists() else None
    names: list[str] = []
    labels: list[list[bool]] = []
    for where, name, values in table.rows(faults):
        if name not in present:
            faults.add(where, f"there is no such image in {root / IMAGES}")
        elif partition.get(name) not in (0, 1, 2):
            faults.add(where, f"{PARTITION} has no 0, 1 or 2 for this image")
        elif identity is not None and name not in identity:
            faults.add(where, f"{IDENTITY} has no number for this image")
        else:
            names.append(name)
            labels.append(values)
    files = tuple(root / IMAGES / name for name in names)
    return Listing(
        files=files,
        where=tuple(map(str, files)),
        about=Annotations(
            names=tuple(names),
            labels=np.array(labels, dtype=np.int64).reshape(len(names), len(table.names)),
            classes=table.names,
            split=np.array([partition[name] for name in names], dtype=np.int64),
            groups=None if identity is None else np.array([identity[name] for name in names], dtype=np.int64),
        ),
    )


class Attributes:
    """A file of attributes: a count, a line of their ``names``, then a row an image of -1 or 1."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        if len(self._lines) < 3 or not self._lines[0].strip().isdigit():
            raise UserError(f"{file}: not CelebA's format: a count, then a line of attribute names, then the rows")
        self.names = tuple(self._lines[1].split())

    def rows(self, faults: Faults) -> Iterator[tuple[str, str, list[bool]]]:
        """Where each row is, its image and its attributes; rows that do not parse become faults."""
        for number, line in enumerate(self._lines[2:], start=3):
            if not line.split():
                continue
            name, *values = line.split()
            where = f"{self._file} line {number} ({name})"
            if len(values) != len(self.names):
                faults.add(where, f"has {len(values)} values for {len(self.names)} attributes")
            elif not _SIGNS.issuperset(values):
                column = next(i for i, value in enumerate(values) if value not in _SIGNS)
                faults.add(where, f"{self.names[column]} is {values[column]!r}, not -1 or 1")
            else:
                yield where, name, [value == "1" for value in values]


def names_by_index(root: Path) -> dict[int, str]:
    """CelebA-HQ index → file name, of the images in ``root`` that are also in CelebA-HQ."""
    file = root / CELEBAHQ
    return {index: name for name, index in numbers(file).items()} if file.exists() else {}


def numbers(file: Path) -> dict[str, int]:
    """File name → number, of a file of such pairs."""
    found: dict[str, int] = {}
    for line, text in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        fields = text.split()
        if len(fields) == 2 and fields[1].isdigit():
            found[fields[0]] = int(fields[1])
        elif fields:
            raise UserError(f"{file} line {line}: {text!r} is not a file name and a number")
    return found
