"""GDFS: a policy trained to maximise the gain of the next glimpse, through a relaxed choice of its location.

Covert et al. 2023, *Learning to Maximize Mutual Information for Dynamic Feature Selection* (ICML), section 4. Whatever
was seen, the policy q(l | h) and the predictor q(θ | h) minimise the loss of one more glimpse,

    E_{l ~ q(· | h)} [-log q(θ | h ⊕ (fovea(x, l), l))],

whose minimum is the location of the greatest conditional mutual information I(θ; y_l | h). The expectation is
differentiated through a Concrete sample w of the policy (Maddison, Mnih and Teh 2017), whose temperature falls during
the training. The predictor reads the soft glimpse Σ_l w_l e(fovea(x, l), l), a weighted mean of embedded glimpses. The
state that is passed on has the glimpse at one location, drawn from the policy anew, so that no gradient reaches earlier
choices. The predictor is trained on random locations first.

Where we differ, and why:

- Their soft sample multiplies the pixels of all locations. Here each location is a glimpse of its own to embed, and a
  grid has hundreds. Only the `EMBEDDED` locations of the greatest weights are, renormalised to 1. At low temperatures
  nearly all weight is on one.
- The temperature falls after fixed shares of the iterations, not on plateaus (`nogs.attention.annealed`), and Adam is
  not started anew.
- Logits are not divided by γ = 0.2 as in their code, which scales the step size of their last layer.
- An image may be looked at twice in the same place, because the other methods may too.
"""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from nogs.attention.annealed import STAGES, Annealed, pretraining_share, random_places_loss, staged
from nogs.attention.choosers import sampling
from nogs.attention.gain import log_likelihood
from nogs.attention.network import HardAttention
from nogs.attention.train_step import Objective, Training
from nogs.data.pixels import Pixels
from nogs.glimpses.fovea import look

EMBEDDED = 8
"""Locations of a soft glimpse."""
HOTTEST, COLDEST = 2.0, 0.1
"""First and last temperature of the Concrete distribution (their experiments on CIFAR-10)."""
COOLING = (COLDEST / HOTTEST) ** (1 / (STAGES - 1))


def gdfs(training: Training) -> Objective:
    """Return the objective of GDFS."""
    annealed = Annealed(training.network, iterations=training.config.optimisation.iterations)
    return Objective(annealed, partial(gdfs_step, training, annealed))


def gdfs_step(
    training: Training, annealed: Annealed, images: Int[Tensor, " b"], generator: Generator
) -> Float[Tensor, ""]:
    """Return the loss of a batch: the label's at random places first, then after each soft glimpse."""
    config, network, pixels, labels = training.config, training.network, training.pixels, training.labels[images]
    share, T = annealed.next_step(), config.geometry.glimpses
    pretraining = pretraining_share(training)
    if share < pretraining:
        return random_places_loss(training, images, generator)
    temperature = staged(share, after=pretraining, first=HOTTEST, ratio=COOLING)
    draw = sampling(generator)
    state, loss = network.begin(pixels, images), torch.zeros((), device=pixels.device)
    for t in range(T):
        step = network.step(pixels, images, state=state, t=t, choose=draw)
        weights = concrete(step.location_logits, temperature=temperature, generator=generator)
        softly = network.read(state, soft_glimpse(network, pixels, images, weights))
        loss = loss - log_likelihood(network.classifier(softly.h), labels).mean()
        state = step.state
    return loss / T


def concrete(logits: Float[Tensor, "B L"], *, temperature: float, generator: Generator) -> Float[Tensor, "B L"]:
    """Return weights that sum to 1, drawn from the Concrete distribution: softmax((logits + Gumbel) / temperature)."""
    exponential = torch.empty_like(logits).exponential_(generator=generator)
    return ((logits - exponential.clamp_min(torch.finfo(logits.dtype).tiny).log()) / temperature).softmax(-1)


def soft_glimpse(
    network: HardAttention, pixels: Pixels, images: Int[Tensor, " B"], weights: Float[Tensor, "B L"]
) -> Float[Tensor, "B e"]:
    """Return the weighted mean of the embedded glimpses at the `EMBEDDED` cells of the greatest ``weights``."""
    heaviest = weights.topk(min(EMBEDDED, weights.shape[1]))
    embedded = network.embedding(look(pixels, network.grid, heaviest.indices, images).patches, heaviest.indices)
    shares = heaviest.values / heaviest.values.sum(1, keepdim=True)
    return (shares[..., None] * embedded).sum(1)
