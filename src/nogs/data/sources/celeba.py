"""CelebA in its official layout: photographs of faces, 40 attributes each.

``img_align_celeba/*.jpg``, ``list_attr_celeba.txt`` (a count, the attributes' names, then a row an image of
-1 or 1), ``list_eval_partition.txt`` (0 train, 1 val, 2 test) and, optionally, ``identity_CelebA.txt`` (a
number a person) and ``celebahq_index.txt`` (the CelebA-HQ index of each image that has one). Liu et al. (2015),
"Deep learning face attributes in the wild". An image without a row is left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from nogs.data.listing import Annotations, Faults, Listing, by_path
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
            raise UserError(f"data=celeba:{root}: {name} is missing; unpack it there as CelebA publishes it")
    present = {entry.name for entry in os.scandir(root / IMAGES)}
    partition = numbers(root / PARTITION)
    identity = numbers(root / IDENTITY) if (root / IDENTITY).exists() else None

    def fault(name: str) -> str | None:
        if name not in present:
            return f"there is no such image in {root / IMAGES}"
        if partition.get(name) not in (0, 1, 2):
            return f"{PARTITION} has no 0, 1 or 2 for this image"
        if identity is not None and name not in identity:
            return f"{IDENTITY} has no number for this image"
        return None

    names, labels, classes = attributes(root / ATTRIBUTES, faults, fault=fault)
    about = Annotations(
        names=names,
        labels=labels,
        classes=classes,
        split=np.array([partition[name] for name in names], dtype=np.int64),
        groups=None if identity is None else np.array([identity[name] for name in names], dtype=np.int64),
    )
    return by_path([root / IMAGES / name for name in names], about)


class Attributes(NamedTuple):
    """N images by name, and which of the K attributes they have."""

    names: tuple[str, ...]
    labels: Int[np.ndarray, "N K"]
    classes: tuple[str, ...]


def attributes(file: Path, faults: Faults, *, fault: Callable[[str], str | None]) -> Attributes:
    """Read a file of attributes: a count, a line of their names, then a row an image of -1 or 1.

    Rows that do not parse, and images that there is a ``fault`` with, become faults.
    """
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    if len(lines) < 3 or not lines[0].strip().isdigit():
        raise UserError(f"{file}: not CelebA's format: a count, then a line of attribute names, then the rows")
    classes = tuple(lines[1].split())
    names: list[str] = []
    labels: list[list[bool]] = []
    for number, line in enumerate(lines[2:], start=3):
        if not line.split():
            continue
        name, *values = line.split()
        if reason := _misread(values, classes) or fault(name):
            faults.add(f"{file} line {number} ({name})", reason)
        else:
            names.append(name)
            labels.append([value == "1" for value in values])
    return Attributes(tuple(names), np.array(labels, dtype=np.int64).reshape(len(names), len(classes)), classes)


def _misread(values: list[str], classes: tuple[str, ...]) -> str | None:
    """Why a row's values are no attributes, if they are none."""
    if len(values) != len(classes):
        return f"has {len(values)} values for {len(classes)} attributes"
    for name, value in zip(classes, values, strict=True):
        if value not in _SIGNS:
            return f"{name} is {value!r}, not -1 or 1"
    return None


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
