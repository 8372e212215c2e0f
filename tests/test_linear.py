"""Logistic regression on whole images: its accuracy, its cost, and sets that it cannot be fitted to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nogs.data import ImageSet
from nogs.evaluation import linear
from nogs.evaluation.linear import logistic_regression
from nogs.rivals import cnn


def brightness(classes: int, *, image_px: int = 30, count: int = 120) -> ImageSet:
    """Images whose class is how bright they are, with a little noise; half of them train, a quarter each val and test.

    A softmax of linear functions of brightness separates such classes.
    """
    labels = torch.arange(count) % classes
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 20, (count, 1, image_px, image_px)))
    images = (labels[:, None, None, None] * (200 // classes) + noise).to(torch.uint8)
    split = torch.tensor([0, 0, 1, 2]).repeat_interleave(classes).repeat(count)[:count]
    names = tuple(map(str, range(count)))
    return ImageSet(images, labels, tuple(map(str, range(classes))), split, torch.arange(count), names)


@pytest.mark.parametrize(("classes", "outputs"), [(2, 1), (3, 3)])
def test_classes_of_different_brightness_are_separated(classes: int, outputs: int) -> None:
    found = logistic_regression(brightness(classes))
    assert found is not None
    assert (found.test_accuracy, found.validation_accuracy) == (1.0, 1.0)
    assert found.resolution_px == linear.MAX_RESOLUTION_PX
    assert found.macs == linear.MAX_RESOLUTION_PX**2 * outputs


def test_small_images_keep_their_size() -> None:
    found = logistic_regression(brightness(2, image_px=8))
    assert found is not None
    assert (found.resolution_px, found.macs) == (8, 64)


def test_a_class_that_no_training_image_used_has_is_never_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    data = brightness(3)
    train_of_two = replace(data, split=torch.where((data.labels == 2) & (data.split == 0), 1, data.split))
    found = logistic_regression(train_of_two)
    assert found is not None
    assert found.test_balanced_accuracy == pytest.approx(2 / 3)
    assert logistic_regression(replace(data, labels=torch.zeros_like(data.labels))) is None
    monkeypatch.setattr(linear, "MAX_TRAINING_IMAGES", 20)
    assert logistic_regression(data) is not None


def test_few_images_are_in_memory_at_full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    data, sizes = brightness(2), []
    whole = logistic_regression(data)

    def shrink(images: torch.Tensor, resolution_px: int) -> torch.Tensor:
        sizes.append(len(images))
        return cnn.shrink(images, resolution_px)

    monkeypatch.setattr(linear, "shrink", shrink)
    monkeypatch.setattr(linear, "BATCH", 7)
    assert logistic_regression(data) == whole
    assert max(sizes) == 7
