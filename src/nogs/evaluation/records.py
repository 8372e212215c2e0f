"""The scores of one method: records of its trained networks on the test split, summed up over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import mean
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nogs.evaluation.convergence import Convergence
from nogs.evaluation.schema import ByGlimpse, MethodScores, WholeImage
from nogs.evaluation.scores import (
    MAX_CONFUSION_CLASSES,
    accuracy_by_class,
    at_equal_prior,
    balanced_accuracy,
    confusion,
    right_by_glimpse,
    scores,
)
from nogs.evaluation.uncertainty import Bounded, bounded_mean
from nogs.information import empirical_entropy

AVERAGED = (
    "iterations_to_converge",
    "seconds_to_converge",
    "best_validation_nll_nats",
    "test_accuracy",
    "test_balanced_accuracy",
    "test_equal_prior_balanced_accuracy",
    "test_auroc",
    "test_nll_nats",
    "sampled_test_accuracy",
    "sampled_test_balanced_accuracy",
    "sampled_test_nll_nats",
    "pixels_read_share",
    "mean_glimpses",
)
"""Figures of `MethodScores` whose plain means over seeds are kept."""
AVERAGED_BY_GLIMPSE = (
    "test_accuracy_by_glimpse",
    "test_balanced_accuracy_by_glimpse",
    "test_equal_prior_balanced_accuracy_by_glimpse",
    "adaptivity_nats_by_glimpse",
    "pixels_read_share_by_glimpse",
)


class NetworkRecord(NamedTuple):
    """One trained network on n test images, each seen at T cells by the greedy policy, or by the method's own rule.

    ``sampled_log_probs``: after T glimpses of the sampled policy; None for a method without a policy. ``adaptive``:
    whether cells are a function of the image; else they are drawn at random. ``mean_glimpses``: of a method that stops
    on its own. ``pixels_read_share``: of the mean image, after t = 1..T glimpses, its overview counted.
    """

    seed: int
    cells: Int[Tensor, "n T"]
    log_probs: Float[Tensor, "n T C"]
    sampled_log_probs: Float[Tensor, "n C"] | None
    pixels_read_share: ByGlimpse
    adaptive: bool
    macs_by_glimpse: tuple[int, ...]
    macs_by_part: Mapping[str, int]
    mean_glimpses: float | None = None


def method_scores(
    records: Sequence[NetworkRecord],
    labels: Int[Tensor, " n"],
    timing: Convergence,
    *,
    frequencies: Float[Tensor, " C"],
    has_target: bool,
) -> MethodScores:
    """Return the scores of one method from the records of its seeds. ``timing`` has the same order of seeds.

    ``frequencies``: shares of the classes among the training images.
    """
    right = [right_by_glimpse(record.log_probs, labels) for record in records]
    equal = [right_by_glimpse(at_equal_prior(record.log_probs, frequencies), labels) for record in records]
    last = [scores(record.log_probs[:, -1], labels, frequencies=frequencies) for record in records]
    answered = [r.sampled_log_probs for r in records if r.sampled_log_probs is not None]
    drawn = [scores(log_probs, labels, frequencies=frequencies) for log_probs in answered]
    unsummed = MethodScores(
        seeds=tuple(record.seed for record in records),
        **timing._asdict(),
        test_accuracy=tuple(of.accuracy for of in last),
        test_balanced_accuracy=tuple(of.balanced_accuracy for of in last),
        test_equal_prior_balanced_accuracy=tuple(of.equal_prior_balanced_accuracy for of in last),
        test_auroc=tuple(of.auroc for of in last),
        test_nll_nats=tuple(of.nll_nats for of in last),
        test_accuracy_by_glimpse=_rows(hits.float().mean(0) for hits in right),
        test_balanced_accuracy_by_glimpse=_rows(balanced_accuracy(hits, labels) for hits in right),
        test_equal_prior_balanced_accuracy_by_glimpse=_rows(balanced_accuracy(hits, labels) for hits in equal),
        adaptivity_nats_by_glimpse=_rows(map(adaptivity_nats, records)),
        test_accuracy_by_class=tuple(accuracy_by_class(hits[:, -1], labels, _classes(records)) for hits in right),
        sampled_test_accuracy=tuple(of.accuracy for of in drawn),
        sampled_test_balanced_accuracy=tuple(of.balanced_accuracy for of in drawn),
        sampled_test_nll_nats=tuple(of.nll_nats for of in drawn),
        pixels_read_share=tuple(record.pixels_read_share[-1] for record in records),
        pixels_read_share_by_glimpse=tuple(record.pixels_read_share for record in records),
        mean_glimpses=tuple(record.mean_glimpses for record in records if record.mean_glimpses is not None),
        macs_by_glimpse=records[0].macs_by_glimpse,
        macs_by_part=records[0].macs_by_part,
        test_confusion=_confusion(records, labels),
    )
    by_class = tuple(
        None if None in seeds else mean(share for share in seeds if share is not None)
        for seeds in zip(*unsummed.test_accuracy_by_class, strict=True)
    )
    by_glimpse = {name: _mean_by_glimpse(getattr(unsummed, name)) for name in AVERAGED_BY_GLIMPSE}
    means = _means(unsummed, has_target=has_target)
    return replace(unsummed, mean_accuracy_by_class=by_class, means=means, means_by_glimpse=by_glimpse)


def adaptivity_nats(record: NetworkRecord) -> Float[Tensor, " T"]:
    """Return the mutual information between test image and cell at each glimpse, in nats; 0 for random cells."""
    T = record.cells.shape[1]
    return empirical_entropy(record.cells) if record.adaptive else torch.zeros(T)


def last_right(record: NetworkRecord, labels: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Return whether each image is classified correctly after the last glimpse."""
    return right_by_glimpse(record.log_probs, labels)[:, -1]


