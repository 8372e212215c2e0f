"""Wake-sleep recurrent attention: a proposal over locations that sees the label, and its training step.

The inference network is a proposal r(l_t | h_t-1, x, θ) over the grid's cells (Ba, Salakhutdinov, Grosse and Frey
2015, *Learning Wake-Sleep Recurrent Attention Models*, section 3). It reads the detached state of the hard attention
network, the whole image averaged down to 16 px, and the label, so it exists in training alone: sequences are drawn
from it, and `nogs.attention.objectives.wake_sleep_loss` weights them by the likelihood of the label.

The weights are those of Bornschein and Bengio 2015, *Reweighted Wake-Sleep*; the control variates that Ba et al.
subtract from them are left out.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from nogs.attention.choosers import sampling
from nogs.attention.network import HardAttention, Rollout, stack_trajectory
from nogs.attention.objectives import wake_sleep_loss
from nogs.attention.train_step import Objective, Training
from nogs.glimpses.grid import Grid

COARSE_PX = 16
"""Side length of the averaged image that the inference network reads."""


class InferenceNetwork(nn.Module):
    """r(l_t | h_t-1, x, θ): a perceptron on the state and a context of image and label."""

    def __init__(self, grid: Grid, *, channels: int, classes: int, hidden: int, width: int = 128) -> None:
        super().__init__()
        self.coarse_px = min(COARSE_PX, grid.image_px)
        self.image = nn.Linear(channels * self.coarse_px**2, width)
        self.label = nn.Embedding(classes, width)
        self.locator = nn.Sequential(nn.Linear(width + hidden, 64), nn.ReLU(), nn.Linear(64, len(grid)))

    def context(self, images: UInt8[Tensor, "B c H H"], labels: Int[Tensor, " B"]) -> Float[Tensor, "B w"]:
        """Return the features of image and label, which do not change from glimpse to glimpse."""
        coarse = F.adaptive_avg_pool2d(images.float(), self.coarse_px) / 127.5 - 1
        return (self.image(coarse.flatten(1)) + self.label(labels)).relu()

    def forward(self, context: Float[Tensor, "*batch w"], h: Float[Tensor, "*batch h"]) -> Float[Tensor, "*batch L"]:
        """Return the logits of r; no gradient flows into the state ``h``."""
        return self.locator(torch.cat((context, h.detach()), dim=-1))


class Proposed(NamedTuple):
    """M sequences per image, in consecutive rows, and log r(l_t | h_t-1, x, θ) of their cells."""

    rollout: Rollout
    log_proposal: Float[Tensor, "BM T"]


def propose(
    network: HardAttention,
    inference: InferenceNetwork,
    images: UInt8[Tensor, "N c H H"],
    rows: Int[Tensor, " B"],
    labels: Int[Tensor, " B"],
    *,
    glimpses: int,
    samples: int,
    generator: Generator,
) -> Proposed:
    """Run the network ``samples`` times on each image of ``rows``, at cells drawn from the inference network."""
    context = inference.context(images.index_select(0, rows), labels).repeat_interleave(samples, 0)
    rows = rows.repeat_interleave(samples)
    cells, states, log_proposal = stack_trajectory(
        network.unroll(
            images,
            rows,
            glimpses=glimpses,
            choose=sampling(generator),
            locate=partial(inference, context),
        )
    )
    return Proposed(network.rollout(cells, states), log_proposal)


def wake_sleep(training: Training) -> Objective:
    """Return the objective of WS-RAM, with a new inference network that is trained beside the network."""
    network = training.network
    inference = InferenceNetwork(
        network.grid,
        channels=training.pixels.shape[1],
        classes=network.classifier.out_features,
        hidden=network.core.hidden_size,
    ).to(training.pixels.device)
    trained = nn.ModuleDict({"network": network, "inference": inference})
    return Objective(trained, partial(wake_sleep_step, training, inference))


def wake_sleep_step(
    training: Training, inference: InferenceNetwork, images: Int[Tensor, " b"], generator: Generator
) -> Float[Tensor, ""]:
    """Return the wake-sleep loss of a batch."""
    labels, samples = training.labels[images], training.config.wake_sleep_samples
    proposed = propose(
        training.network,
        inference,
        training.pixels,
        images,
        labels,
        glimpses=training.config.geometry.glimpses,
        samples=samples,
        generator=generator,
    )
    repeated = labels.repeat_interleave(samples)
    return wake_sleep_loss(proposed.rollout, repeated, proposed.log_proposal, samples=samples).mean()
