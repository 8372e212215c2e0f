"""Stopping rules and their losses, by hand, against plain loops and against all sequences of decisions."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Generator, Tensor

from nogs.stopping.objectives import act_loss, gains_ahead, stochastic_loss, within_reach
from nogs.stopping.rules import (
    at_step,
    best_rate,
    halt,
    mean_field,
    stop_above,
    stop_at,
    stop_below,
    stop_likely,
    stop_log_probs,
    stop_sampled,
    thresholds_above,
    thresholds_below,
)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def test_gains_by_hand() -> None:
    doubt = torch.tensor([[0.7, 0.5, 0.6], [0.1, 0.1, 0.0]])
    torch.testing.assert_close(gains_ahead(-doubt), torch.tensor([[[0.2, 0.1], [-0.1, 0.0]], [[0.0, 0.1], [0.1, 0.0]]]))
    right = torch.tensor([[False, True, True, False]])
    assert gains_ahead(right.float()).tolist() == [[[1.0, 1.0, 0.0], [0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]]]
    assert within_reach(4).tolist() == [[True, True, True], [True, True, False], [True, False, False]]


@pytest.mark.parametrize("T", [2, 3, 6])
def test_the_best_rate_by_search(T: int) -> None:
    """Over every image, every t and every number of glimpses that are left."""
    gains = numbers(7, T - 1, T - 1) - 0.5
    found = best_rate(gains, T - torch.arange(1, T))
    for image, t in itertools.product(range(7), range(1, T)):
        rates = [gains[image, t - 1, k - 1].item() / k for k in range(1, T - t + 1)]
        assert found[image, t - 1].item() == pytest.approx(max(rates))


def test_a_glimpse_that_only_leads_to_a_good_one_is_worth_taking() -> None:
    gains = torch.tensor([[0.0, 0.4], [0.4, 9.0]])
    assert best_rate(gains, torch.tensor([2, 1])).tolist() == pytest.approx([0.2, 0.4])
    assert stop_below(best_rate(gains, torch.tensor([2, 1]))[None], 0.1).tolist() == [3]
    assert stop_below(gains[None, :, 0], 0.1).tolist() == [1]


def test_rules_by_hand() -> None:
    gains = torch.tensor([[0.5, 0.2, 0.9], [0.1, 0.9, 0.9], [0.3, 0.3, 0.3], [0.4, 0.5, 0.29]])
    assert stop_below(gains, 0.3).tolist() == [2, 1, 4, 3]
    assert stop_below(gains, -9.0).tolist() == [4] * 4
    assert stop_below(gains, 9.0).tolist() == [1] * 4
    confidence = torch.tensor([[0.5, 0.8, 0.9], [0.95, 0.1, 0.1], [0.8, 0.8, 0.99], [0.1, 0.1, 0.1]])
    assert stop_above(confidence, 0.8).tolist() == [3, 1, 3, 3]
    assert stop_above(confidence, 0.7).tolist() == [2, 1, 1, 3]
    assert stop_at(3, 2).tolist() == [2, 2, 2]
    assert stop_below(torch.empty(2, 0), 0.0).tolist() == [1, 1]  # T = 1


@pytest.mark.parametrize("T", [2, 5])
def test_thresholds_are_dense_in_mean_glimpses(T: int) -> None:
    gains = numbers(400, T - 1)
    for rule, values, thresholds in (
        (stop_below, gains, thresholds_below(gains, 9)),
        (stop_above, numbers(400, T), thresholds_above(numbers(400, T), 9)),
    ):
        means = [rule(values, x).double().mean().item() for x in thresholds.tolist()]
        assert means == pytest.approx([1 + (T - 1) * j / 8 for j in range(9)], abs=0.02)


def halt_by_loop(h: list[float], epsilon: float) -> tuple[int, list[float], float]:
    """Graves 2016, equations 6 to 8, one image."""
    spent, weights = 0.0, [0.0] * len(h)
    for t, halting in enumerate(h, start=1):
        if spent + halting >= 1 - epsilon or t == len(h):
            weights[t - 1] = 1 - spent
            return t, weights, t + 1 - spent
        weights[t - 1] = halting
        spent += halting
    raise AssertionError


def test_act_against_a_plain_loop() -> None:
    """Halting probabilities on both sides of 1 - ε, three costs, and the mean field's loss."""
    n, T, C, costs = 40, 4, 3, [0.01, 0.1, 0.5]
    h, q = numbers(n, len(costs), T).pow(0.5), numbers(n, T, C, seed=1).softmax(-1)
    h[0, 0], h[1, 0] = torch.tensor([0.991, 0.5, 0.5, 0.5]), torch.tensor([0.1, 0.1, 0.1, 0.9])
    labels = torch.arange(n) % C
    of_label = torch.stack([q[i, :, labels[i]] for i in range(n)]).log()
    losses = act_loss(h, of_label[:, None], torch.tensor(costs, dtype=torch.float64))
    steps, weights, ponder = halt(h)
    answers = mean_field(weights, q[:, None].expand(-1, 3, -1, -1).log())
    for i, k in itertools.product(range(n), range(len(costs))):
        N, p, rho = halt_by_loop(h[i, k].tolist(), 0.01)
        assert steps[i, k] == N
        assert weights[i, k].tolist() == pytest.approx(p)
        assert ponder[i, k].item() == pytest.approx(rho)
        field = [sum(p[t] * q[i, t, c].item() for t in range(T)) for c in range(C)]
        assert sum(field) == pytest.approx(1)
        assert answers[i, k].exp().tolist() == pytest.approx(field)
        assert losses[i, k].item() == pytest.approx(-math.log(field[labels[i]]) + costs[k] * rho)
    assert set(steps.flatten().tolist()) == {1, 2, 3, 4}
    assert steps[0, 0] == 1  # within ε of certain


