"""Seconds from nothing to the target loss: all that a training needs before it, then the training.

A total is a sum of wall time over stages, as if they ran one after the other on this machine: the posterior with its
validations and focus maps, the bank, the search (or the teacher's whole training and its recording), and one training
up to the end of the validation that reached the target. The work that all seeds share
(posterior, bank and search) is counted in full for each of them. Not counted: reading the data, which all methods do
alike, and the time between a kill and a resumption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from statistics import mean
from typing import Any

from nogs.evaluation.convergence import Row, first_at_or_under
from nogs.evaluation.typed_json import Number
from nogs.evaluation.uncertainty import Bounded

Before = Mapping[str, Number]
"""Part that a training needs before it (a field of `Seconds`) → its seconds."""


@dataclass(frozen=True)
class Seconds:
    """Means over seeds, in seconds.

    A seed that never reached the target counts with all the time that it was trained. The figures are then lower
    bounds: ``training`` and ``total`` are None, and ``*_at_least`` have them. Parts that a method lacks are None.
    """

    training: Number | None
    total: Number | None
    training_at_least: Number
    total_at_least: Number
    reached: tuple[bool, ...]
    """of each seed"""
    posterior: Number | None = None
    bank: Number | None = None
    search: Number | None = None
    teacher: Number | None = None
    recording: Number | None = None

    @property
    def needed(self) -> Bounded:
        """The total, which is a lower bound if a seed never reached the target."""
        return Bounded(self.total_at_least, "exact" if all(self.reached) else "at least")


def end_to_end(
    logs: Mapping[str, Sequence[Sequence[Row]]],
    before: Mapping[str, Sequence[Before | None]],
    target_nll_nats: Number | None,
) -> dict[str, Seconds]:
    """Return the seconds of each method.

    ``logs``: method → validations of each seed. ``before``: method → parts before the training of each seed, None if
    they are not known; such a method is left out. Without a target, all are.
    """
    if target_nll_nats is None:
        return {}
    counted = {}
    for name, seeds in before.items():
        known = [parts for parts in seeds if parts is not None]
        if len(known) == len(seeds):
            counted[name] = _of_method(logs[name], known, target_nll_nats)
    return counted


def _of_method(logs: Sequence[Sequence[Row]], before: Sequence[Before], target_nll_nats: float) -> Seconds:
    hits = [first_at_or_under(rows, target_nll_nats) for rows in logs]
    parts = {part: mean(of.get(part, 0.0) for of in before) for part in dict.fromkeys(chain(*before))}
    training = mean((hit or rows[-1])["wall_seconds"] for hit, rows in zip(hits, logs, strict=True))
    total, all_reached = sum(parts.values()) + training, None not in hits
    return Seconds(
        training=training if all_reached else None,
        total=total if all_reached else None,
        training_at_least=training,
        total_at_least=total,
        reached=tuple(hit is not None for hit in hits),
        **parts,
    )


def wall_seconds(rows: Sequence[Row], provenance: Mapping[str, Any]) -> Number:
    """Return the wall time of a finished run, from its log, or without a log from its last start to its end.

    A training logs its wall_seconds so far, a search the seconds of each chunk.
    """
    last = rows[-1] if rows else {}
    if "wall_seconds" in last:
        return last["wall_seconds"]
    if "seconds" in last:
        return sum(row["seconds"] for row in rows)
    started = [provenance["started"], *provenance.get("resumed", [])][-1]
    return (datetime.fromisoformat(provenance["finished"]) - datetime.fromisoformat(started)).total_seconds()
