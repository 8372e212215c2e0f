"""Scores and comparisons of methods, from records and logs made by hand."""

from __future__ import annotations

import math
from statistics import mean

import pytest
import torch
from torch import Tensor

from nogs.evaluation.comparisons import across_tasks, compare_with
from nogs.evaluation.convergence import Targets, convergence
from nogs.evaluation.records import NetworkRecord, last_right, means_over_seeds, method_scores
from nogs.evaluation.schema import Comparison, MethodScores, WholeImage
from nogs.evaluation.seconds import Seconds
from nogs.evaluation.uncertainty import Bounded

LABELS = torch.tensor([0, 0, 1, 1])
CERTAIN = 1 - 1e-6


def log_probs(*answers: list[int]) -> Tensor:
    """Almost certain answers of four images, a row a glimpse: [4, T, 2]."""
    chosen = torch.tensor(answers).T[..., None] == torch.arange(2)
    return torch.where(chosen, math.log(CERTAIN), math.log(1 - CERTAIN))


def record(seed: int, *answers: list[int], sampled: list[int] | None = None, adaptive: bool = True) -> NetworkRecord:
    return NetworkRecord(
        seed,
        torch.tensor([[3, 1], [3, 1], [3, 2], [3, 2]]),
        log_probs(*answers),
        log_probs(sampled)[:, 0] if sampled else None,
        pixels_read_share=(0.1, 0.25),
        adaptive=adaptive,
        macs_by_glimpse=(10, 20),
        macs_by_part={"core": 8, "classifier": 2},
    )


def log(*losses: float) -> list[dict[str, float]]:
    """A validation every 100 iterations, each after a second of training and two of wall time."""
    return [{"iteration": 100 * i, "seconds": i, "wall_seconds": 2 * i, "nll_nats": x} for i, x in enumerate(losses, 1)]


RECORDS = {
    "ram": [record(0, [0, 0, 0, 0], [0, 0, 0, 1]), record(1, [1, 1, 1, 1], [1, 1, 1, 0])],
    "ps-nogs": [record(1, [0, 0, 0, 0], [0, 0, 1, 1], sampled=[0, 0, 0, 0])],
    "random": [record(0, [0, 0, 0, 0], [0, 0, 1, 1], adaptive=False)],
}
LOGS = {"ram": [log(0.9, 0.5), log(0.9, 0.7)], "ps-nogs": [log(0.5)], "random": [log(0.9)]}
TARGETS = Targets(0.61, 0.51)


def scored(target: Targets | None = TARGETS) -> dict[str, MethodScores]:
    return {
        name: method_scores(
            records,
            LABELS,
            convergence(LOGS[name], target),
            frequencies=torch.tensor([0.5, 0.5]),
            has_target=target is not None,
        )
        for name, records in RECORDS.items()
    }


def test_scores_of_a_method_by_hand() -> None:
    ram, ours, random = scored().values()
    assert ram.seeds == (0, 1)
    assert ram.test_accuracy == (0.75, 0.25)
    assert ram.test_accuracy_by_glimpse == ((0.5, 0.75), (0.5, 0.25))
    assert ram.test_balanced_accuracy_by_glimpse == ((0.5, 0.75), (0.5, 0.25))
    # Classes are equally frequent, so the prior changes nothing.
    assert ram.test_equal_prior_balanced_accuracy_by_glimpse == ram.test_balanced_accuracy_by_glimpse
    assert ram.test_accuracy_by_class == ((1.0, 0.5), (0.0, 0.5))
    assert ram.mean_accuracy_by_class == (0.5, 0.5)
    assert ram.test_confusion == ((2, 2), (2, 2))
    assert ram.means["test_accuracy"] == Bounded(0.5)
    assert ram.means_by_glimpse["test_accuracy_by_glimpse"] == (0.5, 0.5)
    assert (ram.pixels_read_share, ram.pixels_read_share_by_glimpse) == ((0.25, 0.25), ((0.1, 0.25), (0.1, 0.25)))
    assert ram.iterations_to_target == (200, None)
    assert ram.means["iterations_to_target"] == Bounded(200, "at least")
    assert ram.means["seconds_to_target"] == Bounded(2, "at least")
    assert (ours.iterations_to_best_seed, ours.means["iterations_to_best_seed"]) == ((100,), Bounded(100))
    assert ours.sampled_test_accuracy == (0.5,)
    assert (random.sampled_test_accuracy, "sampled_test_accuracy" in random.means) == ((), False)
    # Half of the images look at each of two cells in the second glimpse; random cells do not depend on the image.
    assert ours.adaptivity_nats_by_glimpse[0] == pytest.approx((0.0, math.log(2)))
    assert random.adaptivity_nats_by_glimpse == ((0.0, 0.0),)


