"""results.json as types: every figure that an evaluation computes and a report shows.

Lists over seeds are in the order of ``seeds``; lists by glimpse are for t = 1..T. Accuracies are shares in [0, 1] of
test images, with the greedy policy; those of sampled policies are called ``sampled_*``. Losses are in nats, costs in
multiply-adds of one image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from nogs.evaluation.seconds import Seconds
from nogs.evaluation.stopping import Advantage
from nogs.evaluation.thresholds import ThresholdCurve
from nogs.evaluation.typed_json import MismatchError, Number, from_json
from nogs.evaluation.uncertainty import Bounded, McNemar
from nogs.evaluation.usefulness import Worth
from nogs.runs.directory import RunDirectory
from nogs.runs.files import damaged
from nogs.stopping.curves import Curve

SCHEMA = 1
FILE = "results.json"
ByGlimpse = tuple[Number, ...]
T = TypeVar("T")
BySeed = tuple[Number, ...]


@dataclass(frozen=True)
class TestSet:
    """The images that accuracies are measured on, and the files that ``skip_bad`` left out of all splits.

    ``uneven``: whether the largest class has more than 1.5 times the images of the smallest, so that accuracy alone
    misleads.
    """

    images: int
    images_by_class: tuple[int, ...]
    uneven: bool
    skipped_files: int


@dataclass(frozen=True)
class PosteriorScores:
    """The posterior on test images at random locations."""

    seconds: Number
    nll_nats_by_glimpse: ByGlimpse
    accuracy_by_glimpse: ByGlimpse
    calibration_error_by_glimpse: ByGlimpse


@dataclass(frozen=True)
class SequenceScores:
    """The posterior along designed sequences, on images that it was not fitted to.

    ``count``: of designed sequences. The images are the training images with sequences, or the validation images,
    along sequences of others, if unlabelled images have sequences.

    ``shuffled_*``: along the sequence of another image. ``random_*``: at random locations. ``chance_nll_nats``: of the
    class frequencies of these images. ``worth``: of the posterior along designed
    sequences, as in `nogs.evaluation.usefulness`.
    """

    count: int
    seconds: Number
    posterior_evaluations: int
    nll_nats_by_glimpse: ByGlimpse
    accuracy_by_glimpse: ByGlimpse
    calibration_error_by_glimpse: ByGlimpse
    shuffled_nll_nats_by_glimpse: ByGlimpse
    shuffled_accuracy_by_glimpse: ByGlimpse
    shuffled_calibration_error_by_glimpse: ByGlimpse
    random_nll_nats_by_glimpse: ByGlimpse
    random_accuracy_by_glimpse: ByGlimpse
    random_calibration_error_by_glimpse: ByGlimpse
    effective_sample_size_by_glimpse: ByGlimpse
    chance_nll_nats: float
    worth: Worth


@dataclass(frozen=True)
class MethodScores:
    """The scores of one method. ``means*`` has the mean over seeds of every list, by the list's name.

    ``*_to_converge``: first validation within 0.01 nats of the best of the same run. ``*_to_target``: first at or
    under the reference's mean best loss + 0.01; ``*_to_best_seed``: at or under its best seed's + 0.01; None where
    never. ``*_trained``: until training ended. ``sampled_*``: empty for a method without a policy.
    ``test_equal_prior_*``: of answers under a prior in which all classes are equally frequent, which suit balanced
    accuracy where a class is rare. ``mean_glimpses``: of a method that is trained to stop. ``test_confusion``: image
    counts [label][answer], all seeds together, for few classes. ``pixels_read_share``: of an image, after all glimpses,
    its overview counted (`nogs.glimpses.fovea`).
    """

    seeds: tuple[int, ...]
    iterations_to_converge: BySeed
    seconds_to_converge: BySeed
    iterations_to_target: tuple[Number | None, ...]
    seconds_to_target: tuple[Number | None, ...]
    iterations_to_best_seed: tuple[Number | None, ...]
    iterations_trained: BySeed
    seconds_trained: BySeed
    wall_seconds_trained: BySeed
    best_validation_nll_nats: BySeed
    test_accuracy: BySeed
    test_balanced_accuracy: BySeed
    test_equal_prior_balanced_accuracy: BySeed
    test_auroc: BySeed
    test_nll_nats: BySeed
    test_accuracy_by_glimpse: tuple[ByGlimpse, ...]
    test_balanced_accuracy_by_glimpse: tuple[ByGlimpse, ...]
    test_equal_prior_balanced_accuracy_by_glimpse: tuple[ByGlimpse, ...]
    test_accuracy_by_class: tuple[tuple[Number | None, ...], ...]
    adaptivity_nats_by_glimpse: tuple[ByGlimpse, ...]
    pixels_read_share: BySeed
    pixels_read_share_by_glimpse: tuple[ByGlimpse, ...]
    macs_by_glimpse: tuple[int, ...]
    macs_by_part: Mapping[str, int]
    sampled_test_accuracy: BySeed = ()
    sampled_test_balanced_accuracy: BySeed = ()
    sampled_test_nll_nats: BySeed = ()
    mean_glimpses: BySeed = ()
    test_confusion: tuple[tuple[int, ...], ...] = ()
    mean_accuracy_by_class: tuple[Number | None, ...] = ()
    means: Mapping[str, Bounded] = field(default_factory=dict)
    means_by_glimpse: Mapping[str, ByGlimpse] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """A method beside a reference, over the seeds that both have.

    Differences of accuracy are method minus reference. ``*_ratio``: the mean of the reference over that of the method,
    of iterations to the target and of seconds from nothing to it; None if there is no target or a time is not known.
    p-values are of exact sign-flip tests, None for fewer than two seeds; ``images`` has McNemar's test of each seed.
    """

    seeds: tuple[int, ...]
    test_accuracy_difference: BySeed
    mean_test_accuracy_difference: float
    images: tuple[McNemar, ...]
    test_accuracy_p_value: Number | None = None
    mean_sampled_test_accuracy_difference: Number | None = None
    iterations_ratio: Bounded | None = None
    iterations_p_value: Number | None = None
    seconds_ratio: Bounded | None = None


@dataclass(frozen=True)
class WholeImage:
    """A network to compare with: a CNN on whole images, a network that reads patches of them, or logistic regression.

    ``resolution_px``: side of the images that it is given. ``pixels_read_share``: share of their pixels that it reads,
    mean over test images, with those of its overview of ``overview_px`` pixels a side. ``on_frontier``: whether no
    other row is as accurate on validation images for no more multiply-adds.
    """

    name: str
    architecture: str
    resolution_px: int
    macs: int
    validation_accuracy: float
    test_accuracy: float
    test_balanced_accuracy: float
    test_equal_prior_balanced_accuracy: float
    test_auroc: float
    width: float = 1.0
    learning_rate: Number | None = None
    seed: int | None = None
    on_frontier: bool = False
    pixels_read_share: Number = 1.0
    overview_px: int = 0


@dataclass(frozen=True)
class CNNScores:
    """results.json of `nogs baselines`: a row for each seed of each CNN, and means over seeds."""

    cnn: tuple[WholeImage, ...]
    cnn_means: tuple[WholeImage, ...]
    upper_bound: WholeImage | None = None


@dataclass(frozen=True)
class Results:
    """results.json. Keys with a default are there as what they hold was evaluated."""

    schema: int
    data: str
    task: str | None
    classes: tuple[str, ...]
    target_nll_nats: Number | None
    test: TestSet
    methods: Mapping[str, MethodScores]
    posterior: PosteriorScores | None = None
    sequences: SequenceScores | None = None
    best_seed_nll_nats: Number | None = None
    target_is_chance: bool = False
    """whether a constant answer, the class frequencies of the validation images, reaches the target too"""
    comparisons: Mapping[str, Mapping[str, Comparison]] = field(default_factory=dict)
    """reference → method → comparison"""
    end_to_end: Mapping[str, Seconds] = field(default_factory=dict)
    linear: WholeImage | None = None
    cnn: tuple[WholeImage, ...] = ()
    cnn_means: tuple[WholeImage, ...] = ()
    upper_bound: WholeImage | None = None
    stopping_by_threshold: Mapping[str, Mapping[str, ThresholdCurve]] = field(default_factory=dict)
    """method → rule → what each of a few fixed thresholds does, mean over seeds (`nogs.evaluation.thresholds`)"""
    stopping_method: str | None = None
    stopping: Mapping[str, Curve] = field(default_factory=dict)
    stopping_by_seed: Mapping[str, tuple[Curve, ...]] = field(default_factory=dict)
    stopping_balanced_by_seed: Mapping[str, tuple[Curve, ...]] = field(default_factory=dict)
    """``stopping_by_seed`` with balanced accuracies, where classes are uneven"""
    stopping_advantage: Mapping[str, Mapping[str, tuple[Advantage, ...]]] = field(default_factory=dict)
    """rule of expected gain → rival → band"""
    held_out_accuracy_by_glimpse: tuple[ByGlimpse, ...] = ()
    """of the validation images that stopping heads were not fitted to"""

    @property
    def has_race(self) -> bool:
        """Whether iterations and seconds to the target mean anything: there is one, and a constant answer misses it."""
        return self.target_nll_nats is not None and not self.target_is_chance

    def with_cnns(self, cnns: CNNScores) -> Results:
        """Return the same results with those of `nogs baselines`."""
        return replace(self, cnn=cnns.cnn, cnn_means=cnns.cnn_means, upper_bound=cnns.upper_bound)


def read_results(run: RunDirectory, kind: type[T], name: str = FILE) -> T:
    """Return results.json of a run as a ``kind``: Results, CNNScores or WholeImage. ``name``: another file of results.

    Raises UserError with the file, the key and the fix if it is damaged or has another schema.
    """
    content = run.load_json(name)
    try:
        return from_json(kind, content)
    except MismatchError as mismatch:
        raise damaged(run.path / name, f"has another schema, {mismatch}") from None
