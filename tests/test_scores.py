"""Scores against counts by hand, and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics

from nogs.evaluation.scores import (
    accuracy_by_class,
    at_equal_prior,
    balanced_accuracy,
    class_frequencies,
    confusion,
    is_uneven,
    right_by_glimpse,
    scores,
    scores_by_glimpse,
)

PROBS = torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.8, 0.2], [0.4, 0.6]])
LABELS = torch.tensor([0, 0, 0, 1])


def test_scores_by_hand() -> None:
    """Class 1 is rare, and is ranked right in two of three pairs."""
    tested = scores(PROBS.log(), LABELS, frequencies=torch.tensor([0.75, 0.25]))
    assert tested.accuracy == 0.75
    assert tested.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2)
    # Odds of class 1 times three: 1/3, 7, 3/4 and 9/2, so images 0 and 2 are class 0.
    assert tested.equal_prior_balanced_accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert tested.auroc == pytest.approx(2 / 3)
    assert tested.nll_nats == pytest.approx(-sum(math.log(p) for p in (0.9, 0.3, 0.8, 0.6)) / 4)


def test_scores_by_glimpse_by_hand() -> None:
    """After one glimpse every image gets class 0 with 0.9, of which a quarter is wrong."""
    log_probs = torch.stack((torch.tensor([[0.9, 0.1]]).expand(4, -1), PROBS), dim=1).log()
    found = scores_by_glimpse(log_probs, LABELS)
    assert found.accuracy == (0.75, 0.75)
    assert found.nll_nats[0] == pytest.approx(-(3 * math.log(0.9) + math.log(0.1)) / 4)
    assert found.calibration_error[0] == pytest.approx(0.15)
    assert found.named("random_").keys() == {
        f"random_{name}_by_glimpse" for name in ("nll_nats", "accuracy", "calibration_error")
    }
    assert right_by_glimpse(log_probs, LABELS).tolist() == [[True, True], [True, False], [True, True], [False, True]]


def test_answers_at_an_equal_prior_have_the_highest_balanced_accuracy() -> None:
    """In a world of three observations and two classes, of all eight rules none has a higher balanced accuracy."""
    joint = torch.tensor([[0.50, 0.01], [0.30, 0.03], [0.10, 0.06]])  # p(observation, class); class 1 is rare
    frequencies = joint.sum(0)
    log_q = (joint / joint.sum(1, keepdim=True)).log()
    per_class = joint / frequencies

    def balanced(answers: list[int]) -> float:
        return sum(per_class[observed, answer].item() for observed, answer in enumerate(answers)) / 2

    rules = [[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    chosen = at_equal_prior(log_q, frequencies).argmax(-1).tolist()
    assert balanced(chosen) == pytest.approx(max(map(balanced, rules)))
    assert balanced(log_q.argmax(-1).tolist()) == pytest.approx(0.5)


def test_a_class_without_training_images_is_never_the_answer() -> None:
    frequencies = class_frequencies(torch.tensor([0, 0, 2]), 3)
    assert frequencies.tolist() == pytest.approx([2 / 3, 0, 1 / 3])
    assert at_equal_prior(torch.tensor([[0.1, 0.8, 0.1]]).log(), frequencies).argmax(-1).tolist() == [2]


def test_balanced_accuracy_counts_every_class_alike() -> None:
    right = torch.tensor([[1, 1], [1, 0], [0, 0], [0, 1]]).bool()
    labels = torch.tensor([2, 2, 2, 0])  # no image of class 1
    assert balanced_accuracy(right, labels).tolist() == pytest.approx([(2 / 3 + 0) / 2, (1 / 3 + 1) / 2])
    assert accuracy_by_class(right[:, 0], labels, 3) == (0.0, None, pytest.approx(2 / 3))


def test_confusion_and_balance_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    answers, labels = rng.integers(0, 4, 100), rng.integers(0, 4, 100)
    counts = confusion(torch.from_numpy(answers), torch.from_numpy(labels), 4)
    assert counts.tolist() == metrics.confusion_matrix(labels, answers).tolist()
    right = torch.from_numpy(answers == labels)[:, None]
    expected = metrics.balanced_accuracy_score(labels, answers)
    assert balanced_accuracy(right, torch.from_numpy(labels)).item() == pytest.approx(expected)


@pytest.mark.parametrize(("counts", "uneven"), [((3, 2), False), ((4, 2), True), ((3, 0), False)])
def test_classes_are_uneven_from_half_as_many_again(counts: tuple[int, int], uneven: bool) -> None:
    assert is_uneven(torch.tensor([0, 1]).repeat_interleave(torch.tensor(counts))) is uneven
