"""Stopping rules and their curves, counted by hand and by loops."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from nogs.stopping.curves import (
    RULES,
    SETTINGS,
    Outlook,
    Stops,
    choose_thresholds,
    curve,
    macs_by_rule,
    recorded,
    stop_by_every_rule,
)

N, T, C, K = 60, 4, 3, 2
COSTS = [0.1, 0.2]


def outlook(seed: int = 0) -> tuple[Outlook, Tensor]:
    g = Generator().manual_seed(seed)
    log_probs = (3 * torch.randn(N, T, C, generator=g)).log_softmax(-1)
    gains = (torch.randn(N, T - 1, generator=g) for _ in range(2))
    halting = (torch.randn(N, T, K, generator=g) for _ in range(2))
    return Outlook(log_probs, *gains, *halting), torch.randint(C, (N,), generator=g)


def test_a_curve_by_hand() -> None:
    stops = Stops([0.5, 0.1], torch.tensor([[1, 1, 2], [3, 2, 2]]), torch.tensor([[True, False, False], [True] * 3]))
    assert curve(stops, [10, 20, 30]) == (
        pytest.approx((0.5, 4 / 3, 1 / 3, 40 / 3)),
        pytest.approx((0.1, 7 / 3, 1, 70 / 3)),
    )


def test_what_each_rule_spends_by_hand() -> None:
    # Three glimpses of 100 and an answer of 7 after the last; a head of 5.
    spent = macs_by_rule([107, 207, 307], answer_macs=7, head_macs=5)
    assert spent["fixed"] == [107, 207, 307]
    assert spent["confidence"] == [107, 214, 321]
    assert spent["eig"] == spent["accuracy"] == spent["act"] == spent["stochastic"] == [112, 224, 331]


def test_every_rule_stops_where_a_loop_does() -> None:
    known, labels = outlook()
    thresholds = choose_thresholds(known)
    found = stop_by_every_rule(known, labels, thresholds=thresholds, costs=COSTS, generator=Generator().manual_seed(0))
    assert tuple(found) == RULES
    probs = known.log_probs.exp().tolist()
    for rule, gains in (("eig", known.entropy_gain), ("accuracy", known.accuracy_gain)):
        assert len(thresholds[rule]) == SETTINGS
        for x, steps in zip(thresholds[rule], found[rule].steps.tolist(), strict=True):
            assert steps == [next((t for t in range(1, T) if row[t - 1] < x), T) for row in gains.tolist()]
    for x, steps in zip(thresholds["confidence"], found["confidence"].steps.tolist(), strict=True):
        assert [max(p[t - 1]) > x - 1e-6 or t == T for p, t in zip(probs, steps, strict=True)] == [True] * N
    for rule in set(RULES) - {"act"}:
        for steps, right in zip(found[rule].steps.tolist(), found[rule].right.tolist(), strict=True):
            answers = [p[t - 1].index(max(p[t - 1])) for p, t in zip(probs, steps, strict=True)]
            assert right == [a == y for a, y in zip(answers, labels.tolist(), strict=True)]
    assert found["fixed"].steps.tolist() == [[t] * N for t in range(1, T + 1)]
    assert recorded(known)["act_halting"].shape == (N, T, K)


def test_act_answers_with_its_mean_field() -> None:
    """Half of the weight on each of two answers: the surer one wins, though the network stopped at the other."""
    log_probs = torch.tensor([[[0.95, 0.05], [0.4, 0.6]]]).log()
    half = torch.zeros(1, 2, 1)
    known = Outlook(log_probs, torch.zeros(1, 1), torch.zeros(1, 1), half, half)
    thresholds = choose_thresholds(known)
    found = stop_by_every_rule(
        known, torch.tensor([0]), thresholds=thresholds, costs=[0.1], generator=Generator().manual_seed(0)
    )
    assert found["act"].steps.tolist() == [[2]]
    assert found["act"].right.tolist() == [[True]]
    assert found["fixed"].right.tolist() == [[True], [False]]
