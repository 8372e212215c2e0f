"""Stopping curves, counted by hand and by loops, and the bootstrap of their differences on a case with an answer."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from nogs.stopping.curves import (
    RULES,
    SETTINGS,
    Outlook,
    Stops,
    advantage,
    choose_thresholds,
    curve,
    macs_by_rule,
    mean_curve,
    over_tasks,
    recorded,
    stop_by_every_rule,
    summary,
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
    assert curve(stops, [10, 20, 30]) == [
        pytest.approx([0.5, 4 / 3, 1 / 3, 40 / 3]),
        pytest.approx([0.1, 7 / 3, 1, 70 / 3]),
    ]
    assert mean_curve([[[0.0, 1.0, 0.5, 10.0]], [[1.0, 2.0, 1.0, 20.0]]]) == [[0.5, 1.5, 0.75, 15]]


def test_what_each_rule_spends_by_hand() -> None:
    # Three glimpses of 100 and an answer of 7 after the last; a head of 5.
    spent = macs_by_rule([107, 207, 307], answer_macs=7, head_macs=5)
    assert spent["fixed"] == [107, 207, 307]
    assert spent["confidence"] == [107, 214, 321]
    assert spent["eig"] == spent["accuracy"] == spent["act"] == spent["stochastic"] == [112, 224, 331]


def test_every_rule_stops_where_a_loop_does() -> None:
    said, labels = outlook()
    thresholds = choose_thresholds(said)
    found = stop_by_every_rule(said, labels, thresholds=thresholds, costs=COSTS, generator=Generator().manual_seed(0))
    assert tuple(found) == RULES
    probs = said.log_probs.exp().tolist()
    for rule, gains in (("eig", said.entropy_gain), ("accuracy", said.accuracy_gain)):
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
    assert recorded(said)["act_halting"].shape == (N, T, K)


def test_act_answers_with_its_mean_field() -> None:
    """Half of the weight on each of two answers: the surer one wins, though the network stopped at the other."""
    log_probs = torch.tensor([[[0.95, 0.05], [0.4, 0.6]]]).log()
    half = torch.zeros(1, 2, 1)
    said = Outlook(log_probs, torch.zeros(1, 1), torch.zeros(1, 1), half, half)
    thresholds = choose_thresholds(said)
    found = stop_by_every_rule(
        said, torch.tensor([0]), thresholds=thresholds, costs=[0.1], generator=Generator().manual_seed(0)
    )
    assert found["act"].steps.tolist() == [[2]]
    assert found["act"].right.tolist() == [[True]]
    assert found["fixed"].right.tolist() == [[True], [False]]


def test_one_setting_for_all_tasks_by_hand() -> None:
    """A threshold between two of a curve's is halfway between their rows; beyond its ends nothing changes."""
    one = {"eig": [[[0.2, 1.0, 0.5, 10.0], [0.0, 3.0, 0.9, 30.0]]]}
    other = {"eig": [[[0.1, 1.0, 0.6, 10.0], [0.0, 3.0, 0.8, 30.0]]]}
    assert over_tasks([one, other], [])["eig"] == [
        pytest.approx([0.0, 3.0, 0.85, 30.0]),
        pytest.approx([0.1, 1.5, 0.65, 15.0]),
        pytest.approx([0.2, 1.0, 0.55, 10.0]),
    ]


