"""The bank of images that retrieval draws from, with their PCA, and loading it from a run of build-bank."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from nogs.completion.shards import Pictures, Shard
from nogs.data import ImageSet
from nogs.errors import UserError
from nogs.runs.directory import RunDirectory
from nogs.runs.progress import Tick, ticking


class Selection(NamedTuple):
    """The images ``images[rows]``, uint8 in [0, 255]. ``images`` may be a whole set in memory, which is not copied."""

    images: UInt8[Tensor, "N c H H"]
    rows: Int[Tensor, " n"]


class Bank(NamedTuple):
    """N images to retrieve, and their PCA (`nogs.completion.pca`).

    ``select``: from indices of images to the images. ``groups``: the group (person) of each image, None if images have
    no group. ``mirror``: whether mirror images are candidates too. ``latents``: of all images in order, in one or more
    blocks.
    """

    select: Callable[[Int[Tensor, " n"]], Selection]
    groups: Int[Tensor, " N"] | None
    mirror: bool
    mean: Float[Tensor, "c H H"]
    components: Float[Tensor, "k c H H"]
    latents: tuple[Float[Tensor, "_ k"], ...]

    def pictures(self, indices: Int[Tensor, " n"]) -> UInt8[Tensor, "n c H H"]:
        """Return the images of these indices, uint8 in [0, 255]."""
        selection = self.select(indices)
        return selection.images[selection.rows]


def load_bank(run: RunDirectory, data: ImageSet, tick: Tick | None = None) -> Bank:
    """Return the bank of a finished build-bank run over the images ``data``.

    Shards are memory-mapped. Each is first compared with its checksum, which reads it once. ``tick`` counts shards.
    """
    meta = run.load_metadata("bank")
    names = meta.get("shards")
    if not isinstance(names, list):
        raise UserError(f"bank={run.path} was saved by an incompatible version: run `nogs build-bank` again")
    arrays = run.load_tensors("bank")
    pca = (meta["mirror"], arrays["mean"], arrays["components"])
    if not names:
        members, images = arrays["members"], data.in_memory()
        return Bank(
            lambda indices: Selection(images, members[indices]), data.groups[members], *pca, (arrays["latents"],)
        )
    shards = []
    with ticking("bank", len(names), tick) as report:
        for number, name in enumerate(names):
            report(number, f"checking {name}")
            shards.append(Shard(**run.load_tensors(name)))
        report(len(names), "")
    decoded = Pictures(shards)
    return Bank(
        lambda indices: Selection(decoded(indices), torch.arange(len(indices))),
        None,
        *pca,
        tuple(shard.latents for shard in shards),
    )