def test_the_gradient_of_the_ponder_cost_is_that_of_the_remainder() -> None:
    h = torch.tensor([0.3, 0.4, 0.6, 0.9], requires_grad=True)
    halted = halt(h)
    assert halted.steps == 3
    halted.ponder.backward()
    assert h.grad is not None
    assert h.grad.tolist() == [-1.0, -1.0, 0.0, 0.0]


def enumerated(s: list[float]) -> list[float]:
    """p(N = t) by adding up all sequences of T - 1 coins; the first that says stop counts."""
    T = len(s)
    found = [0.0] * T
    for coins in itertools.product((True, False), repeat=T - 1):
        likely = math.prod(p if coin else 1 - p for coin, p in zip(coins, s, strict=False))
        found[coins.index(True) if True in coins else T - 1] += likely
    return found


def test_stop_log_probs_against_all_coins() -> None:
    logits = 4 * numbers(6, 4) - 2
    for row in logits:
        assert stop_log_probs(row).exp().tolist() == pytest.approx(enumerated(row.sigmoid().tolist()))
    far = torch.tensor([200.0, -200.0, 0.0])
    assert torch.isfinite(stop_log_probs(far)).all()


def test_sampled_stops_follow_the_distribution() -> None:
    """Chi-square goodness of fit at a false-alarm rate of 1e-6."""
    n, logits = 100_000, torch.tensor([-0.5, 0.3, -1.0, 5.0])
    counts = stop_sampled(logits.expand(n, -1), Generator().manual_seed(0)).bincount(minlength=5)[1:].double()
    expected = n * torch.tensor(enumerated(logits.sigmoid().tolist()), dtype=torch.float64)
    statistic = ((counts - expected).square() / expected).sum()
    assert torch.special.gammaincc(torch.tensor(1.5, dtype=torch.float64), statistic / 2) > 1e-6
    assert stop_likely(torch.tensor([[-0.5, 0.3, 9.0], [0.1, -5.0, 0.0], [-1.0, -1.0, 9.0]])).tolist() == [2, 1, 3]


def test_the_expected_reinforce_gradient_is_that_of_the_expected_reward() -> None:
    """All stops of two images under two costs, weighed by their probability: the baseline leaves the mean alone."""
    logits = (4 * numbers(2, 2, 4) - 2).requires_grad_()
    right = torch.tensor([[0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    costs = torch.tensor([0.02, 0.3], dtype=torch.float64)
    rewards = right[:, None] - costs[:, None] * torch.arange(1, 5)
    reward, loss = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    s = logits.sigmoid()
    for t in range(1, 5):
        likely = torch.ones(2, 2, dtype=torch.float64)
        for u in range(1, t):
            likely = likely * (1 - s[..., u - 1])
        likely = likely * s[..., t - 1] if t < 4 else likely
        reward = reward + (likely * rewards[..., t - 1]).sum()
        loss = loss + (likely.detach() * stochastic_loss(logits, torch.full((2, 2), t), rewards)).sum()
    (expected,) = torch.autograd.grad(-reward, logits, retain_graph=True)
    (got,) = torch.autograd.grad(loss, logits)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(got, expected)


def test_at_step() -> None:
    values = torch.tensor([[10, 20, 30], [40, 50, 60]])
    assert at_step(values, torch.tensor([3, 1])).tolist() == [30, 40]
    assert at_step(values, torch.tensor([[1, 2], [3, 3]])).tolist() == [[10, 50], [30, 60]]
