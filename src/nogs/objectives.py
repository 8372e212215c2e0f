"""What a hard attention network is trained to do, given the record of what it did.

Per image, with reward R = 1[the last prediction is right], over t = 1..T:

- label:      mean_t -log q(θ | y_1:t, l_1:t)
- REINFORCE:  Σ_t -log q(l_t | h_t-1) (R - b_t), b_t a learned baseline that leaves the mean gradient alone
  (Williams 1992; Mnih et al. 2014, eq. 8)
- supervised: Σ_t -log q(l_t | h_t-1) at the given l_t (*Near-Optimal Glimpse Sequences*, section 4)

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
    location_logits: Float[Tensor, "B T L"]
    baselines: Float[Tensor, "B T"]
    class_logits: Float[Tensor, "B T C"]


def label_loss(rollout: Rollout, labels: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Cross-entropy of the label in nats, averaged over the T predictions."""
    T = rollout.class_logits.shape[1]
    per_step = F.cross_entropy(rollout.class_logits.flatten(0, 1), labels.repeat_interleave(T), reduction="none")
    return per_step.unflatten(0, (-1, T)).mean(1)


def location_log_probs(rollout: Rollout) -> Float[Tensor, "B T"]:
    """log q(l_t | h_t-1) of the cells that were looked at."""
    chosen = rollout.location_logits.gather(-1, rollout.cells[..., None])[..., 0]
    return chosen - rollout.location_logits.logsumexp(-1)


def reinforce_loss(rollout: Rollout, labels: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """REINFORCE on final correctness, plus the squared error of the baseline."""
    reward = (rollout.class_logits[:, -1].argmax(-1) == labels).float()[:, None]
    advantage = reward - rollout.baselines
    policy = -(location_log_probs(rollout) * advantage.detach()).sum(1)
    return policy + advantage.square().mean(1)


def supervised_loss(rollout: Rollout) -> Float[Tensor, " B"]:
    """Cross-entropy of the given locations, summed over t."""
    return -location_log_probs(rollout).sum(1)


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


def _mean(values: Float[Tensor, " B"], mask: Bool[Tensor, " B"]) -> Float[Tensor, ""]:
    return (values * mask).sum() / mask.sum().clamp_min(1)
