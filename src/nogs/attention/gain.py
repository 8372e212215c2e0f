"""Learned gain maps: the location head regresses the gain that glimpses turn out to bring.

In training the label is known, so the realised gain of a candidate location l is known for every state h,

    Δ_l = log q(θ | h ⊕ (fovea(x, l), l)) - log q(θ | h),        θ the true label,

and the regression V(h)[l] = E[Δ_l | h] is the conditional mutual information I(θ; y_l | h) if q is the true posterior
(Gadgil, Covert and Lee 2024, *Estimating Conditional Mutual Information for Dynamic Feature Selection*, section 4).
argmax V is where to look next, and max V below a threshold is when to stop. As there, V = σ(logits) H[q], because no
glimpse can gain more than the entropy that is left.

Where we differ, and why:

- The candidates of an image are K locations anywhere, embedded once for all T states, and the locations that the policy
  takes, whose gains cost nothing more.
- As a first glimpse, the K locations also train the classifier. A classifier that never saw a place gains nothing
  there, so a policy that follows realised gains would never look there.

No gradient of the regression reaches embedding, core and classifier.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from nogs.attention.choosers import Chooser, greedy, sampling
from nogs.attention.network import HardAttention, State
from nogs.attention.train_step import Objective, Training
from nogs.glimpses.fovea import look
from nogs.information import entropy
from nogs.stopping.rules import Stop


def learned_gain(training: Training) -> Objective:
    """Return the objective of learned gain maps."""
    return Objective(training.network, partial(gain_step, training))


def gain_step(training: Training, images: Int[Tensor, " b"], generator: Generator) -> Float[Tensor, ""]:
    """Return the loss of a batch: the label's, along the path and at the K candidates, and the regression of gains.

    The label is also predicted before the first glimpse: gains are measured from there. Realised gains are clipped to
    ± 2 log C, or the few answers that are overconfident and wrong would outweigh all others.
    """
    config, network, pixels, labels = training.config, training.network, training.pixels, training.labels[images]
    T, K, L = config.geometry.glimpses, config.gain_candidates, len(network.grid)
    most = 2 * math.log(network.classifier.out_features)
    anywhere = torch.randint(L, (len(images), K), generator=generator, device=pixels.device)
    embedded = network.embedding(look(pixels, network.grid, anywhere, images).patches, anywhere)
    choose = exploring(config.exploration, generator)
    state = network.begin(pixels, images)
    before = log_likelihood(network, state.h, labels)
    label, regression = -before.mean(), torch.zeros((), device=pixels.device)
    for t in range(T):
        # The classifier learns from candidates as a first glimpse alone: of later ones it sees the policy's.
        with torch.set_grad_enabled(t == 0):
            of_candidates = log_likelihood_after(network, state, embedded, labels)
        step = network.step(pixels, images, state=state, t=t, choose=choose)
        after = log_likelihood(network, step.states, labels)
        realised = (torch.cat((of_candidates, after), dim=1) - before).detach().clamp(-most, most)
        predicted = predicted_gain(step.location_logits, network.classifier(state.h).detach())
        errors = (predicted.gather(1, torch.cat((anywhere, step.cells[:, None]), dim=1)) - realised).square()
        regression = regression + errors[:, :K].mean() + errors[:, K].mean()
        label = label - after.mean() - (T * of_candidates.mean() if t == 0 else 0)
        state, before = step.state, after
    return (label + regression) / T


def predicted_gain(
    location_logits: Float[Tensor, "*batch L"], class_logits: Float[Tensor, "*batch C"]
) -> Float[Tensor, "*batch L"]:
    """Return V = σ(location_logits) H[q], in nats: the predicted gain of a glimpse at each location."""
    return location_logits.sigmoid() * entropy(class_logits.log_softmax(-1))[..., None]


def stop_by_gain_map(threshold_nats: float) -> Stop:
    """Return the rule that stops an image where no location has a predicted gain of ``threshold_nats`` or more."""

    def stop(class_logits: Tensor, t: int, location_logits: Tensor) -> Tensor:
        return predicted_gain(location_logits, class_logits).amax(-1) < threshold_nats

    return stop


def log_likelihood(network: HardAttention, h: Float[Tensor, "B h"], labels: Int[Tensor, " B"]) -> Float[Tensor, "B 1"]:
    """Return log q(θ | h) of each image's label, in nats."""
    return network.classifier(h).log_softmax(-1).gather(1, labels[:, None])


def log_likelihood_after(
    network: HardAttention, state: State, embedded: Float[Tensor, "B K e"], labels: Int[Tensor, " B"]
) -> Float[Tensor, "B K"]:
    """Return log q(θ | h ⊕ glimpse) of each image's label, in nats, after each of its K embedded glimpses alone."""
    K = embedded.shape[1]
    h = network.core(embedded.flatten(0, 1), state.h.repeat_interleave(K, 0))
    log_probs = network.classifier(h).log_softmax(-1).unflatten(0, (-1, K))
    return log_probs.gather(2, labels[:, None, None].expand(-1, K, 1))[..., 0]


def exploring(exploration: float, generator: Generator) -> Chooser:
    """Return a chooser of the location of greatest predicted gain, or with probability ``exploration`` of a drawn one.

    Drawn ones have probability ∝ V / (H[q] - V), the softmax of the logits.
    """
    draw = sampling(generator)

    def choose(logits: Tensor, t: int) -> Tensor:
        explore = torch.rand(len(logits), generator=generator, device=logits.device) < exploration
        return torch.where(explore, draw(logits, t), greedy(logits, t))

    return choose
