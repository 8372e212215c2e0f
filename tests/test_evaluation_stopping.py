"""Stopping rules compared: means by hand, one setting for all tasks by enumeration, and bands whose width is known."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import Generator

from nogs.evaluation.scores import balanced_accuracy
from nogs.evaluation.stopping import (
    RESAMPLES,
    StoppedNetwork,
    _band,
    advantage,
    mean_curve,
    over_tasks,
    stopping_scores,
)
from nogs.stopping.curves import RULES, CurvePoint, Stops, choose_thresholds, macs_by_rule, stop_by_every_rule
from test_curves import COSTS, T, outlook


def points(*rows: list[float]) -> tuple[CurvePoint, ...]:
    return tuple(CurvePoint(*row) for row in rows)


def test_a_mean_curve_by_hand() -> None:
    one, other = points([0.0, 1.0, 0.5, 10.0]), points([1.0, 2.0, 1.0, 20.0])
    assert mean_curve([one, other]) == points([0.5, 1.5, 0.75, 15])


def test_one_setting_for_all_tasks_by_hand() -> None:
    """A threshold between two of a curve's is halfway between their rows; beyond its ends nothing changes."""
    one = {"eig": [points([0.2, 1.0, 0.5, 10.0], [0.0, 3.0, 0.9, 30.0])]}
    other = {"eig": [points([0.1, 1.0, 0.6, 10.0], [0.0, 3.0, 0.8, 30.0])]}
    assert over_tasks([one, other], [])["eig"] == (
        pytest.approx((0.0, 3.0, 0.85, 30.0)),
        pytest.approx((0.1, 1.5, 0.65, 15.0)),
        pytest.approx((0.2, 1.0, 0.55, 10.0)),
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_number_of_glimpses_for_each_task_is_the_best_on_validation(seed: int) -> None:
    """On validation images none of the T^n choices is better for as few glimpses; the row has test figures."""
    accuracy = torch.rand(2, 3, 4, generator=Generator().manual_seed(seed), dtype=torch.float64).tolist()
    validation, test = accuracy
    fixed = [points(*([float(t), float(t), of[t - 1], 100.0 * t] for t in range(1, 5))) for of in test]
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


def test_the_advantage_and_its_band_where_they_are_known() -> None:
    """Both rules stop all images at 1, 2 or 3; one is right on 60 % more of 1000 images at 2.

    A difference of d = 0.6 on n images has the standard error sqrt(d (1 - d) / n). All points of the comparison are
    multiples of it, so they count as one: the band is 1.96 errors wide. With 1000 resamples its ends are known within
    a tenth of its width.
    """
    n = 1000
    steps = torch.tensor([[1], [2], [3]]).expand(-1, n)
    none, most = torch.zeros(n, dtype=torch.bool), torch.arange(n) < 600
    better = {"eig": Stops([1.0, 2.0, 3.0], steps, torch.stack((none, most, most)))}
    rival = {"fixed": Stops([1.0, 2.0, 3.0], steps, torch.stack((none, none, most)))}
    short = {"act": Stops([0.1, 0.2], steps[:2], torch.stack((none, most)))}
    rows = advantage([{**better, **rival, **short}] * 2, of="eig", glimpses=3, generator=Generator().manual_seed(0))
    assert rows.keys() == {"fixed", "act"}
    assert [row.mean_glimpses for row in rows["fixed"]] == [1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 2.75, 3]
    assert [row.difference for row in rows["fixed"]] == pytest.approx(
        [0, 0.15, 0.3, 0.45, 0.6, 0.45, 0.3, 0.15, 0], abs=1e-12
    )
    at_two, error = rows["fixed"][4], math.sqrt(0.6 * 0.4 / n)
    assert at_two.low == pytest.approx(0.6 - 1.96 * error, abs=0.4 * error)
    assert at_two.high == pytest.approx(0.6 + 1.96 * error, abs=0.4 * error)
    # Paired: where both are the same, the band is a point, however few the images.
    assert rows["fixed"][-1].low == rows["fixed"][-1].high == 0
    assert [row.mean_glimpses for row in rows["act"]] == [1, 1.25, 1.5, 1.75, 2]
    assert {row.high for row in rows["act"]} == {0}


def test_seeds_that_differ_widen_the_band() -> None:
    """All images alike: one seed is ahead by 1, the other behind by 1, and images add no spread.

    The mean of two seeds drawn with replacement is 1, 0, 0 or -1: its standard error is 1 / sqrt(2), and its farthest
    deviation, in more than 5 % of the draws, 1.
    """
    steps = torch.tensor([[1], [2]]).expand(-1, 10)
    never, always = torch.zeros(2, 10, dtype=torch.bool), torch.ones(2, 10, dtype=torch.bool)
    ahead = {"eig": Stops([1.0, 2.0], steps, always), "fixed": Stops([1.0, 2.0], steps, never)}
    behind = {"eig": Stops([1.0, 2.0], steps, never), "fixed": Stops([1.0, 2.0], steps, always)}
    for seeds, width in (([ahead, behind], 1.0), ([ahead], 0.0)):
        rows = advantage(seeds, of="eig", glimpses=2, generator=Generator().manual_seed(0))["fixed"]
        for row in rows:
            assert row.high - row.difference == pytest.approx(width, abs=0.01)
            assert row.difference - row.low == pytest.approx(width, abs=0.01)


@pytest.mark.parametrize("points_compared", [1, 2, 10])
def test_a_band_holds_at_all_points_together(points_compared: int) -> None:
    """For k independent normal points it is as wide as the 0.95 quantile of the greatest of k |z|.

    Of 1000 resamples that quantile is known within 0.1 (four standard deviations, by its density near 2 to 3).
    """
    draws = np.random.default_rng(points_compared).normal(0, 2.0, (RESAMPLES + 1, points_compared))
    draws[0] = 0.5
    draws[1:] += 0.5
    band = _band(np.arange(points_compared, dtype=float), draws)
    errors = np.sqrt(((draws[1:] - 0.5) ** 2).mean(0))
    expected = NormalDist().inv_cdf((1 + 0.95 ** (1 / points_compared)) / 2)
    assert [(row.high - row.difference) for row in band] == pytest.approx(expected * errors, abs=0.2 * 2.0)
    assert {row.difference for row in band} == {0.5}


@pytest.mark.parametrize("uneven", [False, True])
def test_the_scores_are_means_over_seeds(uneven: bool) -> None:
    networks, labels = [], torch.zeros(0)
    for seed in range(2):
        recorded, labels = outlook(seed)
        labels = torch.where(torch.arange(len(labels)) % 4 > 0, 0, labels) if uneven else torch.arange(len(labels)) % 3
        thresholds, draws = choose_thresholds(recorded), Generator().manual_seed(seed)
        stops = stop_by_every_rule(recorded, labels, thresholds=thresholds, costs=COSTS, generator=draws)
        macs = macs_by_rule([10, 20, 30, 40], answer_macs=1, head_macs=2)
        networks.append(StoppedNetwork(stops, macs, (0.5,) * T))
    found = stopping_scores(networks, labels, Generator().manual_seed(0))
    assert found.stopping.keys() == found.stopping_by_seed.keys() == set(RULES)
    for rule in RULES:
        both = np.array(found.stopping_by_seed[rule])
        assert np.array(found.stopping[rule]) == pytest.approx(both.mean(0))
        assert both.shape[0] == 2
    assert found.stopping_advantage.keys() == {"eig", "accuracy"}
    for rivals in found.stopping_advantage.values():
        assert rivals.keys() == set(RULES) - {"eig", "accuracy"}
    assert found.stopping_balanced_by_seed.keys() == (set(RULES) if uneven else set())
    if uneven:
        first = networks[0].stops["act"]
        expected = [balanced_accuracy(right[:, None], labels).item() for right in first.right]
        assert [point.accuracy for point in found.stopping_balanced_by_seed["act"][0]] == pytest.approx(expected)


def test_nothing_without_networks() -> None:
    assert not any(stopping_scores([], torch.zeros(1, dtype=torch.long), Generator()))
