"""Read Caltech-UCSD Birds in its official layout: 200 species, cropped to their bounding boxes.

``images.txt``, ``image_class_labels.txt``, ``train_test_split.txt`` and ``bounding_boxes.txt`` have a row per image,
which begins with its number. ``classes.txt`` names the species. The images are in ``images/``, and their names are
those in ``images.txt``. Wah et al. (2011), "The Caltech-UCSD Birds-200-2011 dataset".

As in *Near-Optimal Glimpse Sequences*, an image is cropped to the square around the centre of its box whose side is
1.5 times the longer side of the box. The part of that square on the image is resized to a square, so ``fit`` changes
nothing. The splits are the official ones. They have no val: the paper takes every sixth training image, we draw it
by seed.

``parts/part_locs.txt`` and ``parts/parts.txt`` have the places of beak, eyes and other parts, for hand-crafted
sequences.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from nogs.config.groups import Source
from nogs.data.files import check_present, check_regular, is_number, read_lines
from nogs.data.frame import Box
from nogs.data.imageset import SPLITS
from nogs.data.listing import Annotations, Faults, Listing, by_path
from nogs.errors import UserError

IMAGES, NAMES, CLASSES = "images", "images.txt", "classes.txt"
LABELS, SPLIT, BOXES = "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt"
PART_NAMES = "parts.txt"
MARGIN = 0.75
"""Half of the crop's side, in units of the longer side of the box: as published."""
MAX_PX = 1e6
"""Largest coordinate in pixels that is accepted."""

Point = tuple[float, float]
"""(row, column) in pixels."""


def cub(root: Path, source: Source, faults: Faults) -> Listing:
    """Return the images of images.txt. Those without a file, species, split or box become faults."""
    check_present("cub", root, (IMAGES, NAMES, CLASSES, LABELS, SPLIT, BOXES))
    classes = {number: name for number, (name,) in _rows(root / CLASSES, 1).items()}
    order = {number: which for which, number in enumerate(classes)}
    species, official, boxes = _rows(root / LABELS, 1), _rows(root / SPLIT, 1), _rows(root / BOXES, 4)
    names: list[str] = []
    labels: list[int] = []
    split: list[int] = []
    crops: list[Box] = []
    for number, (name,) in _rows(root / NAMES, 1).items():
        where = f"{root / NAMES} image {number} ({name})"
        if not (root / IMAGES / name).is_file():
            faults.add(where, f"there is no such image in {root / IMAGES}")
        elif species.get(number, [""])[0] not in order:
            faults.add(where, f"{LABELS} has no class of {CLASSES} for this image")
        elif official.get(number) not in (["0"], ["1"]):
            faults.add(where, f"{SPLIT} has no 0 or 1 for this image")
        elif (crop := _crop(boxes.get(number, []))) is None:
            faults.add(where, f"{BOXES} has no x, y, width and height for this image")
        else:
            names.append(name)
            labels.append(order[species[number][0]])
            split.append(SPLITS.index("train" if official[number] == ["1"] else "test"))
            crops.append(crop)
    about = Annotations(
        names=tuple(names),
        labels=np.array(labels, dtype=np.int64),
        classes=tuple(classes.values()),
        split=np.array(split, dtype=np.int64),
    )
    return by_path([root / IMAGES / name for name in names], about, boxes=crops)


def cub_parts(root: Path, locations: Path, *, image_px: int) -> dict[str, dict[str, Point]]:
    """Return image → part → (row, column) of its visible parts, in pixels of its square of side ``image_px``.

    ``locations``: the published part_locs.txt, with parts.txt beside it. A left and a right part count as one, at the
    first that is visible. Legs are called feet, as in the paper.
    """
    if not (locations.parent / PART_NAMES).exists():
        raise UserError(f"parts={locations}: {PART_NAMES} must lie beside it; unpack it there as it is published")
    called = {number: _plain(" ".join(words)) for number, words in _rows(locations.parent / PART_NAMES, None).items()}
    names, boxes = _rows(root / NAMES, 1), _rows(root / BOXES, 4)
    crops: dict[str, Box] = {}
    places: dict[str, dict[str, Point]] = {}
    for line, text in enumerate(read_lines(locations), start=1):
        number, part, *place = text.split() if len(text.split()) > 1 else ("", "")
        where = f"{locations} line {line}"
        if number not in names or part not in called or len(place) != 3:
            raise UserError(f"{where}: {text!r} is not an image, a part, x, y and 0 or 1")
        name = names[number][0]
        parts = places.setdefault(name, {})
        if place[2] != "1" or called[part] in parts:
            continue
        if name not in crops:
            crop = _crop(boxes.get(number, []))
            if crop is None:
                raise UserError(f"{root / BOXES}: has no x, y, width and height for image {number}; mend it")
            check_regular(root / IMAGES / name)
            with Image.open(root / IMAGES / name) as image:
                crops[name] = crop.within(*image.size)
        crop = crops[name]
        x, y = _number(place[0], where), _number(place[1], where)
        row = (y - crop.top) * image_px / (crop.bottom - crop.top)
        parts[called[part]] = (row, (x - crop.left) * image_px / (crop.right - crop.left))
    return places


def _rows(file: Path, fields: int | None) -> dict[str, list[str]]:
    """Return number → the ``fields`` strings after it (None: one or more), from a file of such rows."""
    rows: dict[str, list[str]] = {}
    for line, text in enumerate(read_lines(file), start=1):
        number, *rest = text.split() or [""]
        if not number:
            continue
        if not is_number(number) or not rest or (fields is not None and len(rest) != fields):
            raise UserError(f"{file} line {line}: {text!r} is not a number and {fields or 'one or more'} fields")
        if number in rows:
            raise UserError(f"{file} line {line}: {number} is there twice; remove one")
        rows[number] = rest
    return rows


def _crop(box: list[str]) -> Box | None:
    """Return the square around a box of x, y, width and height in pixels; None if the strings are not such a box.

    The square may reach over the border of the image.
    """
    try:
        x, y, width, height = map(float, box)
    except ValueError:
        return None
    if not (width > 0 and height > 0 and max(map(abs, (x, y, width, height))) < MAX_PX):
        return None
    half = int(max(width, height) * MARGIN)
    column, row = int(x + width / 2), int(y + height / 2)
    return Box(column - half, row - half, column + half, row + half)


def _plain(part: str) -> str:
    side_less = part.removeprefix("left ").removeprefix("right ")
    return "feet" if side_less == "leg" else side_less


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{where}: {text!r} is not a number of pixels") from None
