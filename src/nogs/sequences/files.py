"""Glimpse sequences as files that others write and read: CSV, a folder of text files, the published archive.

A glimpse is the (row, column) of its top-left pixel.

- CSV: ``image,task,step,row,col,eig_nats``, a row a glimpse; steps count from 1, and the last column, the gain
  that the glimpse was chosen for, may be empty. Without tasks, the column task is empty.
- text: ``NAME.txt`` an image, ``row, col`` a line: the format that came with *Near-Optimal Glimpse Sequences*.
- archive: those published sequences in one NumPy file, ``sequences`` [40 attributes, 600 images of CelebA-HQ by
  index, 5 glimpses, 2], 16-pixel glimpses at 224 x 224.
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
    """A top-left pixel, and where in which file it was read."""

    row: float
    column: float
    where: str


def read_csv(file: Path, faults: Faults, *, task: str | None) -> dict[str, list[Place]]:
    """Image → its glimpses, of the rows of this task; rows that do not parse become faults."""
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
        mine = steps.setdefault(values["image"], {})
        place = _place(values["row"], values["col"], where, faults)
        if not values["step"].isdigit() or int(values["step"]) < 1:
            faults.add(where, f"column step: {values['step']!r} is not 1, 2, ...")
        elif int(values["step"]) in mine:
            faults.add(where, f"step {values['step']} of image {values['image']} is there twice")
        elif place:
            mine[int(values["step"])] = place
    for image, mine in steps.items():
        if gap := next((step for step in range(1, len(mine) + 1) if step not in mine), None):
            faults.add(next(iter(mine.values())).where, f"image {image} has no step {gap}")
    return {image: [mine[step] for step in sorted(mine)] for image, mine in steps.items()}


def read_text(folder: Path, faults: Faults) -> dict[str, list[Place]]:
    """Image → its glimpses, of every ``NAME.txt`` below the folder; lines that do not parse become faults."""
    found: dict[str, list[Place]] = {}
    for file in sorted(folder.rglob("*.txt")):
        name = file.relative_to(folder).as_posix().removesuffix(".txt")
        found[name] = []
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            where = f"{file} line {number}"
            fields = [part.strip() for part in line.split(",")]
            if len(fields) != 2:
                faults.add(where, f"{line!r} is not a row, a comma and a column")
            elif place := _place(fields[0], fields[1], where, faults):
                found[name].append(place)
    if not found:
        raise UserError(f"sequences={folder}: has no file NAME.txt; give the folder that holds them")
    return found


def read_published(file: Path, *, attribute: int, attributes: int) -> dict[str, list[Place]]:
    """CelebA-HQ index → its glimpses, for one of the attributes."""
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
    """Write a row a glimpse; without gains their column is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for i, name in enumerate(names):
        for t, (row, column) in enumerate(top_left_px[i].tolist()):
            gain = "" if eig_nats is None else f"{eig_nats[i, t].item():.6g}"
            writer.writerow((name, task or "", t + 1, row, column, gain))
    file.write_text(text.getvalue(), encoding="utf-8")


def write_text(folder: Path, names: Sequence[str], top_left_px: Int[Tensor, "n T 2"]) -> None:
    """Write a file an image, named after it."""
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
    """The first ``glimpses`` of each image, if they lie on it; others become faults."""
    good: dict[str, list[Place]] = {}
    for image, all_of_it in places.items():
        mine = all_of_it[:glimpses]
        outside = [place for place in mine if not (0 <= place.row < image_px and 0 <= place.column < image_px)]
        if len(mine) < glimpses:
            where = mine[0].where if mine else f"image {image}"
            faults.add(where, f"image {image} has {len(mine)} glimpses, fewer than glimpses={glimpses}")
        elif outside:
            row, column, where = outside[0]
            faults.add(where, f"({row:g}, {column:g}) is not on an image of sequences_image_size={image_px}")
        else:
            good[image] = mine
    return good


def snap(
    top_left_px: Real[Tensor, "*batch 2"], grid: Grid, *, image_px: int, glimpse_px: int | float
) -> Int[Tensor, "*batch"]:
    """The cell whose centre is nearest to that of each glimpse of side ``glimpse_px`` at ``image_px``."""
    centres_px = (top_left_px.double() + glimpse_px / 2) * (grid.image_px / image_px)
    return grid.nearest_cells(centres_px - grid.glimpse_px / 2)


def _place(row: str, column: str, where: str, faults: Faults) -> Place | None:
    try:
        return Place(float(row), float(column), where)
    except ValueError:
        faults.add(where, f"{row!r}, {column!r} are not a row and a column in pixels")
        return None
