"""Stochastic image completion r(x | y_1:t, l_1:t): weighted whole images that agree with the glimpses so far."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

from nogs.glimpses.fovea import Glimpses


class Completions(NamedTuple):
    """P weighted images of uint8 in [0, 255], each a completion of one of B partly observed images, its owner.

    ``owners``: the number of the owner, 0 to B - 1, ascending. ``weights``: they sum to 1 for each owner. Completions
    of one owner are distinct. ``effective``: effective sample size of each owner's weights before resampling.
    """

    images: UInt8[Tensor, "P c H H"]
    owners: Int[Tensor, " P"]
    weights: Float[Tensor, " P"]
    effective: Float[Tensor, " B"]

    def to(self, device: torch.device) -> Completions:
        """Return the same completions on another device."""
        return Completions(*(column.to(device) for column in self))


@runtime_checkable
class Completion(Protocol):
    """A conditional distribution over whole images, given glimpses."""

    def unconditional(self, count: int, *, generator: Generator) -> Completions:
        """Return ``count`` draws of whole images without any glimpse, for one owner."""
        ...

    def __call__(self, seen: Glimpses, *, groups: Int[Tensor, " B"], generator: Generator) -> Completions:
        """Return completions of B images given T ≥ 1 glimpses of each.

        ``groups``: the group (person) of each image; images of the same group are not used to complete it.
        """
        ...