def test_means_to_a_target_need_a_target() -> None:
    means = scored(None)["ram"].means
    assert not [name for name in means if name.endswith(("_to_target", "_to_best_seed"))]
    assert means["iterations_to_converge"] == Bounded(200)


def test_a_comparison_by_hand() -> None:
    """The one shared seed: right about all four against one of them."""
    right = {(name, r.seed): last_right(r, LABELS) for name, records in RECORDS.items() for r in records}
    seconds = {
        "ram": Seconds(None, None, 4.0, 4.0, (True, False)),
        "ps-nogs": Seconds(2.0, 8.0, 2.0, 8.0, (True,), search=6.0),
    }
    compared = compare_with("ram", scored(), right, seconds)
    ours = compared["ps-nogs"]
    assert (ours.seeds, ours.test_accuracy_difference, ours.mean_test_accuracy_difference) == ((1,), (0.75,), 0.75)
    assert (ours.images[0].only_method, ours.images[0].only_reference) == (3, 0)
    assert ours.iterations_ratio == Bounded(2.0, "at least")
    assert ours.seconds_ratio == Bounded(0.5, "at least")
    assert ours.test_accuracy_p_value is ours.iterations_p_value is None  # of a single seed
    assert ours.mean_sampled_test_accuracy_difference is None  # of RAM no sampled policy was recorded
    assert compared["random"].seeds == (0,)
    assert compared["random"].seconds_ratio is None
    assert compare_with("path", scored(), right, seconds) == {}
    assert compare_with("ram", scored(None), right, {})["ps-nogs"].iterations_ratio is None


def test_outcomes_across_tasks_count_wins_losses_and_what_is_open() -> None:
    """Against RAM: twice as fast, at most 0.3 times, and open because neither or only the slower one arrived."""

    def of(difference: float, ratio: Bounded | None, seconds: Bounded | None = None) -> Comparison:
        return Comparison((0,), (difference,), difference, (), iterations_ratio=ratio, seconds_ratio=seconds)

    compared = [
        of(0.02, Bounded(2.0), Bounded(0.5)),
        of(-0.27, Bounded(0.3, "at most")),
        of(0.0, Bounded(0.9, "at least")),
        of(0.01, Bounded(1.5, "unknown")),
        of(0.04, None),
    ]
    across = across_tasks(compared)
    assert across.tasks == 5
    assert across.accuracy == (3, 1, 1)
    assert across.mean_test_accuracy_difference == pytest.approx(-0.04)
    assert across.iterations == (1, 1, 2)
    assert across.iterations_ratio is None
    assert across.seconds == (0, 1, 0)
    assert across_tasks(compared[:1]).iterations_ratio == Bounded(2.0)
    assert across_tasks(compared[4:]).iterations is None


def test_cnns_are_means_over_their_seeds() -> None:
    rows = [
        WholeImage(
            name,
            "mobilenet-v2",
            resolution_px=8,
            macs=macs,
            validation_accuracy=0.5,
            test_accuracy=accuracy,
            test_balanced_accuracy=accuracy / 2,
            test_equal_prior_balanced_accuracy=accuracy / 4,
            test_auroc=0.9,
            seed=seed,
            on_frontier=name == "a",
        )
        for name, macs, accuracies in (("a", 10, (0.7, 0.72)), ("b", 20, (0.6,)))
        for seed, accuracy in enumerate(accuracies)
    ]
    means = means_over_seeds(rows)
    assert [(row.name, row.macs, row.seed, row.on_frontier) for row in means] == [
        ("a", 10, None, True),
        ("b", 20, None, False),
    ]
    assert [row.test_accuracy for row in means] == [pytest.approx(mean((0.7, 0.72))), 0.6]
    assert means[0].test_balanced_accuracy == pytest.approx(0.355)
    assert means[0].test_equal_prior_balanced_accuracy == pytest.approx(0.1775)
