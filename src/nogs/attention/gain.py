"""Learned gain maps: the location head regresses the gain that glimpses turn out to bring.

In training the label is known, so the realised gain of a candidate location l is known for every state h,

    Δ_l = log q(θ | h ⊕ (fovea(x, l), l)) - log q(θ | h),        θ the true label,

and the regression V(h)[l] = E[Δ_l | h] is the conditional mutual information I(θ; y_l | h) if q is the true posterior
(Gadgil, Covert and Lee 2024, *Estimating Conditional Mutual Information for Dynamic Feature Selection*, section 4).
argmax V is where to look next, and max V below a threshold is when to stop. As there, V = σ(logits) H[q], because no
glimpse can gain more than the entropy that is left.

One step of gain cannot see a glimpse that only shows where to look next. With ``foresight`` γ > 0 the target is
Δ_l + γ max_l' V(h ⊕ l)[l'], the gain and the discounted best gain after it, and Δ_l alone for the last of T glimpses
(Q-learning, Watkins 1989, with gains as rewards). V is still at most H[q].

Where we differ, and why:

- The candidates of an image are K locations anywhere (all locations if there are no more), embedded once for all T
  states, and the locations that the policy takes, whose gains cost nothing more.
- With ``detail`` > 0, that share of the K locations is drawn where the overview has detail. Of glimpses of 40 pixels on
  `megapixel`, one in 600 shows a digit, and one in five of those where an overview of 150 pixels has detail.
- As a first glimpse, the K locations also train the classifier. A classifier that never saw a place gains nothing
  there, so a policy that follows realised gains would never look there. With foresight they train it at every glimpse:
  what a glimpse leads to shows only if the classifier has practised the two together.
- A location that is taken in place of the one of greatest predicted gain is drawn by the logits, and with foresight
  uniformly: a glimpse that leads to much looks worthless until what it leads to has been learned.

No gradient of the regression reaches embedding, core and classifier, except with foresight. A state then has to hold
where to look next, which the label does not teach, so the regression trains embedding and core too.
"""

from __future__ import annotations

import math
from functools import partial
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from nogs.attention import choosers
from nogs.attention.annealed import Annealed, random_places_loss
from nogs.attention.choosers import Chooser, greedy, sampling
from nogs.attention.network import HardAttention, State
from nogs.attention.overview import INITIAL_LOGIT, cells_of_detail
from nogs.attention.train_step import Objective, Training
from nogs.config.groups import GainOptions, Geometry
from nogs.data.pixels import overview
from nogs.errors import UserError
from nogs.glimpses.fovea import look
from nogs.information import entropy
from nogs.stopping.rules import Stop


def learned_gain(training: Training) -> Objective:
    """Return the objective of learned gain maps. Raises UserError for ``detail`` > 0 without an overview."""
    check_detail(training.config.gains, training.config.geometry)
    if training.config.gains.foresight and not training.config.start:
        lower_initial_gains(training.network)
    if not training.config.gains.pretraining:
        return Objective(training.network, partial(gain_step, training))
    annealed = Annealed(training.network, iterations=training.config.optimisation.iterations)
    return Objective(annealed, partial(pretrained_gain_step, training, annealed))


def check_detail(gains: GainOptions, geometry: Geometry) -> None:
    """Raise UserError if candidates are drawn where an overview has detail, and there is none."""
    if gains.detail and not geometry.overview:
        raise UserError(f"detail={gains.detail} needs an overview: give `overview`, or detail=0")


def pretrained_gain_step(
    training: Training, annealed: Annealed, images: Int[Tensor, " b"], generator: Generator
) -> Float[Tensor, ""]:
    """Return the loss of a batch: at random cells in the first share of the iterations, then of `gain_step`."""
    if annealed.next_step() < (training.config.gains.pretraining or 0.0):
        return random_places_loss(training, images, generator)
    return gain_step(training, images, generator)


def lower_initial_gains(network: HardAttention) -> None:
    """Set the last bias of a location head that is a perceptron to `INITIAL_LOGIT`, where a `LocationMap` begins.

    Predicted gains then begin near zero, as nearly all realised ones are, and not at half of the entropy.
    """
    if network.overview is None:
        last = cast(nn.Linear, cast(nn.Sequential, network.locator)[-1])
        nn.init.constant_(last.bias, INITIAL_LOGIT)


def gain_step(training: Training, images: Int[Tensor, " b"], generator: Generator) -> Float[Tensor, ""]:
    """Return the loss of a batch: the label's, along the path and at the K candidates, and the regression of gains.

    The label is also predicted before the first glimpse: gains are measured from there. Targets are clipped to
    ± 2 log C, or the few answers that are overconfident and wrong would outweigh all others.
    """
    network, pixels, labels = training.network, training.pixels, training.labels[images]
    T, gains = training.config.geometry.glimpses, training.config.gains
    most = 2 * math.log(network.classifier.out_features)
    anywhere = candidates(training, images, generator)
    K = anywhere.shape[1]
    embedded = network.embedding(look(pixels, network.grid, anywhere, images).patches, anywhere)
    draw = choosers.anywhere(len(network.grid), generator) if gains.foresight else None
    choose = exploring(gains.exploration, generator, draw=draw)
    locate = partial(attached_logits, network) if gains.foresight else None
    weights = [1] * T if gains.foresight else [T] + [0] * (T - 1)
    state = network.begin(pixels, images)
    class_logits = network.classifier(state.h)
    before = log_likelihood(class_logits, labels)
    label, regression = -before.mean(), torch.zeros((), device=pixels.device)
    for t in range(T):
        # Without foresight the classifier learns from candidates as a first glimpse alone.
        with torch.set_grad_enabled(weights[t] > 0):
            looked = after_candidates(network, state, embedded, anywhere, scene=gains.foresight > 0)
            of_candidates = log_likelihood(network.classifier(looked.h), labels.repeat_interleave(K)).view(-1, K)
        step = network.step(pixels, images, state=state, t=t, choose=choose, locate=locate)
        next_logits = network.classifier(step.states)
        after = log_likelihood(next_logits, labels)
        realised = (torch.cat((of_candidates, after), dim=1) - before).detach()
        if gains.foresight and t + 1 < T:
            next_gains = torch.cat((best_gain(network, looked).view(-1, K), best_gain(network, step.state)[:, None]), 1)
            realised = realised + gains.foresight * next_gains
        predicted = predicted_gain(step.location_logits, class_logits.detach())
        at_cells = predicted.gather(1, torch.cat((anywhere, step.cells[:, None]), dim=1))
        errors = (at_cells - realised.clamp(-most, most)).square()
        regression = regression + errors[:, :K].mean() + errors[:, K].mean()
        label = label - after.mean() - weights[t] * of_candidates.mean()
        state, class_logits, before = step.state, next_logits, after
    return (label + regression) / T


