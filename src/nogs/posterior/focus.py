"""The focus: the distribution over locations that a posterior is trained on, concentrated where a glimpse helps.

Where we differ from *Near-Optimal Glimpse Sequences* (section 4.2), which draws locations uniformly: where glimpses
are small, nearly all of them carry nothing about the label, and the few that do are learned slowly. A share of the
locations is drawn in proportion to the measured gain of one glimpse there,

    focus(l) = (1 - s) / L + s max(gain(l), 0) / Σ_m max(gain(m), 0).

Locations are drawn without regard to the image, so the target is still p(θ | glimpses).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor
from torch.distributions import Bernoulli, Categorical

from nogs.glimpses.fovea import nothing_seen
from nogs.information import entropy
from nogs.posterior.protocol import TrainablePosterior, every_candidate

MIN_RATE = 1e-3
"""Rates of a binary label are kept this far from 0 and 1, so that their entropy is finite."""


def nll(predicted: Categorical | Bernoulli, labels: Int[Tensor, "*labels"]) -> Float[Tensor, "*batch"]:
    """Return the negative log-likelihood in nats of one label, or its mean over the K labels of a multi-label set.

    ``labels`` broadcast against the batch shape of ``predicted``: [*batch], or [*batch, K].
    """
    log_probs: Tensor = predicted.log_prob(labels.to(predicted.logits.dtype))  # type: ignore[no-untyped-call] # by torch
    return -(log_probs.mean(-1) if isinstance(predicted, Bernoulli) else log_probs)


def draw_cells(focus: Float[Tensor, " L"], *, images: int, glimpses: int, generator: Generator) -> Int[Tensor, "n T"]:
    """Return T = ``glimpses`` locations for each of n = ``images`` images, drawn independently from ``focus``."""
    return focus.multinomial(images * glimpses, replacement=True, generator=generator).unflatten(0, (images, glimpses))


def gain_by_location(
    posterior: TrainablePosterior, images: UInt8[Tensor, "b c H H"], labels: Int[Tensor, " b"] | Int[Tensor, "b K"]
) -> Float[Tensor, " L"]:
    """Return by how many nats one glimpse at each location lowers the loss of these images, from the label rates'."""
    b, L = len(images), len(posterior.grid)
    candidates = every_candidate(images, torch.arange(b, device=images.device), locations=L)
    predicted = posterior.lookahead(nothing_seen(images, posterior.grid), candidates)
    after = nll(predicted, labels[candidates.rows]).unflatten(0, (b, L)).mean(0)
    if labels.ndim == 2:
        rate = labels.float().mean(0).clamp(MIN_RATE, 1 - MIN_RATE)
        before = -(rate * rate.log() + (1 - rate) * (1 - rate).log()).mean()
    else:
        before = entropy((labels.bincount(minlength=1).float() / len(labels)).log())
    return before - after


def focus_on(gain: Float[Tensor, " L"], share: float) -> Float[Tensor, " L"]:
    """Return the focus for a ``gain`` in nats, with s = ``share``; uniform if no location has a positive gain."""
    positive = gain.clamp_min(0)
    uniform = torch.full_like(gain, 1 / len(gain))
    if not positive.sum() > 0:
        return uniform
    return (1 - share) * uniform + share * positive / positive.sum()
