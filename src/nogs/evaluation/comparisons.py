"""Every method beside a reference: ratios of times to the target, differences of accuracy, and their exact tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import NamedTuple

from jaxtyping import Bool
from torch import Tensor

from nogs.evaluation.schema import Comparison, MethodScores
from nogs.evaluation.seconds import Seconds
from nogs.evaluation.typed_json import Number
from nogs.evaluation.uncertainty import Bounded, geometric_mean, mcnemar, ratio, sign_flip_p_value

Right = Mapping[tuple[str, int], Bool[Tensor, " n"]]
"""(method, seed) → whether each test image is classified correctly"""


def compare_with(
    reference: str, methods: Mapping[str, MethodScores], right: Right, seconds: Mapping[str, Seconds]
) -> dict[str, Comparison]:
    """Return the comparison of each other method that shares a seed with ``reference``; none if it is no method."""
    if reference not in methods:
        return {}
    compared = {}
    for name, scores in methods.items():
        seeds = [seed for seed in scores.seeds if seed in methods[reference].seeds]
        if name != reference and seeds:
            compared[name] = _compare(name, reference, seeds, methods, right, seconds)
    return compared


class Outcomes(NamedTuple):
    """Numbers of tasks on which a method is ahead of its reference, behind it, and neither."""

    ahead: int
    behind: int
    neither: int


class AcrossTasks(NamedTuple):
    """A method beside a reference on several tasks.

    ``iterations``, ``seconds``: None if no task has a target. A bound of a ratio that includes 1 is neither.
    ``iterations_ratio``: geometric mean of the tasks' ratios, None if their bounds do not allow one.
    """

    tasks: int
    accuracy: Outcomes
    mean_test_accuracy_difference: float
    iterations: Outcomes | None
    iterations_ratio: Bounded | None
    seconds: Outcomes | None


def across_tasks(compared: Sequence[Comparison]) -> AcrossTasks:
    """Return the outcomes of one method's comparisons with one reference, a task each."""
    differences = [of.mean_test_accuracy_difference for of in compared]
    iterations = [of.iterations_ratio for of in compared if of.iterations_ratio is not None]
    seconds = [of.seconds_ratio for of in compared if of.seconds_ratio is not None]
    return AcrossTasks(
        tasks=len(compared),
        accuracy=_outcomes([(difference > 0, difference < 0) for difference in differences]),
        mean_test_accuracy_difference=mean(differences),
        iterations=_outcomes(map(_decided, iterations)) if iterations else None,
        iterations_ratio=geometric_mean(iterations) if iterations else None,
        seconds=_outcomes(map(_decided, seconds)) if seconds else None,
    )


def _decided(of: Bounded) -> tuple[bool, bool]:
    """Return whether a ratio of times is certainly above 1, and whether it is certainly below."""
    return of.value > 1 and of.bound in ("exact", "at least"), of.value < 1 and of.bound in ("exact", "at most")


def _outcomes(decided: Iterable[tuple[bool, bool]]) -> Outcomes:
    pairs = list(decided)
    ahead, behind = sum(above for above, _ in pairs), sum(below for _, below in pairs)
    return Outcomes(ahead, behind, len(pairs) - ahead - behind)


def _compare(
    name: str,
    reference: str,
    seeds: Sequence[int],
    methods: Mapping[str, MethodScores],
    right: Right,
    seconds: Mapping[str, Seconds],
) -> Comparison:
    scores, other = methods[name], methods[reference]
    differences = _differences(scores, other, "test_accuracy", seeds)
    has_target = "iterations_to_target" in scores.means
    needed = [_iterations_needed(of) for of in (scores, other)] if has_target else []
    several = len(seeds) > 1
    return Comparison(
        seeds=tuple(seeds),
        test_accuracy_difference=differences,
        mean_test_accuracy_difference=mean(differences),
        test_accuracy_p_value=sign_flip_p_value(differences) if several else None,
        mean_sampled_test_accuracy_difference=(
            mean(_differences(scores, other, "sampled_test_accuracy", seeds))
            if scores.sampled_test_accuracy and other.sampled_test_accuracy
            else None
        ),
        images=tuple(mcnemar(right[name, seed], right[reference, seed]) for seed in seeds),
        iterations_ratio=(
            ratio(other.means["iterations_to_target"], scores.means["iterations_to_target"]) if has_target else None
        ),
        iterations_p_value=(
            sign_flip_p_value([needed[0][seed] - needed[1][seed] for seed in seeds]) if needed and several else None
        ),
        seconds_ratio=(
            ratio(seconds[reference].needed, seconds[name].needed) if name in seconds and reference in seconds else None
        ),
    )


def _differences(scores: MethodScores, other: MethodScores, key: str, seeds: Sequence[int]) -> tuple[Number, ...]:
    values = [dict(zip(of.seeds, getattr(of, key), strict=True)) for of in (scores, other)]
    return tuple(values[0][seed] - values[1][seed] for seed in seeds)


def _iterations_needed(scores: MethodScores) -> dict[int, Number]:
    """Return the iterations of each seed to the target, or all that it was trained if it never reached the target."""
    columns = zip(scores.seeds, scores.iterations_to_target, scores.iterations_trained, strict=True)
    return {seed: trained if reached is None else reached for seed, reached, trained in columns}
