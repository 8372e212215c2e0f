"""Tensors kept for figures, against counts."""

from __future__ import annotations

import pytest
import torch

from nogs.data import ImageSet
from nogs.evaluation.pictures import headline, look_shares, single_images
from nogs.evaluation.records import NetworkRecord


def test_shares_of_looks_are_means_over_images_and_seeds() -> None:
    one, other = torch.tensor([[0, 1], [0, 2]]), torch.tensor([[0, 2], [1, 2]])
    assert look_shares([one, other], 3).tolist() == [[0.75, 0.25, 0.0], [0.0, 0.25, 0.75]]


def test_half_of_the_single_images_are_mistakes_if_there_are_as_many() -> None:
    """Ten test images after three of the training split; the wrong ones are given."""
    n, before = 10, 3
    labels = torch.arange(before + n) % 2
    split = torch.tensor([0] * before + [2] * n)
    images = torch.arange(before + n, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)
    data = ImageSet(images, labels, ("a", "b"), split, torch.arange(before + n), tuple("x" * (before + n)))

    def shown(wrong: list[int], count: int) -> list[int]:
        answers = labels[before:].clone()
        answers[wrong] = 1 - answers[wrong]
        log_probs = torch.nn.functional.one_hot(answers, 2).float().log_softmax(-1)[:, None]
        record = NetworkRecord(0, torch.arange(n)[:, None], log_probs, None, 0.1, True, (1,), {})
        found = single_images(record, data, count=count)
        assert found["cells"][:, 0].tolist() == [pixel - before for pixel in found["pixels"][:, 0, 0, 0].tolist()]
        assert found["labels"].tolist() == [int(labels[pixel]) for pixel in found["pixels"][:, 0, 0, 0].tolist()]
        return found["cells"][:, 0].tolist()

    assert shown([1, 4, 5], 4) == [0, 2, 1, 4]
    assert shown([4], 4) == [0, 1, 2, 4]
    assert shown([0, 1, 2, 3, 4, 5, 6, 7, 8], 4) == [9, 0, 1, 2]
    assert shown([], 4) == [0, 1, 2, 3]
    assert shown([3], 20) == [0, 1, 2, 4, 5, 6, 7, 8, 9, 3]


@pytest.mark.parametrize(
    ("names", "about"),
    [
        (("ram", "gain", "ps-nogs"), "ps-nogs"),
        (("random", "ram", "gain", "act"), "gain"),
        (("ram", "path", "centre"), "centre"),
        (("ram", "path"), None),
    ],
)
def test_a_page_is_about_a_method_that_is_no_reference(names: tuple[str, ...], about: str | None) -> None:
    assert headline(names) == about
