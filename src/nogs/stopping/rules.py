"""When to stop looking: what a stopping head learns, and rules from recorded outputs to the step N to stop at.

Per image, with q_t = q(θ | y_1:t, l_1:t) of a network that answers at every t = 1..T:

- expected gain (adaptive stopping of *Near-Optimal Glimpse Sequences*): a head regresses what k more glimpses
  bring, H[q_t] - H[q_t+k] in nats or 1[q_t+k right] - 1[q_t right]; stop where the most a glimpse can bring, the
  greatest gain / k, falls under a threshold. The poster has k = 1, after which an image whose next glimpse tells
  nothing, and whose second next tells all, is given up.
- confidence: stop where max_θ q_t(θ) is over a threshold.
- ACT (Graves 2016, *Adaptive Computation Time*, eqs. 5-12): halting probabilities h_t, N = min{t: Σ_u≤t h_u ≥
  1 - ε}, remainder R = 1 - Σ_u<N h_u, weights p_t = h_t for t < N and p_N = R; the answer is the mean field
  Σ_t p_t q_t, its loss -log Σ_t p_t q_t(θ) + cost (N + R). We halt a network that is trained already, so q_t
  are answers of ours, where Graves averages outputs that are trained with the halting.
- stochastic: after glimpse t a stop is drawn with probability s_t, REINFORCE with the reward 1[q_N right] - cost N.

At T all stop, so gains are predicted after each of G = T - 1 glimpses, for K = T - 1 horizons. A threshold is set
after training; of ACT and the stochastic rule, each cost is a training of its own. Several costs are a batch
dimension here, and T comes last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor
from torch.nn import functional as F

HALTED = 0.01
"""ε, which lets ACT stop after one glimpse (Graves 2016, section 2.1)."""


def gains_ahead(worth: Float[Tensor, "n T"]) -> Float[Tensor, "n G K"]:
    """worth_t+k - worth_t for t = 1..T-1 and k = 1..T-1: what a head of expected gain learns; 0 beyond T.

    The worth of q_t is -H[q_t] in nats, or 1[q_t right].
    """
    T = worth.shape[1]
    later = torch.stack([F.pad(worth[:, k:], (0, k)) for k in range(1, T)], dim=-1)[:, :-1]
    return (later - worth[:, :-1, None]) * within_reach(T).to(worth.device)


def within_reach(T: int) -> Bool[Tensor, "G K"]:
    """Whether k glimpses are left after t of T."""
    return torch.arange(1, T)[:, None] + torch.arange(1, T) <= T


def best_rate(gains: Float[Tensor, "*batch K"], left: Int[Tensor, "*#batch"]) -> Float[Tensor, "*batch"]:
    """The most that a glimpse brings: max of gain_k / k over k = 1..``left``, in gains a glimpse."""
    k = torch.arange(1, gains.shape[-1] + 1, device=gains.device)
    return (gains / k).masked_fill(k > left[..., None], -torch.inf).amax(-1)


def stop_at(n: int, t: int) -> Int[Tensor, " n"]:
    """Every one of n images after t glimpses."""
    return torch.full((n,), t)


def stop_below(gains: Float[Tensor, "*batch G"], threshold: float) -> Int[Tensor, "*batch"]:
    """The first t whose predicted gain a glimpse is under the threshold, else T."""
    return _first(gains < threshold)


def stop_above(confidence: Float[Tensor, "*batch T"], threshold: float) -> Int[Tensor, "*batch"]:
    """The first t whose confidence max_θ q_t(θ) is over the threshold, else T."""
    return _first(confidence[..., :-1] > threshold)


def thresholds_below(gains: Float[Tensor, "n G"], count: int) -> Float[Tensor, " count"]:
    """``count`` thresholds for `stop_below`, descending, whose mean glimpses here lie evenly from 1 to T.

    An image looks again after t where the least of its gains up to t is not under the threshold, so the mean
    number of glimpses is 1 + (T - 1) x the share of such running minima that are not: it is linear in their
    quantiles.
    """
    lowest = gains.cummin(1).values.double().flatten()
    return torch.quantile(lowest, torch.linspace(1, 0, count, dtype=torch.float64)).to(gains.dtype)


def thresholds_above(confidence: Float[Tensor, "n T"], count: int) -> Float[Tensor, " count"]:
    """The same for `stop_above`, ascending."""
    return -thresholds_below(-confidence[:, :-1], count)


class Halting(NamedTuple):
    """What ACT does: the step N, the weights p_t, and the ponder cost N + R."""

    steps: Int[Tensor, "*batch"]
    weights: Float[Tensor, "*batch T"]
    ponder: Float[Tensor, "*batch"]


def halt(halting: Float[Tensor, "*batch T"], *, epsilon: float = HALTED) -> Halting:
    """N, p_t and N + R from the halting probabilities h_t; h_T is not asked, for all halt at T."""
    T = halting.shape[-1]
    steps = _first(halting[..., :-1].cumsum(-1) >= 1 - epsilon)
    t = torch.arange(1, T + 1, device=halting.device)
    before = torch.where(t < steps[..., None], halting, 0)
    remainder = 1 - before.sum(-1)
    weights = torch.where(t == steps[..., None], remainder[..., None], before)
    # N is constant almost everywhere: the gradient of the ponder cost is that of R (Graves 2016, eq. 14).
    return Halting(steps, weights, steps + remainder)


def mean_field(
    weights: Float[Tensor, "*batch T"], log_probs: Float[Tensor, "*#batch T C"]
) -> Float[Tensor, "*batch C"]:
    """log Σ_t p_t q_t(θ): ACT's answer."""
    return (weights[..., None] * log_probs.exp()).sum(-2).clamp_min(torch.finfo(weights.dtype).tiny).log()


