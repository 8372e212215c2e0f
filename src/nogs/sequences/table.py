"""The table of glimpse sequences: the image and the cells of each, and the maps that they were chosen from.

Sequences are designed by a search, recorded from a network or imported. Their file also has the images, the grid and
the task that they are for, so that no stage needs the run that made them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from nogs.data import ImageSet
from nogs.data.imageset import UNLABELLED
from nogs.errors import UserError
from nogs.runs.directory import RunDirectory, read_run
from nogs.runs.identity import first_difference

ORIGINS = ("search", "record", "sequences import")
"""Names of the stages whose run directories hold sequences."""


class Sequences(NamedTuple):
    """n glimpse sequences of T cells.

    ``images``: indices into the ImageSet. ``epe`` and ``eig``: the maps in nats that the search chose from.
    ``effective``: effective sample size of the completions behind each map. These three are None for sequences that
    were not searched for.
    """

    images: Int[Tensor, " n"]
    cells: Int[Tensor, "n T"]
    epe: Float[Tensor, "n T L"] | None = None
    eig: Float[Tensor, "n T L"] | None = None
    effective: Float[Tensor, "n T"] | None = None


def save_sequences(
    run: RunDirectory,
    name: str,
    sequences: Sequences,
    *,
    source: dict[str, Any],
    geometry: dict[str, Any],
    task: str | None,
    origin: str,
) -> None:
    """Write ``name``.safetensors.

    ``source`` and ``geometry``: the configurations of the images and the grid as JSON. ``origin``: name of the stage.
    """
    columns = {key: column for key, column in sequences._asdict().items() if column is not None}
    run.save_tensors(name, columns, source=source, geometry=geometry, task=task, origin=origin)


def made_for(run: RunDirectory) -> dict[str, Any]:
    """Return ``source``, ``geometry``, ``task`` and ``origin`` of the run's sequences, as in `save_sequences`."""
    meta = run.load_metadata("sequences")
    if "source" not in meta:
        raise UserError(
            f"sequences={run.path} was made by an incompatible version, which did not store images and grid: "
            "run `nogs search` again, with another `out`"
        )
    return meta


def load_sequences(run: RunDirectory, name: str = "sequences") -> Sequences:
    """Return the sequences that `save_sequences` wrote."""
    return Sequences(**run.load_tensors(name))


def read_sequences_run(path: Path) -> RunDirectory:
    """Open a finished run of one of the stages `ORIGINS`. Raises UserError for any other, as ``read_run`` does."""
    run = RunDirectory(path)
    stage = run.config["stage"] if (path / "config.json").exists() else None
    return read_run(path, stage if stage in ORIGINS else ORIGINS[0])


def check_sequences(run: RunDirectory, source: dict[str, Any], geometry: dict[str, Any]) -> None:
    """Raise UserError unless the run's sequences are for these images, this task and this grid.

    ``source`` and ``geometry``: as in `save_sequences`.
    """
    meta = made_for(run)
    had = {**meta["source"], **meta["geometry"], "task": meta["task"]}
    if difference := first_difference(had, {**source, **geometry}):
        raise UserError(f"sequences={run.path} was made with another {difference}: train with the same")


def one_path(run: RunDirectory, sequences: Sequences, *, glimpses: int, locations: int) -> tuple[int, ...]:
    """Return the T cells that all ``sequences`` of ``run`` share.

    Raises UserError if sequences differ, or are not ``glimpses`` cells of a grid of ``locations``.
    """
    cells = sequences.cells
    if not cells.numel() or cells.shape[1] != glimpses or cells.min() < 0 or cells.max() >= locations:
        raise UserError(
            f"sequences={run.path} is damaged: its cells are not {glimpses} of a grid of {locations}; "
            "run `nogs search` again"
        )
    if (distinct := len(cells.unique(dim=0))) > 1:
        raise UserError(
            f"sequences={run.path} holds {distinct} different sequences, but one path serves all images: "
            "run `nogs search` with pooling=1"
        )
    return tuple(cells[0].tolist())


def on_labelled_images(sequences: Sequences, data: ImageSet, *, generator: Generator) -> Sequences:
    """Return sequences of images that have labels, to score a posterior along them.

    These are ``sequences`` themselves, or, if their images have no labels, the validation images, each along the cells
    of an image that is drawn from ``sequences``.
    """
    val = data.members("val")
    if not torch.isin(sequences.images, data.members(UNLABELLED)).any():
        return sequences
    rows = torch.randint(len(sequences.images), (len(val),), generator=generator)
    return Sequences(val, sequences.cells[rows])


def cells_of_another(sequences: Sequences, *, generator: Generator) -> Int[Tensor, "n T"]:
    """Return for each image the cells of another image, drawn without fixed points (a single image keeps its own).

    Images form one random cycle, and each takes the cells of the image before it.
    """
    order = torch.randperm(len(sequences.images), generator=generator)
    cells = torch.empty_like(sequences.cells)
    cells[order] = sequences.cells[order.roll(1)]
    return cells
