"""Read CelebA in its official layout: photographs of faces with 40 attributes (Liu et al. 2015).

===========================  ===================================================================
``img_align_celeba/*.jpg``   images; those without a row in the attribute file are left out
``list_attr_celeba.txt``     a count, the names of the attributes, then per image a row of -1 or 1
``list_eval_partition.txt``  per image 0 (train), 1 (val) or 2 (test)
``identity_CelebA.txt``      optional: per image the number of the person, which becomes its group
``celebahq_index.txt``       optional: the CelebA-HQ index of each image that has one
===========================  ===================================================================

Liu, Luo, Wang and Tang (2015), "Deep learning face attributes in the wild".
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from nogs.config.groups import Source
from nogs.data.files import check_present, is_number, read_lines
from nogs.data.listing import Annotations, Faults, Listing, by_path
from nogs.errors import UserError

IMAGES = "img_align_celeba"
ATTRIBUTES = "list_attr_celeba.txt"
PARTITION = "list_eval_partition.txt"
IDENTITY = "identity_CelebA.txt"
CELEBAHQ = "celebahq_index.txt"
_SIGNS = {"1", "-1"}


def celeba(root: Path, source: Source, faults: Faults) -> Listing:
    """Return the images of the attribute file, with labels [N, 40]."""
    check_present("celeba", root, (IMAGES, ATTRIBUTES, PARTITION))
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
    """Names of N images, their labels 0/1 for K attributes, and the names of the attributes."""

    names: tuple[str, ...]
    labels: Int[np.ndarray, "N K"]
    classes: tuple[str, ...]


def attributes(file: Path, faults: Faults, *, fault: Callable[[str], str | None]) -> Attributes:
    """Read an attribute file: a count, a line of attribute names, then a row of -1 or 1 per image.

    ``fault`` returns why an image cannot be used, None if it can. Such images become faults, and so do rows that do
    not parse.
    """
    lines = read_lines(file)
    if len(lines) < 3 or not is_number(lines[0].strip()):
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
    """Return why the values of a row are not attributes, None if they are."""
    if len(values) != len(classes):
        return f"has {len(values)} values for {len(classes)} attributes"
    for name, value in zip(classes, values, strict=True):
        if value not in _SIGNS:
            return f"{name} is {value!r}, not -1 or 1"
    return None


def names_by_index(root: Path) -> dict[int, str]:
    """Return CelebA-HQ index → file name, for the images in ``root`` that are also in CelebA-HQ."""
    file = root / CELEBAHQ
    return {index: name for name, index in numbers(file).items()} if file.exists() else {}


def numbers(file: Path) -> dict[str, int]:
    """Return file name → number, from a file of such pairs."""
    pairs: dict[str, int] = {}
    for line, text in enumerate(read_lines(file), start=1):
        fields = text.split()
        if len(fields) == 2 and is_number(fields[1]):
            pairs[fields[0]] = int(fields[1])
        elif fields:
            raise UserError(f"{file} line {line}: {text!r} is not a file name and a number")
    return pairs
