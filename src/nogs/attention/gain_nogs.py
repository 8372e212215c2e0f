"""Gain maps that start from designed sequences, and go on by realised gains.

`nogs.attention.gain` learns V(h)[l] = E[Δ_l | h] from nothing. Where few places are informative it stays on a plateau:
a place that the classifier has not practised shows no realised gain, so the policy does not look there, and the
classifier never practises it. A search (`nogs.design`) finds informative places without a classifier. Its sequences of
T cells start here what realised gains go on with:

1. An image follows the designed cells of another image, drawn from all sequences, or the map. The share that follows
   designed cells falls linearly from 1 to 0 over the first ``handover`` of the iterations. So the classifier practises
   designed places before gains that it realises there decide where to look.
2. The candidates of a state are K locations anywhere and the T designed cells of another image, embedded once for all
   states, and the location that is taken. V regresses their realised gains.
3. As in PS-NOGS, -log softmax(logits)[l_t] of the designed l_t of some images trains the location head to the end. V is
   increasing in the logits, so this ranks the locations of a state by V. Later glimpses differ by hundredths of a nat,
   and a realised gain is a draw with a standard deviation of tenths. This raises V at designed
   cells: in an enumerable world to 0.60 nats where the gain is 0.51.

The regression descends H[q] softplus(a) - Δ a in the logit a of V = σ(a) H[q]. Its derivative is V - Δ, so it is least
at V = E[Δ | h], as the squared error is. The derivative of the squared error has another factor σ'(a) H[q], which
vanishes for small gains. Logits begin at `INITIAL_LOGIT`, because nearly all locations gain nearly nothing.

No gradient of the regression and of 3 reaches embedding, core and classifier, which learn the label along the path that
is taken.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn import functional as F

from nogs.attention.annealed import Annealed
from nogs.attention.choosers import Chooser
from nogs.attention.gain import (
    after_candidates,
    candidates,
    check_detail,
    exploring,
    log_likelihood,
    lower_initial_gains,
)
from nogs.attention.network import location_log_probs
from nogs.attention.train_step import Objective, Training, supervised_batch
from nogs.glimpses.fovea import look
from nogs.information import entropy


def gain_nogs(training: Training) -> Objective:
    """Return the objective of gain maps that start from designed sequences. Raises UserError as `learned_gain` does."""
    check_detail(training.config.gains, training.config.geometry)
    network = training.network
    lower_initial_gains(network)
    annealed = Annealed(network, iterations=training.config.optimisation.iterations)
    return Objective(annealed, partial(gain_nogs_step, training, annealed))


def gain_nogs_step(
    training: Training, annealed: Annealed, images: Int[Tensor, " b"], generator: Generator
) -> Float[Tensor, ""]:
    """Return the loss of a batch: the label's along the path, the regression of gains, and that of designed cells.

    The label is also predicted before the first glimpse: gains are measured from there.
    """
    config, network, pixels, labels = training.config, training.network, training.pixels, training.labels[images]
    T, gains, share = config.geometry.glimpses, config.gains, annealed.next_step()
    following = 1 - share / gains.handover if share < gains.handover else 0.0
    choose = handing_over(designed_paths(training, len(images), generator), following, gains.exploration, generator)
    tried = with_designed(candidates(training, images, generator), training, generator)
    state = network.begin(pixels, images)
    class_logits = network.classifier(state.h)
    before = log_likelihood(class_logits, labels)
    label, regression = -before.mean(), torch.zeros((), device=pixels.device)
    with torch.no_grad():
        embedded = network.embedding(look(pixels, network.grid, tried, images).patches, tried)
    for t in range(T):
        with torch.no_grad():
            looked = after_candidates(network, state, embedded, tried, scene=False)
            repeated = labels.repeat_interleave(tried.shape[1])
            of_candidates = log_likelihood(network.classifier(looked.h), repeated).view(tried.shape)
        step = network.step(pixels, images, state=state, t=t, choose=choose)
        next_logits = network.classifier(step.states)
        after = log_likelihood(next_logits, labels)
        realised = (torch.cat((of_candidates, after), dim=1) - before).detach()
        at_cells = step.location_logits.gather(1, torch.cat((tried, step.cells[:, None]), dim=1))
        losses = gain_loss(at_cells, class_logits.detach(), realised)
        regression = (
            regression + torch.stack([group.mean() for group in losses.split((tried.shape[1] - T, T, 1), dim=1)]).sum()
        )
        label = label - after.mean()
        state, class_logits, before = step.state, next_logits, after
    return (label + regression) / T + designed_cells_loss(training, generator)


def gain_loss(
    location_logits: Float[Tensor, "B n"], class_logits: Float[Tensor, "B C"], gains: Float[Tensor, "B n"]
) -> Float[Tensor, "B n"]:
    """Return H[q] softplus(a) - Δ a of each logit a and realised gain Δ in nats, whose derivative in a is V - Δ.

    Gains are clipped to ± 2 log C, or the few answers that are overconfident and wrong would outweigh all others.
    """
    most = 2 * math.log(class_logits.shape[-1])
    left = entropy(class_logits.log_softmax(-1))[:, None]
    return left * F.softplus(location_logits) - gains.clamp(-most, most) * location_logits


def designed_cells_loss(training: Training, generator: Generator) -> Float[Tensor, ""]:
    """Return -log softmax(logits)[l_t] of designed cells, averaged over t and over ``supervised_batch`` images."""
    network, pixels = training.network, training.pixels
    images, cells = supervised_batch(training, generator)
    begin = network.begin(pixels, images)
    with torch.no_grad():
        states = network.encode(look(pixels, network.grid, cells, images), begin)
    return -location_log_probs(cells, network.logits_along(cells, states, begin)).mean()


def designed_paths(training: Training, count: int, generator: Generator) -> Int[Tensor, "n T"]:
    """Return ``count`` designed sequences of cells, drawn with replacement from those of all images."""
    if training.sequences is None:
        raise ValueError("sequences=None: gain-nogs starts from designed sequences; give a run of `nogs search`")
    cells = training.sequences.cells
    rows = torch.randint(len(cells), (count,), generator=generator, device=training.pixels.device)
    return cells[rows.to(cells.device)].to(training.pixels.device)


def with_designed(cells: Int[Tensor, "B K"], training: Training, generator: Generator) -> Int[Tensor, "B KT"]:
    """Return K candidates of each image, and after them the T designed cells of another image."""
    return torch.cat((cells, designed_paths(training, len(cells), generator)), dim=1)


def handing_over(paths: Int[Tensor, "B T"], following: float, exploration: float, generator: Generator) -> Chooser:
    """Return a chooser in which images follow their row of ``paths`` with probability ``following``, else the map.

    An image follows its path in all T glimpses or in none. ``exploration``: as in `nogs.attention.gain.exploring`.
    """
    follow = torch.rand(len(paths), generator=generator, device=paths.device) < following
    by_map = exploring(exploration, generator)

    def choose(logits: Tensor, t: int) -> Tensor:
        return torch.where(follow, paths[:, t], by_map(logits, t))

    return choose
