"""Wake-sleep's inference network: where would one have looked, had one known the label?

A proposal r(l_t | h_t-1, x, θ) over the grid's cells (Ba, Salakhutdinov, Grosse and Frey 2015, *Learning Wake-Sleep
Recurrent Attention Models*, section 3). It reads what the hard attention network remembers (detached), the whole
image averaged down to 16 px, and the label, so it exists in training alone: sequences are drawn from it, and
`nogs.attention.objectives.wake_sleep_loss` weighs them by what they make of the label.

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
from nogs.attention.network import HardAttention, chosen
from nogs.attention.objectives import Rollout
from nogs.glimpses.grid import Grid

COARSE_PX = 16
"""Side length of the image as the inference network sees it."""


class InferenceNetwork(nn.Module):
    """r(l_t | h_t-1, x, θ): a perceptron on the state and a context of image and label."""

    def __init__(self, grid: Grid, *, channels: int, classes: int, hidden: int, width: int = 128) -> None:
        super().__init__()
        self.coarse_px = min(COARSE_PX, grid.image_px)
        self.image = nn.Linear(channels * self.coarse_px**2, width)
        self.label = nn.Embedding(classes, width)
        self.locator = nn.Sequential(nn.Linear(width + hidden, 64), nn.ReLU(), nn.Linear(64, len(grid)))

    def context(self, images: UInt8[Tensor, "B c H H"], labels: Int[Tensor, " B"]) -> Float[Tensor, "B w"]:
        """What is known before the first glimpse."""
        coarse = F.adaptive_avg_pool2d(images.float(), self.coarse_px) / 127.5 - 1
        return (self.image(coarse.flatten(1)) + self.label(labels)).relu()

    def forward(self, context: Float[Tensor, "*batch w"], h: Float[Tensor, "*batch h"]) -> Float[Tensor, "*batch L"]:
        """Logits of r; no gradient goes back into what is remembered."""
        return self.locator(torch.cat((context, h.detach()), dim=-1))


class Proposed(NamedTuple):
    """M sequences an image, its rows side by side, and log r(l_t | h_t-1, x, θ) of their cells."""

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
    """Run the network ``samples`` times on each image of ``rows``, where the inference network says."""
    context = inference.context(images.index_select(0, rows), labels).repeat_interleave(samples, 0)
    rows = rows.repeat_interleave(samples)
    cells, states, log_proposal = chosen(
        network.run(
            images,
            rows,
            glimpses=glimpses,
            choose=sampling(generator),
            locate=partial(inference, context),
        )
    )
    return Proposed(network.say(cells, states), log_proposal)
