"""The bank of images that retrieval draws from, with their PCA."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float, Int, UInt8
from torch import Tensor


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
