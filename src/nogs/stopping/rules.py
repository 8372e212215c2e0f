"""Stopping rules: from the recorded outputs of a network to the step N after which each image stops.

Per image, with q_t = q(θ | y_1:t, l_1:t) of a network that predicts at every t = 1..T:

- expected gain (adaptive stopping of *Near-Optimal Glimpse Sequences*): a head predicts the gain of k more glimpses,
  H[q_t] - H[q_t+k] in nats or 1[q_t+k correct] - 1[q_t correct]. Stop where the best rate, the maximum over k of
  gain / k, is under a threshold. The poster has k = 1, which gives up images whose next glimpse is worth nothing but
  whose second next glimpse is worth much.
- confidence: stop where max_θ q_t(θ) is over a threshold.
- ACT (Graves 2016, *Adaptive Computation Time*, eqs. 5-12): halting probabilities h_t, N = min{t: Σ_u≤t h_u ≥
  1 - ε}, remainder R = 1 - Σ_u<N h_u, weights p_t = h_t for t < N and p_N = R. The prediction is the mean field
  Σ_t p_t q_t. The halting head is fitted to a trained, frozen network here, where Graves trains both together.
- stochastic: after glimpse t the rule draws a stop with probability s_t.

All images stop at T, so gains are predicted after each of G = T - 1 glimpses, for K = T - 1 horizons. A threshold is
set after training; ACT and the stochastic rule are trained once for each cost. Costs are a batch dimension here, and
T is the last dimension. The losses are in `nogs.stopping.objectives`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor
from torch.nn import functional as F

HALTED = 0.01
"""ε, which allows ACT to stop after one glimpse (Graves 2016, section 2.1)."""


def best_rate(gains: Float[Tensor, "*batch K"], remaining: Int[Tensor, "*#batch"]) -> Float[Tensor, "*batch"]:
    """Return the best rate: the maximum of gain_k / k over k = 1..``remaining`` glimpses.

    ``gains``: of k = 1..K more glimpses, in nats or accuracy. ``remaining``: how many glimpses are left.
    """
    k = torch.arange(1, gains.shape[-1] + 1, device=gains.device)
    return (gains / k).masked_fill(k > remaining[..., None], -torch.inf).amax(-1)


def stop_at(n: int, t: int) -> Int[Tensor, " n"]:
    """Return the fixed rule's steps: n images stop after t glimpses."""
    return torch.full((n,), t)


def stop_below(gains: Float[Tensor, "*batch G"], threshold: float) -> Int[Tensor, "*batch"]:
    """Return the first t whose predicted gain per glimpse is under the threshold, else T."""
    return _first(gains < threshold)


def stop_above(confidence: Float[Tensor, "*batch T"], threshold: float) -> Int[Tensor, "*batch"]:
    """Return the first t whose confidence max_θ q_t(θ) is over the threshold, else T."""
    return _first(confidence[..., :-1] > threshold)


def thresholds_below(gains: Float[Tensor, "n G"], count: int) -> Float[Tensor, " count"]:
    """Return ``count`` descending thresholds for `stop_below`, whose mean glimpses on ``gains`` are even from 1 to T.

    An image continues after t if the minimum of its gains up to t is not under the threshold. So the mean number of
    glimpses is 1 + (T - 1) x the share of running minima that are not under it, which is linear in their quantiles.
    """
    lowest = gains.cummin(1).values.double().flatten()
    return torch.quantile(lowest, torch.linspace(1, 0, count, dtype=torch.float64)).to(gains.dtype)


def thresholds_above(confidence: Float[Tensor, "n T"], count: int) -> Float[Tensor, " count"]:
    """Return ``count`` ascending thresholds for `stop_above`, as `thresholds_below` does."""
    return -thresholds_below(-confidence[:, :-1], count)


class Halting(NamedTuple):
    """ACT's step N, weights p_t, and ponder cost N + R."""

    steps: Int[Tensor, "*batch"]
    weights: Float[Tensor, "*batch T"]
    ponder: Float[Tensor, "*batch"]


def halt(halting: Float[Tensor, "*batch T"], *, epsilon: float = HALTED) -> Halting:
    """Return N, p_t and N + R for halting probabilities h_t. h_T is ignored, because every image halts at T."""
    T = halting.shape[-1]
    steps = _first(halting[..., :-1].cumsum(-1) >= 1 - epsilon)
    t = torch.arange(1, T + 1, device=halting.device)
    earlier = torch.where(t < steps[..., None], halting, 0)
    remainder = 1 - earlier.sum(-1)
    weights = torch.where(t == steps[..., None], remainder[..., None], earlier)
    # N is constant almost everywhere: the gradient of the ponder cost is that of R (Graves 2016, eq. 14).
    return Halting(steps, weights, steps + remainder)


def mean_field(
    weights: Float[Tensor, "*batch T"], log_probs: Float[Tensor, "*#batch T C"]
) -> Float[Tensor, "*batch C"]:
    """Return log Σ_t p_t q_t(θ), the prediction of ACT."""
    return (weights[..., None] * log_probs.exp()).sum(-2).clamp_min(torch.finfo(weights.dtype).tiny).log()


def stop_log_probs(logits: Float[Tensor, "*batch T"]) -> Float[Tensor, "*batch T"]:
    """Return log p(N = t) = log s_t + Σ_u<t log (1 - s_u), with s = σ(logits) and s_T = 1."""
    log_continue = F.logsigmoid(-logits)
    reached = log_continue.cumsum(-1) - log_continue
    return torch.cat(((reached + F.logsigmoid(logits))[..., :-1], reached[..., -1:]), dim=-1)


def stop_sampled(logits: Float[Tensor, "*batch T"], generator: Generator) -> Int[Tensor, "*batch"]:
    """Draw N from the stochastic rule."""
    cumulative = stop_log_probs(logits.detach()).exp().cumsum(-1)[..., :-1]
    draw = torch.rand(*logits.shape[:-1], 1, generator=generator, device=logits.device)
    return _first(draw < cumulative)


def stop_likely(logits: Float[Tensor, "*batch T"]) -> Int[Tensor, "*batch"]:
    """Return the greedy version of the stochastic rule: the first t with s_t > 1/2, else T."""
    return _first(logits[..., :-1] > 0)


def at_step(values: Tensor, steps: Int[Tensor, "*batch"]) -> Tensor:
    """Select from ``values``, whose last dimension is t = 1..T, the value at each image's step."""
    return values.expand(*steps.shape, -1).gather(-1, steps[..., None] - 1)[..., 0]


def _first(decided: Bool[Tensor, "*batch G"]) -> Int[Tensor, "*batch"]:
    """Return the first t = 1..T-1 that is True, else T."""
    last = decided.new_ones(*decided.shape[:-1], 1)
    return torch.cat((decided, last), dim=-1).int().argmax(-1) + 1


Stop = Callable[[Float[Tensor, "B C"], int, Float[Tensor, "B L"]], Bool[Tensor, " B"]]
"""(class logits, t, location logits of the next glimpse) → which images stop after glimpse t; t counts from 1."""


def never(class_logits: Float[Tensor, "B C"], t: int, location_logits: Float[Tensor, "B L"]) -> Bool[Tensor, " B"]:
    """Stop no image before the last glimpse."""
    return torch.zeros(len(class_logits), dtype=torch.bool, device=class_logits.device)
