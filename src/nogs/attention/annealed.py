"""Schedules over a training: random cells first, then a policy, or a quantity that falls in stages.

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
from nogs.glimpses.fovea import look

PRETRAINING = 0.2
"""Default of this share."""
SMALLER = 0.5
"""Probability with which a batch of random sets has smaller ones than the largest."""
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


def pretraining_share(training: Training) -> float:
    """Return the share of the iterations that DIME and GDFS spend at random cells."""
    share = training.config.gains.pretraining
    return PRETRAINING if share is None else share


def random_places_loss(training: Training, images: Int[Tensor, " b"], generator: Generator) -> Float[Tensor, ""]:
    """Return the label loss of a batch at uniformly random cells, averaged over the answers before and after them.

    With ``pretraining_glimpses`` M it is that of `random_set_loss`.
    """
    if training.config.gains.pretraining_glimpses:
        return random_set_loss(training, images, generator)
    network, pixels, labels = training.network, training.pixels, training.labels[images]
    T, choose = training.config.geometry.glimpses, anywhere(len(network.grid), generator)
    begin = network.begin(pixels, images)
    states = [step.states for step in network.unroll(pixels, images, begin=begin, glimpses=T, choose=choose)]
    return label_loss(network.classifier(torch.stack((begin.h, *states), dim=1)), labels).mean()


def random_set_loss(training: Training, images: Int[Tensor, " b"], generator: Generator) -> Float[Tensor, ""]:
    """Return the label loss of a batch before any glimpse and after all of m different cells.

    m is M = ``pretraining_glimpses``, or with probability `SMALLER` uniform in 1..M. Where the answer depends on how
    two glimpses go together, few sets of T hold such a pair. Those of all locations always do, and with them it is
    learned several times sooner (docs/log.md). Smaller sets teach the answers that a policy will ask for.
    """
    network, pixels, labels = training.network, training.pixels, training.labels[images]
    L, device = len(network.grid), pixels.device
    m = min(L, training.config.gains.pretraining_glimpses or training.config.geometry.glimpses)
    if torch.rand((), generator=generator, device=device) < SMALLER:
        m = int(torch.randint(1, m + 1, (), generator=generator, device=device))
    cells = torch.rand(len(images), L, generator=generator, device=device).argsort(1)[:, :m]
    begin = network.begin(pixels, images)
    h = network.after_all(begin, look(pixels, network.grid, cells, images))
    return label_loss(network.classifier(torch.stack((begin.h, h), dim=1)), labels).mean()
