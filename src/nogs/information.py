"""Information in nats: entropies, expected posterior entropy, and two estimators of the information gain.

All functions take log-probabilities, so that probabilities of 0 cause no NaN. The notation is that of *Near-Optimal
Glimpse Sequences* (Harvey, Teng, Wood, arXiv 1906.05462, section 3): an image has N weighted completions x_n, and
g_n(l) = g(θ | y_1:t-1, fovea(x_n, l)) is the posterior over C classes after a glimpse of x_n at one of L locations.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def entropy(log_probs: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch"]:
    """Return H[p] = -Σ p log p in nats, with 0 log 0 = 0."""
    return -(log_probs.exp() * log_probs.clamp_min(torch.finfo(log_probs.dtype).min)).sum(-1)


def mixture(
    log_probs: Float[Tensor, "*batch N L C"], weights: Float[Tensor, "*batch N"]
) -> Float[Tensor, "*batch L C"]:
    """Return log Σ_n w_n g_n(θ), the log of the mean posterior. ``weights`` sum to 1 over N."""
    return torch.logsumexp(log_probs + weights.log()[..., None, None], dim=-3)


def expected_posterior_entropy(
    log_probs: Float[Tensor, "*batch N L C"], weights: Float[Tensor, "*batch N"]
) -> Float[Tensor, "*batch L"]:
    """Return EPE(l) = Σ_n w_n H[g_n(l)] in nats, the objective that greedy design minimises (section 3, eq. 4)."""
    return (entropy(log_probs) * weights[..., None]).sum(-2)


def mixture_information_gain(
    log_probs: Float[Tensor, "*batch N L C"], weights: Float[Tensor, "*batch N"]
) -> Float[Tensor, "*batch L"]:
    """Return EIG(l) = H[Σ_n w_n g_n(l)] - Σ_n w_n H[g_n(l)] ≥ 0 in nats (Harvey 2024)."""
    return entropy(mixture(log_probs, weights)) - expected_posterior_entropy(log_probs, weights)


def information_gain_by_completion(
    log_probs: Float[Tensor, "*batch N L C"], weights: Float[Tensor, "*batch N"]
) -> Float[Tensor, "*batch N L"]:
    """Return KL(g_n(l) || Σ_m w_m g_m(l)) in nats for each completion. Their weighted mean is the mixture EIG."""
    mean = mixture(log_probs, weights)[..., None, :, :]
    floor = torch.finfo(log_probs.dtype).min
    return (log_probs.exp() * (log_probs.clamp_min(floor) - mean.clamp_min(floor))).sum(-1)


def empirical_entropy(values: Int[Tensor, "n T"]) -> Float[Tensor, " T"]:
    """Return the entropy in nats of each column's empirical distribution over its n values.

    For cells that are a function of the image, this is the mutual information between image and cell
    (the plug-in estimate, which is biased downward by about (cells - 1) / 2n).
    """
    shares = [column.unique(return_counts=True)[1].double() / len(values) for column in values.unbind(1)]
    return torch.stack([(share * share.reciprocal().log()).sum() for share in shares]).float()
