"""results.json of an evaluation, from records, logs and stopping rules of all networks and the posterior's scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nogs.attention.methods import CONTROL, REFERENCE
from nogs.data import ImageSet
from nogs.evaluation.comparisons import compare_with
from nogs.evaluation.convergence import Row, chance_nll, convergence, targets
from nogs.evaluation.linear import logistic_regression
from nogs.evaluation.records import NetworkRecord, last_right, method_scores
from nogs.evaluation.schema import SCHEMA, PosteriorScores, Results, SequenceScores, TestSet
from nogs.evaluation.scores import class_frequencies, is_uneven
from nogs.evaluation.seconds import Before, end_to_end
from nogs.evaluation.stopping import StoppedNetwork, stopping_scores
from nogs.evaluation.thresholds import Thresholded, mean_curves
from nogs.runs.device import chance


class Evaluated(NamedTuple):
    """One train run: its record, its validations, the seconds before it, and its stopping rules.

    ``thresholded``: by thresholds on what the network computes. ``stopped``: by heads that were fitted to it, if any.
    """

    record: NetworkRecord
    log: Sequence[Row]
    before: Before | None
    thresholded: Thresholded
    stopped: StoppedNetwork | None


def results_of(
    evaluated: Mapping[str, Sequence[Evaluated]],
    data: ImageSet,
    *,
    source: str,
    posterior: PosteriorScores | None,
    sequences: SequenceScores | None,
) -> Results:
    """Return all figures of an evaluation. ``evaluated``: method → its seeds. ``source``: the user's data SPEC."""
    labels = data.labels[data.members("test")]
    logs = {name: [one.log for one in seeds] for name, seeds in evaluated.items()}
    to = targets(logs[REFERENCE]) if REFERENCE in logs else None
    frequencies = class_frequencies(data.labels[data.members("train")], len(data.classes))
    methods = {
        name: method_scores(
            [one.record for one in seeds],
            labels,
            convergence(logs[name], to),
            frequencies=frequencies,
            has_target=bool(to),
        )
        for name, seeds in evaluated.items()
    }
    right = {
        (name, one.record.seed): last_right(one.record, labels) for name, seeds in evaluated.items() for one in seeds
    }
    before = {name: [one.before for one in seeds] for name, seeds in evaluated.items()}
    seconds = end_to_end(logs, before, to.mean_nll_nats if to else None)
    stopped = [(name, one.stopped) for name, seeds in evaluated.items() for one in seeds if one.stopped]
    return Results(
        schema=SCHEMA,
        data=source,
        task=data.task,
        classes=data.classes,
        target_nll_nats=to.mean_nll_nats if to else None,
        best_seed_nll_nats=to.best_seed_nll_nats if to else None,
        target_is_chance=to is not None and to.mean_nll_nats >= chance_nll(data.labels[data.members("val")]),
        test=TestSet(
            len(labels), tuple(labels.bincount(minlength=len(data.classes)).tolist()), is_uneven(labels), data.skipped
        ),
        posterior=posterior,
        sequences=sequences,
        methods=methods,
        comparisons={
            reference: compared
            for reference in (REFERENCE, CONTROL)
            if (compared := compare_with(reference, methods, right, seconds))
        },
        end_to_end=seconds,
        linear=logistic_regression(data),
        stopping_by_threshold={
            name: mean_curves([one.thresholded for one in seeds]) for name, seeds in evaluated.items()
        },
        stopping_method=stopped[0][0] if stopped else None,
        **stopping_scores([one for _, one in stopped], labels, chance(16))._asdict(),
    )
