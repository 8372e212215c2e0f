"""The losses of one training step: partial supervision with REINFORCE, and the label loss alone.

A method's row in `nogs.attention.methods` names its objective. An objective prepares what is trained beside the
network and returns a loss that the training loop calls with a batch. Others are in `nogs.attention.wake_sleep` and
`nogs.attention.act`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from nogs.attention.choosers import Chooser, greedy
from nogs.attention.network import HardAttention, Rollout, location_log_probs, stack_states
from nogs.attention.objectives import entropy_loss, label_loss, partially_supervised_loss
from nogs.config.stages import Train
from nogs.data.pixels import Pixels
from nogs.glimpses.fovea import look
from nogs.sequences.table import Sequences
from nogs.stopping.halting import HaltingUnit

CORRECTED = 0.5
"""Probability with which a supervised image of dataset aggregation takes the right cell, not the network's own."""


class Training(NamedTuple):
    """Everything that a loss depends on, except the batch."""

    config: Train
    network: HardAttention
    choose: Callable[[Generator], Chooser]
    """How the method chooses cells during training."""
    sequences: Sequences | None
    """Glimpse sequences to imitate, for methods that have them."""
    pixels: Pixels
    labels: Int[Tensor, " N"]


Loss = Callable[[Int[Tensor, " b"], Generator], Float[Tensor, ""]]
"""(indices of the batch's images, chance) → the scalar to minimise."""


class Objective(NamedTuple):
    """The module whose parameters are trained, which contains the network, and its loss."""

    trained: nn.Module
    loss: Loss
    halting: HaltingUnit | None = None
    """The unit that decides when to stop, for methods that train one with the network."""


class Batch(NamedTuple):
    """Images of one step: b along cells that the method chooses, and after them k that have given cells."""

    images: Int[Tensor, " n"]
    rollout: Rollout
    labels: Int[Tensor, " n"]
    supervised: Bool[Tensor, " n"]
    """Which images have given cells."""
    supervised_labels: bool
    """Whether these train embedding, core and classifier too, as published."""


def reinforce(training: Training) -> Objective:
    """Return the objective of partial supervision with REINFORCE; without sequences it is RAM's."""
    return Objective(training.network, partial(reinforce_step, training))


def label_only(training: Training) -> Objective:
    """Return the objective of a control without a policy: the label loss alone."""
    return Objective(training.network, partial(label_only_step, training))


def reinforce_step(training: Training, images: Int[Tensor, " b"], generator: Generator) -> Float[Tensor, ""]:
    """Return the loss of a batch: REINFORCE where the policy draws its own cells, imitation where cells are given."""
    return partial_supervision(training, draw_batch(training, images, generator))


def draw_batch(training: Training, images: Int[Tensor, " b"], generator: Generator) -> Batch:
    """Run the network on the images of a step, along its own cells and along given cells.

    With ``supervision="location"`` the images with given cells are added to the batch and train the location head
    alone. Otherwise they take places of the batch, and follow the given cells (``"published"``) or, in part, the
    network's own choices (``"dagger"``).
    """
    config, network, pixels = training.config, training.network, training.pixels
    taught, given = supervised_batch(training, generator)
    location_alone = config.supervision == "location"
    free = images if location_alone else images[len(taught) :]
    rollout = network(pixels, free, glimpses=config.geometry.glimpses, choose=training.choose(generator))
    if len(taught):
        if config.supervision == "dagger":
            led = corrected(network, pixels, taught, given, generator)
        else:
            begin = network.begin(pixels, taught)
            # Where they train the location head alone, their states need no gradient.
            with torch.set_grad_enabled(not location_alone):
                states = network.encode(look(pixels, network.grid, given, taught), begin)
            led = network.rollout(given, states, begin)
        rollout = Rollout(*map(torch.cat, zip(rollout, led, strict=True)))
    images = torch.cat((free, taught))
    supervised = torch.arange(len(images), device=images.device) >= len(free)
    return Batch(images, rollout, training.labels[images], supervised, not location_alone)


def corrected(
    network: HardAttention,
    pixels: Pixels,
    images: Int[Tensor, " k"],
    given: Int[Tensor, "k T"],
    generator: Generator,
) -> Rollout:
    """Run ``images`` along the network's likeliest cells, each corrected to the given one with probability `CORRECTED`.

    At each step the right cell is the first of ``given`` that no glimpse has shown yet (`Grid.covers`). The log-policy
    of the rollout is that of the right cell, and 0 once all are shown. So the location head learns what to do after a
    miss of its own, which it never sees along given cells: dataset aggregation (Ross, Gordon and Bagnell 2011, *A
    Reduction of Imitation Learning and Structured Prediction to No-Regret Online Learning*, section 3), with a new
    data set at each step.
    """
    begin = state = network.begin(pixels, images)
    shown = torch.zeros_like(given, dtype=torch.bool)
    log_policy, steps = [], []
    for t in range(given.shape[1]):
        first = (~shown).int().argmax(1, keepdim=True)
        right, sought = given.gather(1, first)[:, 0], ~shown.all(1)
        corrects = sought & (torch.rand(len(given), generator=generator, device=given.device) < CORRECTED)

        def choose(logits: Tensor, t: int, right: Tensor = right, corrects: Tensor = corrects) -> Tensor:
            return torch.where(corrects, right, greedy(logits, t))

        step = network.step(pixels, images, state=state, t=t, choose=choose)
        log_policy.append(location_log_probs(right, step.location_logits) * sought)
        shown = shown | network.grid.covers(step.cells[:, None].expand_as(given), given)
        state = step.state
        steps.append(step)
    return network.outputs(*stack_states(steps), torch.stack(log_policy, dim=1), begin)


def partial_supervision(training: Training, batch: Batch) -> Float[Tensor, ""]:
    """Return the partially supervised loss of a batch, with the entropy bonus on the images without given cells."""
    rollout, supervised, bonus = batch.rollout, batch.supervised, training.config.entropy_bonus
    network, free = training.network, ~supervised
    loss = partially_supervised_loss(rollout, batch.labels, supervised, supervised_labels=batch.supervised_labels)
    if bonus and free.any():
        begin = network.begin(training.pixels, batch.images[free])
        logits = network.logits_along(rollout.cells[free], rollout.states[free], begin)
        loss = loss + bonus * entropy_loss(rollout.log_policy[free], logits).mean()
    return loss


def label_only_step(training: Training, images: Int[Tensor, " b"], generator: Generator) -> Float[Tensor, ""]:
    """Return the label loss of a batch, with cells that no policy chooses."""
    T, choose = training.config.geometry.glimpses, training.choose(generator)
    rollout = training.network(training.pixels, images, glimpses=T, choose=choose)
    return label_loss(rollout.class_logits, training.labels[images]).mean()


def supervised_batch(training: Training, generator: Generator) -> tuple[Int[Tensor, " k"], Int[Tensor, "k T"]]:
    """Draw the images of a step that have given cells, and those cells; none if the method has no sequences."""
    device, sequences = training.pixels.device, training.sequences
    if sequences is None:
        cells = torch.empty(0, training.config.geometry.glimpses, dtype=torch.long, device=device)
        return cells[:, 0], cells
    k = min(training.config.supervised_batch, len(sequences.images))
    rows = torch.randint(len(sequences.images), (k,), generator=generator, device=device).to(sequences.images.device)
    return sequences.images[rows].to(device), sequences.cells[rows].to(device)
