"""Schedules over a training: random cells first, then a quantity that falls in stages.

DIME lowers its exploration, and GDFS its temperature, when the validation loss has stayed on a plateau. A loss does not
see validations, so here both fall at fixed shares of the iterations.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from nogs.attention.choosers import anywhere
from nogs.attention.network import HardAttention
from nogs.attention.objectives import label_loss
from nogs.attention.train_step import Training

STAGES = 5
"""Values of a quantity that falls: the temperatures of GDFS (its code: ``temp_steps=5``)."""


class Annealed(nn.Module):
    """A network and the number of its training steps so far.

    The number is a buffer. Checkpoints contain it, so a resumed training equals an uninterrupted one.
    """

    def __init__(self, network: HardAttention, *, iterations: int) -> None:
        super().__init__()
        self.network, self.iterations = network, iterations
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def next_step(self) -> float:
        """Count one training step. Return the share of all iterations that were before it, in [0, 1)."""
        before = int(self.get_buffer("steps"))
        self.get_buffer("steps").add_(1)
        return before / self.iterations


def staged(share: float, *, after: float, first: float, ratio: float) -> float:
    """Return the value at ``share`` of the iterations: ``first``, multiplied by ``ratio`` at each new stage.

    ``after``: share of the iterations that precede the first of `STAGES` equally long stages.
    """
    stage = math.floor(STAGES * (share - after) / (1 - after)) if share > after else 0
    return first * ratio ** min(stage, STAGES - 1)


def random_places_loss(training: Training, images: Int[Tensor, " b"], generator: Generator) -> Float[Tensor, ""]:
    """Return the label loss of a batch at uniformly random cells, averaged over the answers before and after them."""
    network, pixels, labels = training.network, training.pixels, training.labels[images]
    T, choose = training.config.geometry.glimpses, anywhere(len(network.grid), generator)
    begin = network.begin(pixels, images)
    states = [step.states for step in network.unroll(pixels, images, begin=begin, glimpses=T, choose=choose)]
    return label_loss(network.classifier(torch.stack((begin.h, *states), dim=1)), labels).mean()
