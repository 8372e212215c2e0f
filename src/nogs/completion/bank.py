"""The bank of images that retrieval draws from, with their PCA; from a run directory of build-bank."""

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


class Found(NamedTuple):
    """Images, and the rows of those that were asked for: of a set in memory, no copy is made to look at a part."""

    images: UInt8[Tensor, "N c H H"]
    rows: Int[Tensor, " n"]


class Bank(NamedTuple):
    """Images to retrieve, and their PCA (`nogs.completion.pca`).

    ``find`` says where the images of some indices are. ``groups`` is None where they are nobody's.
    With ``mirror`` all mirror images are offered too. ``latents`` are of all images, in order, in one or many blocks.
    """

    find: Callable[[Int[Tensor, " n"]], Found]
    groups: Int[Tensor, " N"] | None
    mirror: bool
    mean: Float[Tensor, "c H H"]
    components: Float[Tensor, "k c H H"]
    latents: tuple[Float[Tensor, "_ k"], ...]

    def pictures(self, indices: Int[Tensor, " n"]) -> UInt8[Tensor, "n c H H"]:
        """The images of some indices."""
        found = self.find(indices)
        return found.images[found.rows]


def load_bank(run: RunDirectory, data: ImageSet, tick: Tick | None = None) -> Bank:
    """Return the bank of a finished build-bank run over the images ``data``.

    Shards are memory-mapped. ``tick`` reports how many were compared with their checksums, which reads them once.
    """
    meta = run.load_metadata("bank")
    names = meta.get("shards")
    if not isinstance(names, list):
        raise UserError(f"bank={run.path} was saved by an incompatible version: run `nogs build-bank` again")
    arrays = run.load_tensors("bank")
    pca = (meta["mirror"], arrays["mean"], arrays["components"])
    if not names:
        members = arrays["members"]
        return Bank(
            lambda indices: Found(data.images, members[indices]), data.groups[members], *pca, (arrays["latents"],)
        )
    shards = []
    with ticking("bank", len(names), tick) as report:
        for number, name in enumerate(names):
            report(number, f"checking {name}")
            shards.append(Shard(**run.load_tensors(name)))
        report(len(names), "")
    decoded = Pictures(shards)
    return Bank(
        lambda indices: Found(decoded(indices), torch.arange(len(indices))),
        None,
        *pca,
        tuple(shard.latents for shard in shards),
    )
