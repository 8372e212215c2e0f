"""Scores of class log-probabilities [n, C], or [n, T, C] after each of T glimpses, against labels [n]."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MAX_CONFUSION_CLASSES = 20
"""Largest number of classes for which a confusion matrix is kept."""
UNEVEN = 1.5
"""Ratio of the largest class to the smallest above which accuracy alone misleads."""


class Scores(NamedTuple):
    """Accuracies are shares in [0, 1]; ``auroc`` is the area under the ROC curve, a mean over classes.

    ``equal_prior_balanced_accuracy``: of answers under a prior in which all classes are equally frequent.
    """

    accuracy: float
    balanced_accuracy: float
    equal_prior_balanced_accuracy: float
    auroc: float
    nll_nats: float


def scores(log_probs: Float[Tensor, "n C"], labels: Int[Tensor, " n"], *, frequencies: Float[Tensor, " C"]) -> Scores:
    """Return the scores of one answer an image. ``frequencies``: shares of the classes among the training images."""
    from torchmetrics.functional.classification import multiclass_auroc  # takes seconds to import

    right = log_probs.argmax(-1) == labels
    return Scores(
        accuracy=accuracy(log_probs, labels),
        balanced_accuracy=balanced_accuracy(right[:, None], labels).item(),
        equal_prior_balanced_accuracy=balanced_accuracy(
            right_by_glimpse(at_equal_prior(log_probs, frequencies)[:, None], labels), labels
        ).item(),
        auroc=multiclass_auroc(log_probs.exp(), labels, log_probs.shape[-1], average="macro").item(),
        nll_nats=nll_nats(log_probs, labels),
    )


def at_equal_prior(log_probs: Float[Tensor, "*batch C"], frequencies: Float[Tensor, " C"]) -> Float[Tensor, "*batch C"]:
    """Return log q(θ | y) - log p(θ): unnormalised answers under a prior in which classes are equally frequent.

    p(θ) are the class frequencies that the classifier was trained with. If q is calibrated, the class where this is
    greatest is the answer of highest balanced accuracy (Menon, Narasimhan, Agarwal and Chawla 2013). A class that was
    not trained with is never the answer.
    """
    return torch.where(frequencies > 0, log_probs - frequencies.log(), -torch.inf)


def class_frequencies(labels: Int[Tensor, " n"], classes: int) -> Float[Tensor, " C"]:
    """Return the share of each class among ``labels``."""
    return labels.bincount(minlength=classes).float() / len(labels)


def accuracy(log_probs: Float[Tensor, "n C"], labels: Int[Tensor, " n"]) -> float:
    """Return the share of images whose most probable class is their label."""
    return (log_probs.argmax(-1) == labels).float().mean().item()


def nll_nats(log_probs: Float[Tensor, "n C"], labels: Int[Tensor, " n"]) -> float:
    """Return the mean cross-entropy in nats."""
    return -log_probs.gather(1, labels[:, None]).mean().item()


def balanced_accuracy(right: Bool[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, " k"]:
    """Return the mean over classes of their accuracies, for k answers an image. Classes without images are left out."""
    by_class = torch.stack([right[labels == label].float().mean(0) for label in labels.unique()])
    return (by_class / len(by_class)).sum(0)


def accuracy_by_class(right: Bool[Tensor, " n"], labels: Int[Tensor, " n"], classes: int) -> tuple[float | None, ...]:
    """Return the accuracy on the images of each class; None for a class without images."""
    of_class = [right[labels == label] for label in range(classes)]
    return tuple(hits.float().mean().item() if len(hits) else None for hits in of_class)


def confusion(answers: Int[Tensor, " n"], labels: Int[Tensor, " n"], classes: int) -> Int[Tensor, "C C"]:
    """Return the number of images of each label (rows) with each answer (columns)."""
    return (labels * classes + answers).bincount(minlength=classes**2).reshape(classes, classes)


def right_by_glimpse(log_probs: Float[Tensor, "n T C"], labels: Int[Tensor, " n"]) -> Bool[Tensor, "n T"]:
    """Return whether the most probable class is the label, after each glimpse."""
    return log_probs.argmax(-1) == labels[:, None]


def is_uneven(labels: Int[Tensor, " n"]) -> bool:
    """Return whether the largest class has more than ``UNEVEN`` times the images of the smallest."""
    counts = labels.bincount()
    present = counts[counts > 0]
    return bool(present.max() > UNEVEN * present.min())


class ByGlimpse(NamedTuple):
    """Scores after each of T glimpses. ``calibration_error`` is the expected calibration error, of 15 bins."""

    nll_nats: tuple[float, ...]
    accuracy: tuple[float, ...]
    calibration_error: tuple[float, ...]

    def named(self, prefix: str) -> dict[str, tuple[float, ...]]:
        """Return the scores by their keys in results.json."""
        return {f"{prefix}{name}_by_glimpse": values for name, values in self._asdict().items()}


def scores_by_glimpse(log_probs: Float[Tensor, "n T C"], labels: Int[Tensor, " n"]) -> ByGlimpse:
    """Return the scores of a posterior after each glimpse."""
    from torchmetrics.functional.classification import multiclass_calibration_error  # takes seconds to import

    steps, C = log_probs.unbind(1), log_probs.shape[-1]
    return ByGlimpse(
        nll_nats=tuple(nll_nats(step, labels) for step in steps),
        accuracy=tuple(accuracy(step, labels) for step in steps),
        calibration_error=tuple(multiclass_calibration_error(step.exp(), labels, C).item() for step in steps),
    )
