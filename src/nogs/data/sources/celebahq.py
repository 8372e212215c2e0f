"""CelebA-HQ by index, with the splits of the paper: 30,000 photographs of faces, 40 attributes each.

``CelebAMask-HQ-attribute-anno.txt`` (a count, the attributes' names, then a row an image of -1 or 1, as
``0.jpg``), and the images in ``CelebA-HQ-img`` or in a folder whose name begins with ``data``, each called by
its index: ``0.jpg``, ``00000.jpg`` or ``imgHQ00000.png``. Karras et al. (2018), "Progressive growing of GANs";
Lee et al. (2020), "MaskGAN", for the annotations. An image's name is its index.

The splits are those of *Near-Optimal Glimpse Sequences*, as in its published code: train is the first 27,000
images, val the next 500, test the last 2,500. There are sequences for the first 600.

Where ``CelebA-HQ-to-CelebA-mapping.txt`` and ``identity_CelebA.txt`` are there too, people are groups. Splits
by index know nothing of people, and some people are in two: a group is a person's images within one split.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from jaxtyping import Int

from nogs.data.imageset import SPLITS
from nogs.data.listing import Annotations, Faults, Listing, by_path
from nogs.data.sources.celeba import IDENTITY, attributes, numbers
from nogs.errors import UserError

ATTRIBUTES = "CelebAMask-HQ-attribute-anno.txt"
IMAGES = "CelebA-HQ-img"
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
SPLIT_BEGINS = (0, 27_000, 27_500)


def celebahq(root: Path, faults: Faults) -> Listing:
    """The images that the attribute file names, under labels [N, 40]."""
    if not (root / ATTRIBUTES).exists():
        raise UserError(f"data=celebahq:{root}: {ATTRIBUTES} is missing; unpack it there as it is published")
    place = _images(root)
    files = {index: place / entry.name for entry in os.scandir(place) if (index := _index(entry.name)) is not None}
    person = _people(root)

    def fault(name: str) -> str | None:
        index = _index(name)
        if index is None:
            return "its name has no index"
        if index not in files:
            return f"there is no image {index} in {place}"
        if person is not None and index not in person:
            return f"{MAPPING} and {IDENTITY} name nobody for image {index}"
        return None

    names, labels, classes = attributes(root / ATTRIBUTES, faults, fault=fault)
    indices = [index for name in names if (index := _index(name)) is not None]
    split = np.searchsorted(SPLIT_BEGINS, indices, side="right") - 1
    groups = None if person is None else np.array([person[index] for index in indices], dtype=np.int64)
    about = Annotations(
        names=tuple(map(str, indices)),
        labels=labels,
        classes=classes,
        split=split.astype(np.int64),
        groups=None if groups is None else _within_splits(groups, split),
    )
    return by_path([files[index] for index in indices], about)


def _images(root: Path) -> Path:
    """The one folder of images."""
    places = [place for place in (root / IMAGES, *sorted(root.glob("data*"))) if place.is_dir()]
    if not places:
        raise UserError(f"data=celebahq:{root}: has no folder {IMAGES}, nor one called data...; put the images there")
    if len(places) > 1:
        raise UserError(f"data=celebahq:{root}: images may be in {places[0].name} or {places[1].name}; leave one")
    return places[0]


def _index(name: str) -> int | None:
    found = re.search(r"(\d+)$", Path(name).stem)
    return int(found[1]) if found else None


def _people(root: Path) -> dict[int, int] | None:
    """Index → person, by way of CelebA's file names; None where that is not known."""
    if not (root / MAPPING).exists() or not (root / IDENTITY).exists():
        return None
    identity = numbers(root / IDENTITY)
    people: dict[int, int] = {}
    for line, text in enumerate((root / MAPPING).read_text(encoding="utf-8").splitlines(), start=1):
        fields = text.split()
        if len(fields) == 3 and fields[0].isdigit():
            if fields[2] in identity:
                people[int(fields[0])] = identity[fields[2]]
        elif fields and line > 1:  # the first line is a header
            raise UserError(f"{root / MAPPING} line {line}: {text!r} is not an index, another and a file name")
    return people


def _within_splits(people: Int[np.ndarray, " N"], split: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    return people * len(SPLITS) + split