def _means(scores: MethodScores, *, has_target: bool) -> dict[str, Bounded]:
    """Return means over seeds by name; those to a target only if there is one."""
    means = {name: Bounded(mean(values)) for name in AVERAGED if (values := getattr(scores, name))}
    if has_target:
        iterations, seconds = scores.iterations_trained, scores.seconds_trained
        means["iterations_to_target"] = bounded_mean(scores.iterations_to_target, iterations)
        means["iterations_to_best_seed"] = bounded_mean(scores.iterations_to_best_seed, iterations)
        means["seconds_to_target"] = bounded_mean(scores.seconds_to_target, seconds)
    return means


def _rows(seeds: Iterable[Float[Tensor, " T"]]) -> tuple[ByGlimpse, ...]:
    return tuple(tuple(seed.tolist()) for seed in seeds)


def _mean_by_glimpse(seeds: Sequence[ByGlimpse]) -> ByGlimpse:
    return tuple(map(mean, zip(*seeds, strict=True)))


def _confusion(records: Sequence[NetworkRecord], labels: Int[Tensor, " n"]) -> tuple[tuple[int, ...], ...]:
    C = _classes(records)
    if C > MAX_CONFUSION_CLASSES:
        return ()
    counts = sum(confusion(record.log_probs[:, -1].argmax(-1), labels, C) for record in records)
    assert isinstance(counts, Tensor)
    return tuple(tuple(row) for row in counts.tolist())


def _classes(records: Sequence[NetworkRecord]) -> int:
    return records[0].log_probs.shape[-1]


def means_over_seeds(rows: Sequence[WholeImage]) -> tuple[WholeImage, ...]:
    """Return one row for each network, its accuracies averaged over seeds, in the order of ``rows``."""
    by_name: dict[str, list[WholeImage]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    return tuple(
        replace(
            seeds[0],
            seed=None,
            validation_accuracy=mean(row.validation_accuracy for row in seeds),
            test_accuracy=mean(row.test_accuracy for row in seeds),
            test_balanced_accuracy=mean(row.test_balanced_accuracy for row in seeds),
            test_equal_prior_balanced_accuracy=mean(row.test_equal_prior_balanced_accuracy for row in seeds),
            test_auroc=mean(row.test_auroc for row in seeds),
            pixels_read_share=mean(row.pixels_read_share for row in seeds),
        )
        for seeds in by_name.values()
    )
