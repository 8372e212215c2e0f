"""Stage import: read glimpse sequences from files, or derive them from annotated parts, and move them to a grid.

Pixels of another image size are scaled, and each glimpse is moved to the cell whose centre is nearest. Sequences of
images that are not in the train split are left out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from nogs.config.stages import ImportSequences
from nogs.data import ImageSet, fingerprint
from nogs.data.listing import LISTED, Faults
from nogs.data.load import load_all, of_task, parse
from nogs.data.sources.celeba import names_by_index
from nogs.data.sources.cub import cub_parts
from nogs.errors import UserError
from nogs.glimpses.grid import Grid
from nogs.runs.directory import RunDirectory, finished_run, open_run
from nogs.runs.files import file_hash
from nogs.runs.identity import as_json
from nogs.sequences.files import (
    PUBLISHED_GLIMPSE_PX,
    PUBLISHED_IMAGE_PX,
    check_places,
    read_csv,
    read_published,
    read_text,
    snap,
)
from nogs.sequences.parts import check_order, follow, read_parts
from nogs.sequences.table import Sequences, save_sequences
from nogs.specs import check_one_level, grid_of


def import_sequences(config: ImportSequences) -> RunDirectory:
    """Write sequences.safetensors, without maps, and left_out.json: the sequences that were left out and why."""
    given = [(name, path) for name, path in (("sequences", config.sequences), ("parts", config.parts)) if path]
    if len(given) != 1:
        raise UserError("give `sequences`, a file or folder of sequences, or `parts`, a file of the parts of images")
    argument, path = given[0]
    if not path.exists():
        raise UserError(f"{argument}={path} does not exist: see `nogs sequences import --help` for formats")
    if finished := finished_run(config.machine.out, "sequences import", config, resume=config.machine.resume):
        return finished
    whole = load_all(config.source)
    data = of_task(whole, config.source)
    data.check_one_label()
    check_one_level(config.geometry)
    grid = grid_of(config.geometry, data)
    faults = Faults(config.source.skip_bad)
    imported = (
        _by_parts(config, path, grid, faults)
        if config.parts
        else _from_file(config, path, grid, faults, labels=whole.classes)
    )
    faults.stop()
    faults.warn()
    rows, images, left_out = _in_train(list(imported), data, config)
    if not len(images):
        raise UserError(f"{argument}={path}: none of its {len(imported)} images is in the train split of `data`")
    cells = torch.stack(list(imported.values()))[rows]
    run = open_run(config.machine.out, "sequences import", config, resume=config.machine.resume)
    run.save_json("left_out.json", left_out)
    save_sequences(
        run,
        "sequences",
        Sequences(images, cells),
        source=as_json(config.source),
        geometry=as_json(config.geometry),
        task=config.source.task,
        origin="sequences import",
    )
    hashes = {str(path): file_hash(path)} if path.is_file() else {}
    run.finish(inputs={config.source.data: fingerprint(data), **hashes})
    print(f"imported {len(images)} sequences to {run.path}")
    return run


def _from_file(
    config: ImportSequences, path: Path, grid: Grid, faults: Faults, *, labels: tuple[str, ...]
) -> dict[str, Int[Tensor, " T"]]:
    """Return image → cells, from sequences in a file or folder. ``labels``: the names of all labels of the data."""
    image_px, glimpse_px = config.sequences_image_size, config.sequences_glimpse_size
    if path.is_dir():
        places = read_text(path, faults)
    elif path.suffix == ".npz":
        if config.source.task is None:
            raise UserError(f"sequences={path} is for many attributes: give `task` and data that has it")
        places = read_published(path, attribute=labels.index(config.source.task), attributes=len(labels))
        image_px, glimpse_px = image_px or PUBLISHED_IMAGE_PX, glimpse_px or PUBLISHED_GLIMPSE_PX
    else:
        places = read_csv(path, faults, task=config.source.task)
    image_px = image_px or grid.image_px
    good = check_places(places, faults, glimpses=config.geometry.glimpses, image_px=image_px)
    return {
        name: snap(
            torch.tensor([place[:2] for place in of_image]),
            grid,
            image_px=image_px,
            glimpse_px=glimpse_px or grid.glimpse_px * image_px / grid.image_px,
        )
        for name, of_image in good.items()
    }


def _by_parts(config: ImportSequences, path: Path, grid: Grid, faults: Faults) -> dict[str, Int[Tensor, " T"]]:
    """Return image → cells, of glimpses centred on the image's parts in the order of ``config.parts_order``."""
    if path.suffix == ".csv":
        parts, image_px = read_parts(path, faults), config.sequences_image_size or grid.image_px
    elif config.source.data.startswith("cub:"):
        parts, image_px = cub_parts(parse(config.source.data)[1], path, image_px=grid.image_px), grid.image_px
    else:
        raise UserError(f"parts={path}: give a CSV file image,part,row,col,visible, or for cub: parts/part_locs.txt")
    faults.stop()  # now, because a part whose row does not parse would count as invisible
    check_order(parts, config.parts_order)
    centre = (image_px / 2, image_px / 2)
    return {
        name: snap(
            torch.tensor(follow(visible, config.parts_order, glimpses=config.geometry.glimpses, centre=centre)),
            grid,
            image_px=image_px,
            glimpse_px=0,
        )
        for name, visible in parts.items()
    }


def _in_train(
    names: list[str], data: ImageSet, config: ImportSequences
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], dict[str, Any]]:
    """Return the rows of ``names`` that are training images, the indices of these images, and the other names.

    The other names are also listed on stderr. Images of CelebA may be named by their CelebA-HQ index.
    """
    index = {name: i for i, name in enumerate(data.names)}
    if config.source.data.startswith("celeba:"):
        place = parse(config.source.data)[1]
        index |= {str(number): index[name] for number, name in names_by_index(place).items() if name in index}
    train = set(data.members("train").tolist())
    missing = [name for name in names if name not in index]
    elsewhere = [name for name in names if name in index and index[name] not in train]
    for those, where in ((missing, "in the data"), (elsewhere, "in its train split")):
        if those:
            more = ", ..." if len(those) > LISTED else ""
            print(
                f"left out {len(those)} of {len(names)} sequences, whose images are not {where}: "
                f"{', '.join(those[:LISTED])}{more}",
                file=sys.stderr,
            )
    rows = [row for row, name in enumerate(names) if index.get(name) in train]
    images = torch.tensor([index[names[row]] for row in rows], dtype=torch.long)
    return torch.tensor(rows, dtype=torch.long), images, {"not_in_data": missing, "not_in_train": elsewhere}
