"""Wake-sleep recurrent attention: sequences proposed from image and label, weighted by the label's likelihood.

The inference network is a proposal r(l_t | h_t-1, x, θ) over the grid's cells (Ba, Salakhutdinov, Grosse and Frey
2015, *Learning Wake-Sleep Recurrent Attention Models*, section 3). It reads the detached state of the hard attention
network, the whole image averaged down to 16 px, and the label, so it exists in training alone. M sequences per image
are drawn from it and weighted by reweighted wake-sleep (Bornschein and Bengio 2015) with the control variates of
Ba et al. (`nogs.attention.objectives.wake_sleep_loss`).

Where we differ, and why:

- r ∝ q(l_t | h_t-1) exp f(h_t-1, x, θ): the network learns the correction f to the policy. Weights are then
  likelihoods, up to that correction. A proposal of its own makes the ratio q / r decide the weights: over T glimpses
  it varies by nats, the likelihood by tenths.
- Sequences are drawn from a mixture of r and the uniform distribution, which the weights take into account. Ba et al.
  heat r instead.
- The entropy of the policy's sequences is part of the objective, with a small weight.
- The M sequences are run without gradient. Embedding, core and classifier are trained on one of them per image, drawn
  with the weights' probabilities: the same expected gradient for about a third of the time.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from nogs.attention.choosers import sampling
from nogs.attention.network import HardAttention, State, location_log_probs, previous_states, stack_states
from nogs.attention.objectives import label_loss, wake_sleep_loss, wake_sleep_weights
from nogs.attention.train_step import Objective, Training
from nogs.data.pixels import Pixels
from nogs.glimpses.fovea import look
from nogs.glimpses.grid import Grid

COARSE_PX = 16
"""Side length of the averaged image that the inference network reads."""
ENTROPY_BONUS = 0.003
"""Default weight of the policy's entropy. Without it all T glimpses fall on one cell early (docs/log.md)."""


class InferenceNetwork(nn.Module):
    """r(l_t | h_t-1, x, θ): the policy's logits plus a perceptron on the state and a context of image and label."""

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

    def forward(
        self,
        context: Float[Tensor, "*batch w"],
        h: Float[Tensor, "*batch h"],
        policy_logits: Float[Tensor, "*batch L"],
    ) -> Float[Tensor, "*batch L"]:
        """Return the logits of r; no gradient flows into the state ``h`` or the policy's logits."""
        return policy_logits.detach() + self.locator(torch.cat((context, h.detach()), dim=-1))


class Proposed(NamedTuple):
    """M sequences per image in consecutive rows, with log-probabilities of their cells and log q(θ | y_1:T, l_1:T)."""

    cells: Int[Tensor, "BM T"]
    log_policy: Float[Tensor, "BM T"]
    log_proposal: Float[Tensor, "BM T"]
    log_drawn: Float[Tensor, "BM T"]
    """Under the mixture of proposal and uniform distribution that the cells were drawn from."""
    log_likelihood: Float[Tensor, " BM"]


def propose(
    network: HardAttention,
    inference: InferenceNetwork,
    images: Pixels,
    rows: Int[Tensor, " B"],
    labels: Int[Tensor, " B"],
    *,
    glimpses: int,
    samples: int,
    exploration: float,
    generator: Generator,
) -> Proposed:
    """Run the network ``samples`` times on each image of ``rows``, at cells drawn mainly from the inference network.

    ``exploration``: probability of drawing a cell uniformly instead. Gradients flow into the location head and the
    inference network alone.
    """
    context = inference.context(images.index_select(0, rows), labels).repeat_interleave(samples, 0)
    mixture = torch.tensor((1 - exploration, exploration / len(network.grid)), device=images.device).log()

    def mixed(log_probs: Tensor) -> Tensor:
        return torch.logaddexp(log_probs + mixture[0], mixture[1])

    def locate(state: State) -> Tensor:
        policy_logits = network.location_logits(state.h, state.scene)
        return mixed(inference(context, state.h, policy_logits).log_softmax(-1))

    choose, repeated = sampling(generator), rows.repeat_interleave(samples)
    begin = network.begin(images, rows).select(torch.arange(len(rows), device=rows.device).repeat_interleave(samples))
    with torch.no_grad():
        steps = network.unroll(images, repeated, begin=begin, glimpses=glimpses, choose=choose, locate=locate)
        cells, states = stack_states(steps)
        class_logits = network.classifier(states[:, -1])
        log_likelihood = -F.cross_entropy(class_logits, labels.repeat_interleave(samples), reduction="none")
    policy_logits = network.logits_along(cells, states, begin)
    earlier = previous_states(states, begin.h)
    proposal_logits = inference(context[:, None].expand(-1, glimpses, -1), earlier, policy_logits)
    log_proposal = location_log_probs(cells, proposal_logits)
    return Proposed(
        cells,
        location_log_probs(cells, policy_logits),
        log_proposal,
        mixed(log_proposal.detach()),
        log_likelihood,
    )


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
    """Return the wake-sleep loss of a batch: policy and proposal on all sequences, the label on one per image."""
    config, network, pixels, labels = training.config, training.network, training.pixels, training.labels[images]
    samples = config.wake_sleep_samples
    proposed = propose(
        network,
        inference,
        pixels,
        images,
        labels,
        glimpses=config.geometry.glimpses,
        samples=samples,
        exploration=config.wake_sleep_exploration,
        generator=generator,
    )
    _, log_policy, log_proposal, log_drawn, log_likelihood = (column.unflatten(0, (-1, samples)) for column in proposed)
    weights = wake_sleep_weights(log_likelihood, log_policy, log_proposal, log_drawn)
    drawn = torch.multinomial(weights.posterior, 1, generator=generator)
    cells = proposed.cells.unflatten(0, (-1, samples)).take_along_dim(drawn[..., None], dim=1)[:, 0]
    states = network.encode(look(pixels, network.grid, cells, images), network.begin(pixels, images))
    label = label_loss(network.classifier(states), labels)
    bonus = ENTROPY_BONUS if config.entropy_bonus is None else config.entropy_bonus
    return (label + wake_sleep_loss(log_policy, log_proposal, weights, entropy_bonus=bonus)).mean()
