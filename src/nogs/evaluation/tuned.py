"""tune.json as types: the trials of an architecture search, and its front of accuracy and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nogs.evaluation.schema import WholeImage
from nogs.evaluation.typed_json import Number

SCHEMA = 1


@dataclass(frozen=True)
class Trial:
    """One training of the search, at the validation with the best accuracy.

    ``macs``: multiply-adds of an image after all glimpses. ``pruned``: stopped before its last iteration.
    """

    glimpse_size: int
    stride: int
    glimpses: int
    scales: int
    overview: int
    hidden: int
    learning_rate: Number
    macs: int
    validation_accuracy: Number
    iterations: int
    pruned: bool


@dataclass(frozen=True)
class TuneResults:
    """tune.json. ``best`` and ``front`` are indices of trials; the front is in the order of rising multiply-adds.

    ``test_accuracy``: of the best network, trained anew. ``whole_images``: CNNs on the same images, if they are given.
    """

    schema: int
    data: str
    task: str | None
    method: str
    cost_weight: Number
    trials: tuple[Trial, ...]
    best: int
    front: tuple[int, ...]
    test_accuracy: Number
    whole_images: tuple[WholeImage, ...] = ()


def front(trials: Sequence[Trial]) -> tuple[int, ...]:
    """Return the trials that no other beats: each is more accurate than all with no more multiply-adds."""
    order = sorted(range(len(trials)), key=lambda i: (trials[i].macs, -trials[i].validation_accuracy))
    chosen: list[int] = []
    for i in order:
        if not chosen or trials[i].validation_accuracy > trials[chosen[-1]].validation_accuracy:
            chosen.append(i)
    return tuple(chosen)
