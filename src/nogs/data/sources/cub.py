"""Caltech-UCSD Birds in its official layout: 200 species, cropped to their bounding boxes.

``images.txt``, ``image_class_labels.txt``, ``train_test_split.txt`` and ``bounding_boxes.txt`` (a row an image,
which begins with its number), ``classes.txt``, and the images in ``images/``. Wah et al. (2011), "The
Caltech-UCSD Birds-200-2011 dataset". An image's name is what ``images.txt`` says.

As in *Near-Optimal Glimpse Sequences*, an image is cropped to the square about the centre of its box whose side
is 1.5 times the box's longer one, or to what of it lies on the image, and resized to a square. The splits are
the official ones; they have no val, which the paper takes at every sixth training image and we draw by seed.

``parts/part_locs.txt`` and ``parts/parts.txt`` say where beak, eyes and so on are: material for hand-crafted
sequences.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from nogs.data.decode import Box
from nogs.data.imageset import SPLITS
from nogs.data.listing import Annotations, Faults, Listing, by_path
from nogs.errors import UserError

IMAGES, NAMES, CLASSES = "images", "images.txt", "classes.txt"
LABELS, SPLIT, BOXES = "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt"
PART_NAMES = "parts.txt"
MARGIN = 0.75  # half of the crop's side, in units of the box's longer side: as published

Point = tuple[float, float]
"""(row, column) in pixels."""


def cub(root: Path, faults: Faults) -> Listing:
    """The images that images.txt names, of which a file, a species, a split and a box are known."""
    for name in (IMAGES, NAMES, CLASSES, LABELS, SPLIT, BOXES):
        if not (root / name).exists():
            raise UserError(f"data=cub:{root}: {name} is missing; unpack it there as it is published")
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
    """Of each image, the visible parts' places in pixels of its square of side ``image_px``.

    ``locations`` is the published part_locs.txt; parts.txt lies beside it. Left and right are one part,
    of which the first visible is taken; legs are called feet, as in the paper.
    """
    if not (locations.parent / PART_NAMES).exists():
        raise UserError(f"parts={locations}: {PART_NAMES} must lie beside it; unpack it there as it is published")
    called = {number: _plain(" ".join(words)) for number, words in _rows(locations.parent / PART_NAMES, None).items()}
    names, boxes = _rows(root / NAMES, 1), _rows(root / BOXES, 4)
    crops: dict[str, Box] = {}
    found: dict[str, dict[str, Point]] = {}
    for line, text in enumerate(locations.read_text(encoding="utf-8").splitlines(), start=1):
        number, part, *place = text.split() if len(text.split()) > 1 else ("", "")
        where = f"{locations} line {line}"
        if number not in names or part not in called or len(place) != 3:
            raise UserError(f"{where}: {text!r} is not an image, a part, x, y and 0 or 1")
        name = names[number][0]
        parts = found.setdefault(name, {})
        if place[2] != "1" or called[part] in parts:
            continue
        if name not in crops:
            crop = _crop(boxes.get(number, []))
            if crop is None:
                raise UserError(f"{root / BOXES}: has no x, y, width and height for image {number}; mend it")
            with Image.open(root / IMAGES / name) as image:
                crops[name] = crop.within(*image.size)
        crop = crops[name]
        x, y = _number(place[0], where), _number(place[1], where)
        row = (y - crop.top) * image_px / (crop.bottom - crop.top)
        parts[called[part]] = (row, (x - crop.left) * image_px / (crop.right - crop.left))
    return found


def _rows(file: Path, fields: int | None) -> dict[str, list[str]]:
    """Number → the ``fields`` after it (None: one or more), of a file of such rows."""
    rows: dict[str, list[str]] = {}
    for line, text in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        number, *rest = text.split() or [""]
        if not number:
            continue
        if not number.isdigit() or not rest or (fields is not None and len(rest) != fields):
            raise UserError(f"{file} line {line}: {text!r} is not a number and {fields or 'one or more'} fields")
        if number in rows:
            raise UserError(f"{file} line {line}: {number} is there twice; remove one")
        rows[number] = rest
    return rows


def _crop(box: list[str]) -> Box | None:
    """The square about a box of x, y, width and height; None if it is no box. It may reach over the border."""
    try:
        x, y, width, height = map(float, box)
    except ValueError:
        return None
    if not (width > 0 and height > 0):
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
