"""Convergence and targets, from logs whose figures were computed by hand."""

from __future__ import annotations

import pytest
import torch

from nogs.evaluation.convergence import (
    Convergence,
    Targets,
    best_nll,
    chance_nll,
    convergence,
    first_at_or_under,
    targets,
)


def log(*losses: float, every: int = 100, pace: float = 0.5) -> list[dict[str, float]]:
    """A validation every ``every`` iterations, each interval ``pace`` seconds."""
    return [
        {"iteration": every * (i + 1), "seconds": pace * (i + 1), "wall_seconds": 2 * pace * (i + 1), "nll_nats": nll}
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
    assert targets(RAM) == pytest.approx((0.51, 0.41), abs=1e-12)
    assert targets(RAM[1:]) == pytest.approx((0.61, 0.61), abs=1e-12)


def test_chance_is_the_entropy_of_the_class_frequencies() -> None:
    """Two classes of 3 to 1: -0.75 log 0.75 - 0.25 log 0.25; and a class without an image adds nothing."""
    assert chance_nll(torch.tensor([0, 0, 2, 0])) == pytest.approx(0.562335, abs=1e-6)


def test_convergence_of_ram_itself() -> None:
    assert convergence(RAM, targets(RAM)) == Convergence(
        iterations_to_converge=(300, 400),
        seconds_to_converge=(1.5, 2.0),
        iterations_to_target=(200, None),
        seconds_to_target=(1.0, None),
        iterations_to_best_seed=(300, None),
        iterations_trained=(500, 400),
        seconds_trained=(2.5, 2.0),
        wall_seconds_trained=(5.0, 4.0),
        best_validation_nll_nats=(0.4, 0.6),
    )


def test_convergence_of_a_rival() -> None:
    # 0.5 is past the target at once; 0.26 is within 0.01 of the best, 0.25, and 0.2601 is not.
    rival = [log(0.5, 0.3, 0.2601, 0.26, 0.25, every=50, pace=0.25), log(0.53, 0.515, 0.511)]
    assert convergence(rival, Targets(0.51, 0.3)) == Convergence(
        iterations_to_converge=(200, 200),
        seconds_to_converge=(1.0, 1.0),
        iterations_to_target=(50, None),
        seconds_to_target=(0.25, None),
        iterations_to_best_seed=(100, None),
        iterations_trained=(250, 300),
        seconds_trained=(1.25, 1.5),
        wall_seconds_trained=(2.5, 3.0),
        best_validation_nll_nats=(0.25, 0.511),
    )


def test_the_first_validation_at_the_target_counts_even_if_the_loss_rises_again() -> None:
    found = convergence([log(0.5, 0.9, 0.49)], Targets(0.51, 0.51))
    assert found.iterations_to_target == (100,)
    assert found.iterations_to_converge == (100,)


def test_without_a_target_no_seed_reaches_one() -> None:
    found = convergence(RAM, None)
    assert found.iterations_to_target == found.seconds_to_target == found.iterations_to_best_seed == (None, None)
    assert found.iterations_to_converge == (300, 400)