@pytest.mark.parametrize("seed", range(4))
def test_a_number_for_each_task_is_the_best_that_validation_knows(seed: int) -> None:
    """Of all T to the power of n choices, none is better there for as few glimpses; its row is what it does in test."""
    accuracy = torch.rand(2, 3, 4, generator=Generator().manual_seed(seed), dtype=torch.float64).tolist()
    validation, test = accuracy
    fixed = [[[float(t), float(t), of[t - 1], 100.0 * t] for t in range(1, 5)] for of in test]
    rows = over_tasks([{"fixed": [curve]} for curve in fixed], validation)["fixed_per_task"]
    every = list(itertools.product(range(1, 5), repeat=3))
    for price, glimpses, right, macs in rows:
        worth = {
            choice: np.mean([of[t - 1] - price * t for of, t in zip(validation, choice, strict=True)])
            for choice in every
        }
        best = max(every, key=worth.__getitem__)
        assert glimpses == pytest.approx(np.mean(best))
        assert right == pytest.approx(np.mean([of[t - 1] for of, t in zip(test, best, strict=True)]))
        assert macs == pytest.approx(100 * glimpses)
    ends = [
        np.mean([np.argmax(np.array(of) - price * np.arange(1, 5)) + 1 for of in validation]) for price in (1, 1e-9)
    ]
    assert [rows[0][1], rows[-1][1]] == pytest.approx(ends)


def test_the_advantage_and_its_interval_where_they_are_known() -> None:
    """Both rules stop all images at 1, 2 or 3; one is right on 60 % more of 1000 images at 2.

    A difference of d = 0.6 on n images has the standard error sqrt(d (1 - d) / n); with 1000 resamples its ends
    are known within a tenth of the interval's width.
    """
    n = 1000
    steps = torch.tensor([[1], [2], [3]]).expand(-1, n)
    none, most = torch.zeros(n, dtype=torch.bool), torch.arange(n) < 600
    better = {"eig": Stops([1.0, 2.0, 3.0], steps, torch.stack((none, most, most)))}
    rival = {"fixed": Stops([1.0, 2.0, 3.0], steps, torch.stack((none, none, most)))}
    short = {"act": Stops([0.1, 0.2], steps[:2], torch.stack((none, most)))}
    rows = advantage([{**better, **rival, **short}] * 2, of="eig", glimpses=3, generator=Generator().manual_seed(0))
    assert rows.keys() == {"fixed", "act"}
    assert [row["mean_glimpses"] for row in rows["fixed"]] == [1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 2.75, 3]
    assert [row["difference"] for row in rows["fixed"]] == pytest.approx(
        [0, 0.15, 0.3, 0.45, 0.6, 0.45, 0.3, 0.15, 0], abs=1e-12
    )
    at_two, error = rows["fixed"][4], math.sqrt(0.6 * 0.4 / n)
    assert at_two["low"] == pytest.approx(0.6 - 1.96 * error, abs=0.4 * error)
    assert at_two["high"] == pytest.approx(0.6 + 1.96 * error, abs=0.4 * error)
    # Paired: where both are the same, the interval is a point, however few the images.
    assert rows["fixed"][-1]["low"] == rows["fixed"][-1]["high"] == 0
    assert [row["mean_glimpses"] for row in rows["act"]] == [1, 1.25, 1.5, 1.75, 2]
    assert {row["high"] for row in rows["act"]} == {0}


def test_the_summary_is_the_mean_over_seeds() -> None:
    seeds, macs = [], []
    for seed in range(2):
        said, labels = outlook(seed)
        chosen = choose_thresholds(said)
        draws = Generator().manual_seed(seed)
        seeds.append(stop_by_every_rule(said, labels, thresholds=chosen, costs=COSTS, generator=draws))
        macs.append(macs_by_rule([10, 20, 30, 40], answer_macs=1, head_macs=2))
    found = summary(seeds, macs, Generator().manual_seed(0))
    assert found["stopping"].keys() == found["stopping_by_seed"].keys() == set(RULES)
    for rule in RULES:
        both = np.array(found["stopping_by_seed"][rule])
        assert np.array(found["stopping"][rule]) == pytest.approx(both.mean(0))
        assert both.shape[0] == 2
    assert found["stopping_advantage"].keys() == {"eig", "accuracy"}
    for rivals in found["stopping_advantage"].values():
        assert rivals.keys() == set(RULES) - {"eig", "accuracy"}