def act_loss(
    halting: Float[Tensor, "*batch T"], label_log_probs: Float[Tensor, "*#batch T"], costs: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*batch"]:
    """-log Σ_t p_t q_t(θ) + cost (N + R) in nats, θ the true label; for each cost."""
    _, weights, ponder = halt(halting)
    return costs * ponder - mean_field(weights, label_log_probs[..., None])[..., 0]


def stop_log_probs(logits: Float[Tensor, "*batch T"]) -> Float[Tensor, "*batch T"]:
    """log p(N = t) = log s_t + Σ_u<t log (1 - s_u), with s = σ(logits) and s_T = 1."""
    going = F.logsigmoid(-logits)
    before = going.cumsum(-1) - going
    return torch.cat(((before + F.logsigmoid(logits))[..., :-1], before[..., -1:]), dim=-1)


def stop_sampled(logits: Float[Tensor, "*batch T"], generator: Generator) -> Int[Tensor, "*batch"]:
    """A draw of N from the stochastic rule."""
    cumulative = stop_log_probs(logits.detach()).exp().cumsum(-1)[..., :-1]
    draw = torch.rand(*logits.shape[:-1], 1, generator=generator, device=logits.device)
    return _first(draw < cumulative)


def stop_likely(logits: Float[Tensor, "*batch T"]) -> Int[Tensor, "*batch"]:
    """The stochastic rule made greedy: the first t whose stop is likelier than going on, s_t > 1/2, else T."""
    return _first(logits[..., :-1] > 0)


def stochastic_loss(
    logits: Float[Tensor, "*batch T"], steps: Int[Tensor, "*batch"], rewards: Float[Tensor, "*#batch T"]
) -> Float[Tensor, "*batch"]:
    """REINFORCE on drawn steps N: -log p(N) (r_N - b), given the reward r_t of stopping at each t.

    The record holds all r_t, so b is the policy's exact expected reward of this very image, Σ_t p(N = t) r_t: it
    does not depend on the draw, and leaves the mean gradient alone.
    """
    log_probs = stop_log_probs(logits)
    baseline = (log_probs.exp() * rewards).sum(-1)
    advantage = (at_step(rewards, steps) - baseline).detach()
    return -at_step(log_probs, steps) * advantage


def at_step(values: Tensor, steps: Int[Tensor, "*batch"]) -> Tensor:
    """Of values for t = 1..T along the last dimension, the one at each image's step."""
    return values.expand(*steps.shape, -1).gather(-1, steps[..., None] - 1)[..., 0]


def _first(decided: Bool[Tensor, "*batch G"]) -> Int[Tensor, "*batch"]:
    """The first t = 1..T-1 that is true, else T."""
    last = decided.new_ones(*decided.shape[:-1], 1)
    return torch.cat((decided, last), dim=-1).int().argmax(-1) + 1


Stop = Callable[[Float[Tensor, "B C"], int], Bool[Tensor, " B"]]
"""(class logits, t) → which images have been looked at enough; t counts from 1."""


def never(class_logits: Float[Tensor, "B C"], t: int) -> Bool[Tensor, " B"]:
    """Look as often as one may."""
    return torch.zeros(len(class_logits), dtype=torch.bool, device=class_logits.device)
