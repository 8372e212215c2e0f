"""Stopping rules as modules of an exported step: what they predict after glimpse t.

A host compares the output with a threshold (``gain``) or accumulates it (``halting``), as `nogs.stopping` does. A
network without a policy has no location logits (L = 0).
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from nogs.attention.gain import greatest_gain
from nogs.stopping.halting import HaltingUnit
from nogs.stopping.heads import StoppingHeads
from nogs.stopping.rules import best_rate

Output = Literal["gain", "halting"]


class GainMap(nn.Module):
    """The greatest predicted gain over all locations, in nats, of a network that learned gain maps."""

    output: Output = "gain"

    def forward(
        self,
        class_logits: Float[Tensor, "B C"],
        location_logits: Float[Tensor, "B L"],
        h: Float[Tensor, "B h"],
        t: Int[Tensor, ""],
    ) -> Float[Tensor, " B"]:
        return greatest_gain(location_logits, class_logits)


class GainHead(nn.Module):
    """The predicted gain per further glimpse, in nats, of fitted stopping heads."""

    output: Output = "gain"

    def __init__(self, heads: StoppingHeads) -> None:
        super().__init__()
        self.heads = heads

    def forward(
        self,
        class_logits: Float[Tensor, "B C"],
        location_logits: Float[Tensor, "B L"],
        h: Float[Tensor, "B h"],
        t: Int[Tensor, ""],
    ) -> Float[Tensor, " B"]:
        gains = self.heads.entropy_gain(self.heads.features(class_logits, t))
        return best_rate(gains, self.heads.glimpses - t)


class Halt(nn.Module):
    """The halting probability h_t of a unit that was trained with the network."""

    output: Output = "halting"

    def __init__(self, unit: HaltingUnit) -> None:
        super().__init__()
        self.unit = unit

    def forward(
        self,
        class_logits: Float[Tensor, "B C"],
        location_logits: Float[Tensor, "B L"],
        h: Float[Tensor, "B h"],
        t: Int[Tensor, ""],
    ) -> Float[Tensor, " B"]:
        return self.unit(h)


Rule = GainMap | GainHead | Halt
