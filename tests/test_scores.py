"""The race's figures, from logs worked by hand."""

from __future__ import annotations

import json
import math

import pytest
import torch

from nogs.evaluation.scores import best_nll, convergence, first_at_or_under, scores_by_glimpse, target_nll


def log(*losses: float, every: int = 100, pace: float = 0.5) -> list[dict[str, float]]:
    """A validation every ``every`` iterations, each interval ``pace`` seconds."""
    return [
        {"iteration": every * (i + 1), "seconds": pace * (i + 1), "nll_nats": nll, "accuracy": 0.5}
        for i, nll in enumerate(losses)
    ]


RAM = [log(0.9, 0.5, 0.405, 0.4, 0.45), log(0.9, 0.8, 0.7, 0.6)]
"""Best 0.4 at 400, within 0.01 of it at 300; best 0.6 at its end, 400. Target (0.4 + 0.6) / 2 + 0.01 = 0.51."""


def test_first_at_or_under() -> None:
    rows = log(0.9, 0.5, 0.6, 0.5)
    assert first_at_or_under(rows, 0.5) == rows[1]
    assert first_at_or_under(rows, 0.95) == rows[0]
    assert first_at_or_under(rows, 0.49) is None
    assert first_at_or_under([], 1.0) is None


def test_the_target_is_the_mean_of_rams_best_and_a_margin() -> None:
    assert [best_nll(rows) for rows in RAM] == [0.4, 0.6]
    assert target_nll(RAM) == pytest.approx(0.51, abs=1e-12)
    assert target_nll(RAM[:1]) == pytest.approx(0.41, abs=1e-12)


def test_convergence_of_ram_itself() -> None:
    assert convergence(RAM, target_nll(RAM)) == {
        "iterations_to_converge": [300, 400],
        "seconds_to_converge": [1.5, 2.0],
        "iterations_to_target": [200, None],
        "seconds_to_target": [1.0, None],
        "best_validation_nll_nats": [0.4, 0.6],
    }


def test_convergence_of_a_rival() -> None:
    # 0.5 is past the target at once; 0.26 is within 0.01 of the best, 0.25, and 0.2601 is not.
    rival = [log(0.5, 0.3, 0.2601, 0.26, 0.25, every=50, pace=0.25), log(0.53, 0.515, 0.511)]
    assert convergence(rival, 0.51) == {
        "iterations_to_converge": [200, 200],
        "seconds_to_converge": [1.0, 1.0],
        "iterations_to_target": [50, None],
        "seconds_to_target": [0.25, None],
        "best_validation_nll_nats": [0.25, 0.511],
    }


def test_the_first_to_come_under_counts_even_if_it_rises_again() -> None:
    found = convergence([log(0.5, 0.9, 0.49)], 0.51)
    assert found["iterations_to_target"] == [100]
    assert found["iterations_to_converge"] == [100]


def test_without_a_target_nobody_reaches_it() -> None:
    found = convergence(RAM, None)
    assert found["iterations_to_target"] == found["seconds_to_target"] == [None, None]
    assert found["iterations_to_converge"] == [300, 400]
    assert json.loads(json.dumps(found))["iterations_to_target"] == [None, None]


def test_scores_by_hand() -> None:
    """Four images after one glimpse and after two; class 1 is rare, and is ranked right in two of three pairs."""
    last = torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.8, 0.2], [0.4, 0.6]])
    probs = torch.stack((torch.tensor([[0.9, 0.1]]).expand(4, -1), last), dim=1)
    found = scores_by_glimpse(probs.log(), torch.tensor([0, 0, 0, 1]))
    assert found["test_accuracy_by_glimpse"] == [0.75, 0.75]
    assert found["test_accuracy"] == 0.75
    assert found["test_balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["test_auroc"] == pytest.approx(2 / 3)
    nll = -sum(math.log(p) for p in (0.9, 0.3, 0.8, 0.6)) / 4
    assert found["test_nll_nats"] == pytest.approx(nll)
