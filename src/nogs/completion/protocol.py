"""Stochastic image completion r(x | y_1:t, l_1:t): weighted whole images that agree with what was seen."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

from nogs.glimpses.fovea import Glimpses


class Completions(NamedTuple):
    """P weighted images, each completing one of the B images that were looked at.

    ``owners`` says which, ascending; the ``weights`` of one owner sum to 1, and its images are unique.
    ``effective`` is the effective sample size of each owner's importance weights, before resampling.
    """

    images: UInt8[Tensor, "P c H H"]
    owners: Int[Tensor, " P"]
    weights: Float[Tensor, " P"]
    effective: Float[Tensor, " B"]

    def to(self, device: torch.device) -> Completions:
        """The same on another device."""
        return Completions(*(column.to(device) for column in self))


@runtime_checkable
class Completion(Protocol):
    """A way to complete images."""

    def unconditional(self, count: int, *, generator: Generator) -> Completions:
        """Return ``count`` draws of what an image may be before anything was seen, for one owner."""
        ...

    def __call__(self, seen: Glimpses, *, groups: Int[Tensor, " B"], generator: Generator) -> Completions:
        """Complete each of B images given its glimpses (T ≥ 1). No image of its own group may complete it."""
        ...
