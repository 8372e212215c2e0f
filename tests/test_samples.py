"""The order in which a race reads completions: estimates without bias, and with less variance than evenly drawn."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator

from nogs.completion.protocol import Completions
from nogs.design.samples import estimation_weights, ordered


@pytest.mark.parametrize("n", [1, 3, 8, 20])
def test_weighing_what_came_first_estimates_the_whole_without_bias(n: int) -> None:
    """The mean of n of 20 unequal values, over 4,000 orders: within four standard errors and the known small bias."""
    generator = Generator().manual_seed(5)
    weights = torch.rand(20, generator=generator).square() + 0.02
    weights /= weights.sum()
    values = torch.randn(20, generator=generator)
    orders = 4000
    many = Completions(
        torch.zeros(20 * orders, 1, 1, 1, dtype=torch.uint8),
        torch.arange(orders).repeat_interleave(20),
        weights.repeat(orders),
        torch.ones(orders),
    )
    rows, sorted_weights = ordered(many, orders, generator=generator)
    assert torch.equal((rows // 20).unique(dim=1)[:, 0], torch.arange(orders))
    torch.testing.assert_close(sorted_weights, weights[rows % 20])
    estimates = (estimation_weights(sorted_weights, n) * values[rows[:, :n] % 20]).sum(-1)
    exact = (weights * values).sum()
    error = estimates.std() / math.sqrt(orders)
    assert abs(estimates.mean() - exact) < 4 * error + 0.05 * values.std() / n
    assert n < 20 or estimates.std() < 1e-6


def test_weighted_order_beats_an_even_one() -> None:
    """Why completions come in the order of their weights: the estimate from 8 of 40 spreads less."""
    generator = Generator().manual_seed(6)
    weights = torch.rand(40, generator=generator) ** 4 + 1e-3
    weights /= weights.sum()
    values, orders = torch.randn(40, generator=generator), 2000
    many = Completions(
        torch.zeros(40 * orders, 1, 1, 1, dtype=torch.uint8),
        torch.arange(orders).repeat_interleave(40),
        weights.repeat(orders),
        torch.ones(orders),
    )
    rows, sorted_weights = ordered(many, orders, generator=generator)
    ours = (estimation_weights(sorted_weights, 8) * values[rows[:, :8] % 40]).sum(-1)
    evenly = torch.rand(orders, 40, generator=generator).argsort(-1)[:, :8]
    even = (weights[evenly] * values[evenly]).sum(-1) / weights[evenly].sum(-1)
    exact = (weights * values).sum()
    assert (ours - exact).square().mean() < 0.5 * (even - exact).square().mean()
