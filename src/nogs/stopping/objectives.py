"""Losses of the stopping heads, computed from the recorded outputs of a frozen network.

Per image, with q_t = q(θ | y_1:t, l_1:t), t = 1..T, and a cost per glimpse in nats (ACT) or accuracy (stochastic):

- expected gain: squared error of the predicted gains of k more glimpses (`gains_ahead`)
- ACT (Graves 2016, eqs. 5-14): -log Σ_t p_t q_t(θ) + cost (N + R)
- stochastic: REINFORCE with the reward 1[q_N correct] - cost N

Costs are a batch dimension, and T is the last dimension. The rules that the heads serve are in `nogs.stopping.rules`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor
from torch.nn import functional as F

from nogs.information import entropy
from nogs.stopping.rules import at_step, halt, mean_field, stop_log_probs, stop_sampled


class Targets(NamedTuple):
    """The targets of the heads for n images: gains of k more glimpses after t, and predictions of the label."""

    entropy_gain: Float[Tensor, "n G K"]
    accuracy_gain: Float[Tensor, "n G K"]
    label_log_probs: Float[Tensor, "n T"]
    correct: Bool[Tensor, "n T"]


def stopping_targets(class_logits: Float[Tensor, "n T C"], labels: Int[Tensor, " n"]) -> Targets:
    """Return the targets of every head from the network's class logits after each glimpse."""
    log_probs, T = class_logits.log_softmax(-1), class_logits.shape[1]
    correct = log_probs.argmax(-1) == labels[:, None]
    return Targets(
        gains_ahead(-entropy(log_probs)),
        gains_ahead(correct.float()),
        log_probs.gather(-1, labels[:, None, None].expand(-1, T, 1))[..., 0],
        correct,
    )


def gains_ahead(value: Float[Tensor, "n T"]) -> Float[Tensor, "n G K"]:
    """Return value_t+k - value_t for t = 1..T-1 and k = 1..T-1; 0 where t + k > T.

    ``value``: of the prediction after each glimpse: -H[q_t] in nats, or 1[q_t correct].
    """
    T = value.shape[1]
    later = torch.stack([F.pad(value[:, k:], (0, k)) for k in range(1, T)], dim=-1)[:, :-1]
    return (later - value[:, :-1, None]) * within_reach(T).to(value.device)


def within_reach(T: int) -> Bool[Tensor, "G K"]:
    """Return whether t + k ≤ T, for t = 1..T-1 and k = 1..T-1."""
    return torch.arange(1, T)[:, None] + torch.arange(1, T) <= T


def gain_loss(predicted: Float[Tensor, "n T K"], gains: Float[Tensor, "n G K"]) -> Float[Tensor, ""]:
    """Return the mean squared error over the horizons within reach."""
    reachable = within_reach(predicted.shape[1]).to(predicted.device).expand_as(gains)
    return F.mse_loss(predicted[:, :-1][reachable], gains[reachable])


def act_loss(
    halting: Float[Tensor, "*batch T"], label_log_probs: Float[Tensor, "*#batch T"], costs: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*batch"]:
    """Return -log Σ_t p_t q_t(θ) + cost (N + R) in nats for each cost, where θ is the true label."""
    _, weights, ponder = halt(halting)
    return costs * ponder - mean_field(weights, label_log_probs[..., None])[..., 0]


def stochastic_loss(
    logits: Float[Tensor, "*batch T"], steps: Int[Tensor, "*batch"], rewards: Float[Tensor, "*#batch T"]
) -> Float[Tensor, "*batch"]:
    """Return the REINFORCE loss of drawn steps N: -log p(N) (r_N - b), given the reward r_t of stopping at each t.

    All r_t are recorded, so b is the exact expected reward of the same image, Σ_t p(N = t) r_t. It does not depend on
    the draw, so it does not change the expected gradient.
    """
    log_probs = stop_log_probs(logits)
    baseline = (log_probs.exp() * rewards).sum(-1)
    advantage = (at_step(rewards, steps) - baseline).detach()
    return -at_step(log_probs, steps) * advantage


Objective = Callable[[Float[Tensor, "n T k"], Targets, Float[Tensor, " K"], Generator | None], Float[Tensor, ""]]
"""(outputs of a head, targets, costs, chance) → its loss; without chance the expected loss, for validation."""


def _entropy_gain(outputs: Tensor, targets: Targets, costs: Tensor, generator: Generator | None) -> Tensor:
    return gain_loss(outputs, targets.entropy_gain)


def _accuracy_gain(outputs: Tensor, targets: Targets, costs: Tensor, generator: Generator | None) -> Tensor:
    return gain_loss(outputs, targets.accuracy_gain)


def _act(outputs: Tensor, targets: Targets, costs: Tensor, generator: Generator | None) -> Tensor:
    return act_loss(outputs.sigmoid().mT, targets.label_log_probs[:, None], costs).mean()


def _stochastic(outputs: Tensor, targets: Targets, costs: Tensor, generator: Generator | None) -> Tensor:
    t = torch.arange(1, outputs.shape[1] + 1, device=outputs.device)
    rewards = targets.correct[:, None].float() - costs[:, None] * t
    if generator is None:
        return -(stop_log_probs(outputs.mT).exp() * rewards).sum(-1).mean()
    return stochastic_loss(outputs.mT, stop_sampled(outputs.mT, generator), rewards).mean()


OBJECTIVES: dict[str, Objective] = {
    "entropy_gain": _entropy_gain,
    "accuracy_gain": _accuracy_gain,
    "act": _act,
    "stochastic": _stochastic,
}
"""Name of a head of `nogs.stopping.heads.StoppingHeads` → its objective."""