def candidate_cells(images: int, count: int, locations: int, generator: Generator) -> Int[Tensor, "b K"]:
    """Return the K = ``count`` candidates of each image: drawn uniformly, or all ``locations`` if there are as many."""
    if count == locations:
        return torch.arange(locations, device=generator.device).expand(images, -1)
    return torch.randint(locations, (images, count), generator=generator, device=generator.device)


def candidates(training: Training, images: Int[Tensor, " b"], generator: Generator) -> Int[Tensor, "b K"]:
    """Draw K locations of each image: a share of ``detail`` where its overview has detail, the others anywhere."""
    gains, network, pixels = training.config.gains, training.network, training.pixels
    L = len(network.grid)
    K = min(gains.gain_candidates, L)
    anywhere = candidate_cells(len(images), K, L, generator)
    count = round(gains.detail * K)
    if count == 0 or network.overview is None:
        return anywhere
    reduced = overview(pixels, images, network.overview.side_px)
    return torch.cat((cells_of_detail(network.grid, reduced, count, generator), anywhere[:, count:]), dim=1)


def predicted_gain(
    location_logits: Float[Tensor, "*batch L"], class_logits: Float[Tensor, "*batch C"]
) -> Float[Tensor, "*batch L"]:
    """Return V = σ(location_logits) H[q], in nats: the predicted gain of a glimpse at each location."""
    return location_logits.sigmoid() * entropy(class_logits.log_softmax(-1))[..., None]


def greatest_gain(
    location_logits: Float[Tensor, "*batch L"], class_logits: Float[Tensor, "*batch C"]
) -> Float[Tensor, "*batch"]:
    """Return the greatest predicted gain over all locations, in nats: that of the greatest logit."""
    return predicted_gain(location_logits.amax(-1, keepdim=True), class_logits)[..., 0]


def stop_by_gain_map(threshold_nats: float) -> Stop:
    """Return the rule that stops an image where no location has a predicted gain of ``threshold_nats`` or more."""

    def stop(class_logits: Tensor, t: int, location_logits: Tensor) -> Tensor:
        return greatest_gain(location_logits, class_logits) < threshold_nats

    return stop


def greatest_gains(peak_logits: Float[Tensor, "n T"], class_logits: Float[Tensor, "n T C"]) -> Float[Tensor, "n T-1"]:
    """Return the greatest predicted gain over all locations after t = 1..T-1 glimpses, in nats.

    ``peak_logits``: the greatest location logit before each glimpse. ``class_logits``: after each glimpse.
    """
    return greatest_gain(peak_logits[:, 1:, None], class_logits[:, :-1])


def log_likelihood(class_logits: Float[Tensor, "B C"], labels: Int[Tensor, " B"]) -> Float[Tensor, "B 1"]:
    """Return log q(θ) of each image's label, in nats."""
    return class_logits.log_softmax(-1).gather(1, labels[:, None])


def after_candidates(
    network: HardAttention,
    state: State,
    embedded: Float[Tensor, "B K e"],
    cells: Int[Tensor, "B K"],
    *,
    scene: bool,
) -> State:
    """Return B K states: of each image after each of its K embedded glimpses alone. ``scene``: with its scene."""
    each = torch.arange(len(cells), device=cells.device).repeat_interleave(cells.shape[1])
    known = state if scene else state._replace(scene=None)
    return network.after(known.select(each), embedded.flatten(0, 1), cells.flatten())


@torch.no_grad()
def best_gain(network: HardAttention, state: State) -> Float[Tensor, " B"]:
    """Return the greatest predicted gain over all locations, in nats."""
    return greatest_gain(network.location_logits(state.h, state.scene), network.classifier(state.h))


def attached_logits(network: HardAttention, state: State) -> Float[Tensor, "B L"]:
    """Return the location logits, whose gradient flows into the state."""
    return network.locator(state.h) if state.scene is None else network.locator(state.h, state.scene)


def exploring(exploration: float, generator: Generator, *, draw: Chooser | None = None) -> Chooser:
    """Return a chooser of the location of greatest predicted gain, or with probability ``exploration`` of a drawn one.

    ``draw``: how it is drawn, by default with probability ∝ V / (H[q] - V), the softmax of the logits.
    """
    draw = draw or sampling(generator)

    def choose(logits: Tensor, t: int) -> Tensor:
        explore = torch.rand(len(logits), generator=generator, device=logits.device) < exploration
        return torch.where(explore, draw(logits, t), greedy(logits, t))

    return choose
