"""Tensors kept for figures: where methods look, and single test images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nogs.attention.methods import CONTROL, METHODS, REFERENCE, STOPPING
from nogs.data import ImageSet
from nogs.data.pixels import mean_image, pictures
from nogs.evaluation.records import NetworkRecord, last_right


def look_shares(cells: Sequence[Int[Tensor, "n T"]], locations: int) -> Float[Tensor, "T L"]:
    """Return the share of images that look at each cell in each glimpse, averaged over seeds."""
    counts = [torch.stack([at.bincount(minlength=locations) / len(at) for at in of_seed.T]) for of_seed in cells]
    return torch.stack(counts).mean(0)


def single_images(record: NetworkRecord, data: ImageSet, *, count: int) -> dict[str, Tensor]:
    """Return ``count`` test images (`right_and_wrong`) with the network's own glimpses.

    ``mean_image`` is that of all test images, in [0, 255].
    """
    test = data.members("test")
    rows = right_and_wrong(record, data.labels[test], count=count)
    return {
        "pixels": pictures(data.images, test[rows]),
        "labels": data.labels[test[rows]],
        "cells": record.cells[rows],
        "log_probs": record.log_probs[rows],
        "mean_image": mean_image(data.images, test),
    }


def right_and_wrong(record: NetworkRecord, labels: Int[Tensor, " n"], *, count: int) -> Int[Tensor, " rows"]:
    """Return ``count`` test images by row: half classified correctly, half not, if there are so many.

    Of either kind the first ones in the order of the split, so that none is picked by its looks.
    """
    right = last_right(record, labels)
    correct, wrong = right.nonzero()[:, 0], (~right).nonzero()[:, 0]
    wrong = wrong[: max(count // 2, count - len(correct))]
    return torch.cat((correct[: count - len(wrong)], wrong))


def headline(names: Iterable[str]) -> str | None:
    """Return the method that a page is about: PS-NOGS, or the first with a policy, or the first, that is no reference.

    None if there are only references.
    """
    others = [name for name in names if name not in (REFERENCE, CONTROL)]
    policies = [name for name in others if name not in METHODS or METHODS[name].policy != "none"]
    return STOPPING if STOPPING in others else next(iter(policies or others), None)
