"""The objective of Adaptive Computation Time, trained jointly with the network (Graves 2016).

The loss of an image, in nats, takes the place of the label's loss, with N, R and p_t of `nogs.stopping.rules.halt`:

    -log Σ_t p_t q_t(θ) + cost (N + R)

Its gradient reaches embedding and core through q_t and through the halting unit. The location head is trained as by
`nogs.attention.train_step.reinforce_step`, with the reward 1[argmax of Σ_t p_t q_t is correct]. The reward does not
depend on the cells after N, so their expected gradient is zero.
"""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from nogs.attention.train_step import Objective, Training, draw_batch, partial_supervision
from nogs.stopping.halting import HaltingUnit
from nogs.stopping.rules import halt, mean_field


def act(training: Training) -> Objective:
    """Return the objective of ACT, with a new halting unit that is trained beside the network."""
    network = training.network
    unit = HaltingUnit(network.core.hidden_size).to(training.pixels.device)
    trained = nn.ModuleDict({"network": network, "halting": unit})
    return Objective(trained, partial(act_step, training, unit), halting=unit)


def act_step(
    training: Training, unit: HaltingUnit, images: Int[Tensor, " b"], generator: Generator
) -> Float[Tensor, ""]:
    """Return the loss of a batch, with the mean-field answer in place of the T answers."""
    batch = draw_batch(training, images, generator)
    halted = halt(unit(batch.rollout.states))
    answer = mean_field(halted.weights, batch.rollout.class_logits.log_softmax(-1))
    loss = partial_supervision(training, batch._replace(rollout=batch.rollout._replace(class_logits=answer[:, None])))
    labelled = torch.ones_like(batch.supervised) if batch.supervised_labels else ~batch.supervised
    return loss + training.config.halting_cost * halted.ponder[labelled].mean()
