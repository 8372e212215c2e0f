"""DIME: gain maps learned from the gain of the one location that is looked at.

Gadgil, Covert and Lee 2024, *Estimating Conditional Mutual Information for Dynamic Feature Selection*, section 4. A
predictor q(θ | h) and a value network V(h)[l] are trained together along the same glimpses. For the location l that is
looked at, V regresses the loss reduction

    Δ = log q(θ | h ⊕ (fovea(x, l), l)) - log q(θ | h),        θ the true label,

so that V(h)[l] converges to the conditional mutual information I(θ; y_l | h). V = σ(logits) H[q] is bounded by the
entropy that is left. The location is argmax V, or with probability ε a uniformly random one. The predictor is trained
on random locations first, and ε falls during the training. max V below a threshold is when to stop
(`nogs.attention.gain.stop_by_gain_map`).

Where we differ, and why:

- ε falls by a factor of 5 after each fifth of the iterations that follow the random places, where theirs falls by that
  factor on plateaus of the validation loss (`nogs.attention.annealed`).
- Predictor and value network read one recurrent state, as for every method here, and no gradient of the regression
  reaches it. In their code on images both share a backbone, which both losses train.
- An image may be looked at twice in the same place at test time. A second look has no gain, and V learns so.
"""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from nogs.attention.annealed import Annealed, pretraining_share, random_places_loss, staged
from nogs.attention.choosers import Chooser, anywhere, greedy
from nogs.attention.gain import log_likelihood, predicted_gain
from nogs.attention.train_step import Objective, Training

DECAY = 0.2
"""Factor of ε from stage to stage (their code: ``eps_decay=0.2``)."""


def dime(training: Training) -> Objective:
    """Return the objective of DIME."""
    annealed = Annealed(training.network, iterations=training.config.optimisation.iterations)
    return Objective(annealed, partial(dime_step, training, annealed))


def dime_step(
    training: Training, annealed: Annealed, images: Int[Tensor, " b"], generator: Generator
) -> Float[Tensor, ""]:
    """Return the loss of a batch: at random places first, then the label's and the regression's along the policy.

    The label's loss includes the answer before the first glimpse, because gains are measured from there.
    """
    config, network, pixels, labels = training.config, training.network, training.pixels, training.labels[images]
    share, T = annealed.next_step(), config.geometry.glimpses
    pretraining = pretraining_share(training)
    if share < pretraining:
        return random_places_loss(training, images, generator)
    exploration = staged(share, after=pretraining, first=config.gains.exploration, ratio=DECAY)
    choose = epsilon_greedy(exploration, len(network.grid), generator)
    state = network.begin(pixels, images)
    class_logits = network.classifier(state.h)
    before = log_likelihood(class_logits, labels)
    loss = -before.mean()
    for t in range(T):
        step = network.step(pixels, images, state=state, t=t, choose=choose)
        predicted = predicted_gain(step.location_logits, class_logits.detach()).gather(1, step.cells[:, None])
        class_logits = network.classifier(step.states)
        after = log_likelihood(class_logits, labels)
        loss = loss - after.mean() + (predicted - (after - before).detach()).square().mean()
        state, before = step.state, after
    return loss / (T + 1)


def epsilon_greedy(exploration: float, locations: int, generator: Generator) -> Chooser:
    """Return a chooser of the greatest of ``locations`` logits, or with probability ``exploration`` of any cell."""
    draw = anywhere(locations, generator)

    def choose(logits: Tensor, t: int) -> Tensor:
        explore = torch.rand(len(logits), generator=generator, device=logits.device) < exploration
        return torch.where(explore, draw(logits, t), greedy(logits, t))

    return choose
