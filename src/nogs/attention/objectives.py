"""Training losses of a hard attention network, from its rollouts.

Per image, with reward R = 1[the last prediction is correct], over t = 1..T:

- label:      mean_t -log q(θ | y_1:t, l_1:t)
- REINFORCE:  Σ_t -log q(l_t | h_t-1) (R - b_t), with a learned baseline b_t, which does not change the expected
  gradient (Williams 1992; Mnih et al. 2014, eq. 8)
- entropy:    -H[q(l_1:T)], times the entropy bonus (Williams and Peng 1991)
- supervised: Σ_t -log q(l_t | h_t-1) at the given l_t (*Near-Optimal Glimpse Sequences*, section 4)
- wake-sleep: Σ_m w_m [label + Σ_t -log q(l_t | h_t-1) - Σ_t log r(l_t)] over samples of a proposal r
  (Ba, Salakhutdinov, Grosse and Frey 2015; Bornschein and Bengio 2015)

Each term is averaged over its own images, so that the batch sizes do not change their relative weights.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from nogs.attention.network import Rollout
from nogs.data.imageset import NO_LABEL
from nogs.information import entropy


def label_loss(class_logits: Float[Tensor, "B T C"], labels: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Return the cross-entropy of the label in nats, averaged over the T predictions; 0 where there is no label."""
    T = class_logits.shape[1]
    per_step = F.cross_entropy(
        class_logits.flatten(0, 1), labels.repeat_interleave(T), reduction="none", ignore_index=NO_LABEL
    )
    return per_step.unflatten(0, (-1, T)).mean(1)


def reinforce_loss(rollout: Rollout, labels: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Return the REINFORCE loss on final correctness, plus the mean squared error of the baseline."""
    reward = (rollout.class_logits[:, -1].argmax(-1) == labels).float()[:, None]
    advantage = reward - rollout.baselines
    policy = -(rollout.log_policy * advantage.detach()).sum(1)
    return policy + advantage.square().mean(1)


def entropy_loss(log_policy: Float[Tensor, "B T"], location_logits: Float[Tensor, "B T L"]) -> Float[Tensor, " B"]:
    """Return an estimate of T log L - H[q(l_1:T)] in nats, whose expected gradient is that of -H[q(l_1:T)].

    H[q(l_1:T)] = E Σ_t H[q(l_t | h_t-1)]. A cell changes the later states, so the gradient has a REINFORCE term: the
    reward of cell l_t is the entropy of the glimpses after t. Its baseline is the mean over the other images of the
    batch, which does not change the expected gradient.

    ``log_policy``: log-probability of each drawn cell. ``location_logits``: of each glimpse, from detached states.
    """
    B = len(log_policy)
    missing = math.log(location_logits.shape[-1]) - entropy(location_logits.log_softmax(-1))
    later = missing.detach().sum(1, keepdim=True) - missing.detach().cumsum(1)
    advantage = (later - later.mean(0)) * B / (B - 1) if B > 1 else later
    return (missing + log_policy * advantage).sum(1)


def supervised_loss(rollout: Rollout) -> Float[Tensor, " B"]:
    """Return the cross-entropy of the given locations in nats, summed over t."""
    return -rollout.log_policy.sum(1)


def partially_supervised_loss(
    rollout: Rollout,
    labels: Int[Tensor, " B"],
    supervised: Bool[Tensor, " B"],
    *,
    supervised_labels: bool,
) -> Float[Tensor, ""]:
    """Return label loss + REINFORCE (images that are not ``supervised``) + supervised loss, each a mean over images.

    ``supervised``: which images were run along given locations. ``supervised_labels``: whether their label loss
    counts too, as published, if they have a label. Without it they train the location head alone: a few teacher-forced
    images would overfit the classifier, and would not show it the policy's own locations.
    """
    free = ~supervised
    labelled = labels != NO_LABEL if supervised_labels else free
    loss = _mean(label_loss(rollout.class_logits, labels), labelled) + _mean(reinforce_loss(rollout, labels), free)
    return loss + _mean(supervised_loss(rollout), supervised)


class WakeSleepWeights(NamedTuple):
    """Weights of M sequences per image, constant and summing to 1: of the posterior, the policy and the proposal."""

    posterior: Float[Tensor, "B M"]
    policy: Float[Tensor, "B M"]
    proposal: Float[Tensor, "B M"]


def wake_sleep_weights(
    log_likelihood: Float[Tensor, "B M"],
    log_policy: Float[Tensor, "B M T"],
    log_proposal: Float[Tensor, "B M T"],
    log_drawn: Float[Tensor, "B M T"],
) -> WakeSleepWeights:
    """Return self-normalised importance weights of sequences l_1:T that were drawn from d(l_1:T) = exp Σ_t log_drawn.

        posterior: w_m ∝ q(θ | y_1:T, l_1:T) Π_t q(l_t | h_t-1) / d        (Bornschein and Bengio 2015, eq. 4)
        policy:    v_m ∝ Π_t q(l_t | h_t-1) / d
        proposal:  c_m ∝ Π_t r(l_t | h_t-1, x, θ) / d

    ``log_likelihood`` is log q(θ | y_1:T, l_1:T) of the true label.
    """
    policy, proposal, drawn = (terms.detach().sum(-1) for terms in (log_policy, log_proposal, log_drawn))
    likelihood = log_likelihood.detach()
    return WakeSleepWeights(
        (likelihood + policy - drawn).softmax(1), (policy - drawn).softmax(1), (proposal - drawn).softmax(1)
    )


def wake_sleep_loss(
    log_policy: Float[Tensor, "B M T"],
    log_proposal: Float[Tensor, "B M T"],
    weights: WakeSleepWeights,
    *,
    entropy_bonus: float = 0.0,
) -> Float[Tensor, " B"]:
    """Return the reweighted wake-sleep loss of policy and proposal: Σ_m (w_m - v_m) -log q - Σ_m (w_m - c_m) log r.

    v and c are control variates (Ba et al. 2015, section 3.3): the score functions have mean zero, so they do not
    change the gradient that the estimate converges to as M grows. That is the gradient of -log Σ_l q(l) q(θ | y, l)
    for the policy, and of KL(q(l | θ) ‖ r) for the proposal. The label's term is Σ_m w_m `label_loss`.

    ``entropy_bonus``: weight of H[q(l_1:T)], in nats, whose gradient is estimated with the weights v:
    ∇H = -E[log q ∇ log q].
    """
    log_q, log_r = log_policy.sum(-1), log_proposal.sum(-1)
    surprise = log_q.detach() - (weights.policy * log_q.detach()).sum(1, keepdim=True)
    policy = weights.posterior - weights.policy - entropy_bonus * weights.policy * surprise
    return -(policy * log_q + (weights.posterior - weights.proposal) * log_r).sum(1)


def _mean(values: Float[Tensor, " B"], mask: Bool[Tensor, " B"]) -> Float[Tensor, ""]:
    return (values * mask).sum() / mask.sum().clamp_min(1)
