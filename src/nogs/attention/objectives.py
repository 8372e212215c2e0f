"""What a hard attention network is trained to do, given the record of what it did.

Per image, with reward R = 1[the last prediction is right], over t = 1..T:

- label:      mean_t -log q(θ | y_1:t, l_1:t)
- REINFORCE:  Σ_t -log q(l_t | h_t-1) (R - b_t), b_t a learned baseline that leaves the mean gradient alone
  (Williams 1992; Mnih et al. 2014, eq. 8)
- supervised: Σ_t -log q(l_t | h_t-1) at the given l_t (*Near-Optimal Glimpse Sequences*, section 4)
- wake-sleep: Σ_m w_m [label + Σ_t -log q(l_t | h_t-1) - Σ_t log r(l_t)] over samples of a proposal r
  (Ba, Salakhutdinov, Grosse and Frey 2015; Bornschein and Bengio 2015)

Each is averaged over its images, so that no term outweighs another by the batch size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


class Rollout(NamedTuple):
    """What happened in T glimpses of B images; index t - 1 holds glimpse t and what was said after it."""

    cells: Int[Tensor, "B T"]
    log_policy: Float[Tensor, "B T"]
    """log q(l_t | h_t-1) of the cells that were looked at."""
    baselines: Float[Tensor, "B T"]
    class_logits: Float[Tensor, "B T C"]
    states: Float[Tensor, "B T h"]


def label_loss(rollout: Rollout, labels: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Cross-entropy of the label in nats, averaged over the T predictions."""
    T = rollout.class_logits.shape[1]
    per_step = F.cross_entropy(rollout.class_logits.flatten(0, 1), labels.repeat_interleave(T), reduction="none")
    return per_step.unflatten(0, (-1, T)).mean(1)


def location_log_probs(
    cells: Int[Tensor, "*batch"], location_logits: Float[Tensor, "*batch L"]
) -> Float[Tensor, "*batch"]:
    """The log-probability of each cell under the logits of its glimpse.

    A cross-entropy: its gradient takes one pass over the cells, where gather and logsumexp take four.
    """
    surprise = F.cross_entropy(location_logits.flatten(0, -2), cells.flatten(), reduction="none")
    return -surprise.view_as(cells)


def reinforce_loss(rollout: Rollout, labels: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """REINFORCE on final correctness, plus the squared error of the baseline."""
    reward = (rollout.class_logits[:, -1].argmax(-1) == labels).float()[:, None]
    advantage = reward - rollout.baselines
    policy = -(rollout.log_policy * advantage.detach()).sum(1)
    return policy + advantage.square().mean(1)


def supervised_loss(rollout: Rollout) -> Float[Tensor, " B"]:
    """Cross-entropy of the given locations, summed over t."""
    return -rollout.log_policy.sum(1)


def partially_supervised_loss(
    rollout: Rollout,
    labels: Int[Tensor, " B"],
    supervised: Bool[Tensor, " B"],
    *,
    supervised_labels: bool,
) -> Float[Tensor, ""]:
    """The sum of the three, each over the images it speaks of.

    ``supervised_labels``: whether images run along given locations teach the classifier too, as published.
    Without, they teach the location head alone: teacher-forced images would overfit the classifier, and
    would not show it the policy's own locations.
    """
    free = ~supervised
    teaches = torch.ones_like(free) if supervised_labels else free
    loss = _mean(label_loss(rollout, labels), teaches) + _mean(reinforce_loss(rollout, labels), free)
    return loss + _mean(supervised_loss(rollout), supervised)


def wake_sleep_loss(
    rollout: Rollout, labels: Int[Tensor, " BM"], log_proposal: Float[Tensor, "BM T"], *, samples: int
) -> Float[Tensor, " B"]:
    """Reweighted wake-sleep: what the label makes likely in hindsight is what policy and proposal shall do.

    The M = ``samples`` rows of an image lie side by side, drawn from r(l_1:T) = exp Σ_t ``log_proposal``. With

        w_m ∝ q(θ | y_1:T, l_1:T) Π_t q(l_t | h_t-1) / r(l_1:T),    Σ_m w_m = 1, held fixed,

    the gradient tends, as M grows, to that of -log Σ_l q(l) q(θ | y, l) for the network, and for r to that of
    KL(q(l | θ) ‖ r). Where the network predicts at every t, the label's term is averaged as elsewhere.
    """
    log_policy, log_proposed = rollout.log_policy.sum(1), log_proposal.sum(1)
    log_likelihood = -F.cross_entropy(rollout.class_logits[:, -1], labels, reduction="none")
    log_weights = (log_likelihood + log_policy - log_proposed).detach()
    surprise = label_loss(rollout, labels) - log_policy - log_proposed
    return (log_weights.unflatten(0, (-1, samples)).softmax(1) * surprise.unflatten(0, (-1, samples))).sum(1)


def _mean(values: Float[Tensor, " B"], mask: Bool[Tensor, " B"]) -> Float[Tensor, ""]:
    return (values * mask).sum() / mask.sum().clamp_min(1)
