"""Read CelebA-HQ by index, with the splits of the paper: 30,000 photographs of faces with 40 attributes.

``CelebAMask-HQ-attribute-anno.txt`` holds a count, the names of the attributes, then per image a row of -1 or 1. The
images are in ``CelebA-HQ-img``, or in a folder whose name begins with ``data``. The file name of an image ends in its
index (``0.jpg``, ``00000.jpg``, ``imgHQ00000.png``), and its name in the set is that index. Karras et al. (2018),
"Progressive growing of GANs"; for the annotations Lee et al. (2020), "MaskGAN".

The splits are those of *Near-Optimal Glimpse Sequences*, as in its published code: train is the first 27,000
images, val the next 500, test the last 2,500. The published sequences are of the first 600 images.

With ``CelebA-HQ-to-CelebA-mapping.txt`` and ``identity_CelebA.txt`` beside them, images of one person are a group.
The splits by index put some people in two splits, so a group is the images of a person within one split.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from jaxtyping import Int

from nogs.config.groups import Source
from nogs.data.files import check_present, is_number, read_lines
from nogs.data.imageset import SPLITS
from nogs.data.listing import Annotations, Faults, Listing, by_path
from nogs.data.sources.celeba import IDENTITY, attributes, numbers
from nogs.errors import UserError

ATTRIBUTES = "CelebAMask-HQ-attribute-anno.txt"
IMAGES = "CelebA-HQ-img"
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
SPLIT_BEGINS = (0, 27_000, 27_500)


def celebahq(root: Path, source: Source, faults: Faults) -> Listing:
    """Return the images of the attribute file, with labels [N, 40]."""
    check_present("celebahq", root, (ATTRIBUTES,))
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
            return f"{MAPPING} and {IDENTITY} have no person for image {index}"
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
    """Return the folder of images. Raises UserError unless there is exactly one."""
    places = [place for place in (root / IMAGES, *sorted(root.glob("data*"))) if place.is_dir()]
    if not places:
        raise UserError(f"data=celebahq:{root}: has no folder {IMAGES}, nor one called data...; put the images there")
    if len(places) > 1:
        raise UserError(f"data=celebahq:{root}: images may be in {places[0].name} or {places[1].name}; leave one")
    return places[0]


def _index(name: str) -> int | None:
    digits = re.search(r"[0-9]{1,18}$", Path(name).stem)
    return int(digits[0]) if digits else None


def _people(root: Path) -> dict[int, int] | None:
    """Return index → person, through the file names of CelebA; None if one of the two files is missing."""
    if not (root / MAPPING).exists() or not (root / IDENTITY).exists():
        return None
    identity = numbers(root / IDENTITY)
    people: dict[int, int] = {}
    for line, text in enumerate(read_lines(root / MAPPING), start=1):
        fields = text.split()
        if len(fields) == 3 and is_number(fields[0]):
            if fields[2] in identity:
                people[int(fields[0])] = identity[fields[2]]
        elif fields and line > 1:  # the first line is a header
            raise UserError(f"{root / MAPPING} line {line}: {text!r} is not an index, another and a file name")
    return people


def _within_splits(people: Int[np.ndarray, " N"], split: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    return people * len(SPLITS) + split
