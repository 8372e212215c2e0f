"""File formats of glimpse sequences: CSV, a folder of text files, and the published archive.

A glimpse is the (row, column) of its top-left pixel.

- CSV: ``image,task,step,row,col,eig_nats``, one row for each glimpse. Steps count from 1. The last column, the gain
  that the glimpse was chosen for, may be empty. The column task is empty if there are no tasks.
- text: one file ``NAME.txt`` for each image, with a line ``row, col`` for each glimpse, as published with
  *Near-Optimal Glimpse Sequences*.
- archive: the published sequences in one NumPy file, ``sequences`` [40 attributes, 600 images of CelebA-HQ by index,
  5 glimpses, 2], for glimpses of 16 pixels on images of 224 x 224.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Real
from torch import Tensor

from nogs.data.listing import Faults
from nogs.data.sources.table import rows
from nogs.errors import UserError
from nogs.glimpses.grid import Grid

COLUMNS = ("image", "task", "step", "row", "col", "eig_nats")
PUBLISHED_IMAGE_PX, PUBLISHED_GLIMPSE_PX = 224, 16


class Place(NamedTuple):
    """A top-left pixel (row, column), and ``where`` it was read: the file and line, for errors."""

    row: float
    column: float
    where: str


def read_csv(file: Path, faults: Faults, *, task: str | None) -> dict[str, list[Place]]:
    """Return image → glimpses, from the rows of ``task`` (None: of the empty task).

    Rows that do not parse become faults. Raises UserError if a column is missing, or all rows of the task.
    """
    columns, table = rows(file, faults)
    for column in COLUMNS[:-1]:
        if column not in columns:
            raise UserError(
                f"{file}: has no column {column!r} (but {', '.join(columns)}); it needs {','.join(COLUMNS)}"
            )
    tasks = {row.values["task"] for row in table}
    if table and (task or "") not in tasks:
        raise UserError(
            f"{file}: has no row of task {task or '(empty)'}, but of {', '.join(sorted(tasks))}: give `task`"
        )
    steps: dict[str, dict[int, Place]] = {}
    for line, values in table:
        where = f"{file} line {line}"
        if values["task"] != (task or ""):
            continue
        places = steps.setdefault(values["image"], {})
        place = _place(values["row"], values["col"], where, faults)
        if not values["step"].isdigit() or int(values["step"]) < 1:
            faults.add(where, f"column step: {values['step']!r} is not 1, 2, ...")
        elif int(values["step"]) in places:
            faults.add(where, f"step {values['step']} of image {values['image']} is there twice")
        elif place:
            places[int(values["step"])] = place
    for image, places in steps.items():
        if gap := next((step for step in range(1, len(places) + 1) if step not in places), None):
            faults.add(next(iter(places.values())).where, f"image {image} has no step {gap}")
    return {image: [places[step] for step in sorted(places)] for image, places in steps.items()}


def read_text(folder: Path, faults: Faults) -> dict[str, list[Place]]:
    """Return image → glimpses, from every ``NAME.txt`` below the folder. Lines that do not parse become faults."""
    glimpses: dict[str, list[Place]] = {}
    for file in sorted(folder.rglob("*.txt")):
        name = file.relative_to(folder).as_posix().removesuffix(".txt")
        glimpses[name] = []
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            where = f"{file} line {number}"
            fields = [part.strip() for part in line.split(",")]
            if len(fields) != 2:
                faults.add(where, f"{line!r} is not a row, a comma and a column")
            elif place := _place(fields[0], fields[1], where, faults):
                glimpses[name].append(place)
    if not glimpses:
        raise UserError(f"sequences={folder}: has no file NAME.txt; give the folder that holds them")
    return glimpses


def read_published(file: Path, *, attribute: int, attributes: int) -> dict[str, list[Place]]:
    """Return the glimpses of each CelebA-HQ image, by its index, for the attribute of number ``attribute``.

    ``attributes``: number of attributes of the data. Raises UserError if the archive has another number.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            sequences = archive.get("sequences")
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{file}: not a NumPy archive of plain arrays ({error}); give CSV, text or the archive"
        ) from error
    if sequences is None or sequences.ndim != 4 or sequences.shape[-1] != 2:
        raise UserError(f"{file}: has no array sequences [attributes, images, glimpses, 2]; give the published archive")
    if len(sequences) != attributes:
        raise UserError(
            f"{file}: has sequences for {len(sequences)} attributes, but `data` has {attributes} labels: give CelebA's"
        )
    return {
        str(image): [Place(float(row), float(col), f"{file} sequences[{attribute}, {image}]") for row, col in places]
        for image, places in enumerate(sequences[attribute])
    }


def write_csv(
    file: Path,
    names: Sequence[str],
    *,
    task: str | None,
    top_left_px: Int[Tensor, "n T 2"],
    eig_nats: Float[Tensor, "n T"] | None,
) -> None:
    """Write one row for each glimpse. ``names``: of the n images. ``eig_nats``: None leaves the column empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for i, name in enumerate(names):
        for t, (row, column) in enumerate(top_left_px[i].tolist()):
            gain = "" if eig_nats is None else f"{eig_nats[i, t].item():.6g}"
            writer.writerow((name, task or "", t + 1, row, column, gain))
    file.write_text(text.getvalue(), encoding="utf-8")


def write_text(folder: Path, names: Sequence[str], top_left_px: Int[Tensor, "n T 2"]) -> None:
    """Write one file for each image, named after it. Raises UserError for a name that leads out of ``folder``."""
    for name in names:
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise UserError(f"image {name} lies outside its folder, and so would {name}.txt: use format=csv")
    for name, places in zip(names, top_left_px.tolist(), strict=True):
        file = folder / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{row}, {column}\n" for row, column in places), encoding="utf-8")


def check_places(
    places: Mapping[str, list[Place]], faults: Faults, *, glimpses: int, image_px: int
) -> dict[str, list[Place]]:
    """Return the first ``glimpses`` places of each image.

    Images with fewer, or with one outside their ``image_px`` x ``image_px`` pixels, become faults.
    """
    good: dict[str, list[Place]] = {}
    for image, all_places in places.items():
        first = all_places[:glimpses]
        outside = [place for place in first if not (0 <= place.row < image_px and 0 <= place.column < image_px)]
        if len(first) < glimpses:
            where = first[0].where if first else f"image {image}"
            faults.add(where, f"image {image} has {len(first)} glimpses, fewer than glimpses={glimpses}")
        elif outside:
            row, column, where = outside[0]
            faults.add(where, f"({row:g}, {column:g}) is not on an image of sequences_image_size={image_px}")
        else:
            good[image] = first
    return good


def snap(
    top_left_px: Real[Tensor, "*batch 2"], grid: Grid, *, image_px: int, glimpse_px: int | float
) -> Int[Tensor, "*batch"]:
    """Return the cell of ``grid`` whose centre is nearest to the centre of each glimpse.

    ``image_px`` and ``glimpse_px``: side of the images and glimpses that ``top_left_px`` refers to, in their pixels.
    """
    centres_px = (top_left_px.double() + glimpse_px / 2) * (grid.image_px / image_px)
    return grid.nearest_cells(centres_px - grid.glimpse_px / 2)


def _place(row: str, column: str, where: str, faults: Faults) -> Place | None:
    try:
        return Place(float(row), float(column), where)
    except ValueError:
        faults.add(where, f"{row!r}, {column!r} are not a row and a column in pixels")
        return None
