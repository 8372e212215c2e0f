"""bench.json as types: what `nogs bench` compares methods by on each task, and how it follows from a run's results.

Accuracies, costs and shares are those of `nogs.evaluation.schema`. Lists over seeds are in the order of ``seeds``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nogs.evaluation.convergence import Row
from nogs.evaluation.schema import ByGlimpse, BySeed, MethodScores, Results, WholeImage
from nogs.evaluation.seconds import Before
from nogs.evaluation.typed_json import Number

SCHEMA = 1


class Validated(NamedTuple):
    """A validation: wall seconds from nothing, preparations such as a search included, and accuracy (greedy)."""

    seconds: Number
    accuracy: Number


@dataclass(frozen=True)
class BenchMethod:
    """One method on one task. ``learning``: the validations of each seed.

    ``iterations_to_target`` as in `nogs.evaluation.schema.MethodScores`; empty if the task has no target.
    """

    seeds: tuple[int, ...]
    test_accuracy: BySeed
    mean_test_accuracy: Number
    test_accuracy_by_glimpse: tuple[ByGlimpse, ...]
    adaptivity_nats_by_glimpse: tuple[ByGlimpse, ...]
    pixels_read_share_by_glimpse: tuple[ByGlimpse, ...]
    macs_by_glimpse: tuple[int, ...]
    learning: tuple[tuple[Validated, ...], ...]
    test_balanced_accuracy: BySeed = ()
    iterations_to_target: tuple[Number | None, ...] = ()


@dataclass(frozen=True)
class BenchTask:
    """One task. ``whole_images``: logistic regression, and CNNs if they were trained. ``image_px``: side length.

    ``commonest_class_share``: accuracy of always answering the class that most test images have.
    """

    data: str
    task: str | None
    image_px: int
    test_images: int
    methods: Mapping[str, BenchMethod]
    whole_images: tuple[WholeImage, ...] = ()
    commonest_class_share: Number | None = None


@dataclass(frozen=True)
class BenchResults:
    """bench.json: name of each task → its figures."""

    schema: int
    tasks: Mapping[str, BenchTask]


def bench_task(
    results: Results,
    logs: Mapping[str, Sequence[Sequence[Row]]],
    before: Mapping[str, Before | None],
    *,
    image_px: int,
) -> BenchTask:
    """Return the figures of one task.

    ``logs``: method → validations of each seed. ``before``: method → seconds of what its trainings need before them;
    None, which counts as 0, if they are not known.
    """
    return BenchTask(
        data=results.data,
        task=results.task,
        image_px=image_px,
        test_images=results.test.images,
        methods={
            name: _method(scores, logs[name], sum((before[name] or {}).values()), has_race=results.has_race)
            for name, scores in results.methods.items()
        },
        commonest_class_share=max(results.test.images_by_class) / results.test.images,
        whole_images=(*([results.linear] if results.linear else []), *results.cnn_means),
    )


def _method(
    scores: MethodScores, logs: Sequence[Sequence[Row]], seconds_before: Number, *, has_race: bool
) -> BenchMethod:
    return BenchMethod(
        seeds=scores.seeds,
        test_accuracy=scores.test_accuracy,
        mean_test_accuracy=scores.means["test_accuracy"].value,
        test_accuracy_by_glimpse=scores.test_accuracy_by_glimpse,
        adaptivity_nats_by_glimpse=scores.adaptivity_nats_by_glimpse,
        pixels_read_share_by_glimpse=scores.pixels_read_share_by_glimpse,
        macs_by_glimpse=scores.macs_by_glimpse,
        learning=tuple(
            tuple(Validated(seconds_before + row["wall_seconds"], row["accuracy"]) for row in rows) for rows in logs
        ),
        test_balanced_accuracy=scores.test_balanced_accuracy,
        iterations_to_target=scores.iterations_to_target if has_race else (),
    )
