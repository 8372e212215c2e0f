"""Seconds from nothing to the target loss, everything counted: what a training stands on, then the training.

A total is a sum of wall time over stages, as if one followed the other on this machine: the posterior with its
validations and focus maps, the bank, the search (or the teacher's whole training and its recording), and one
training up to the end of the validation that reached the target. What serves every seed is counted in full for
one. Reading the data, which all methods do alike, is not counted, nor is time between a kill and a resumption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import chain
from statistics import mean
from typing import Any

from nogs.evaluation.scores import Row, first_at_or_under


def end_to_end(
    logs: Mapping[str, Sequence[Sequence[Row]]],
    before: Mapping[str, Sequence[Mapping[str, float] | None]],
    target_nll_nats: float | None,
) -> dict[str, dict[str, Any]]:
    """The seconds of each method, from every seed's validations and the parts that came before its training.

    A method is left out where what came before is not known (None), and all are where there is no target.
    """
    if target_nll_nats is None:
        return {}
    found = {}
    for name, seeds in before.items():
        known = [parts for parts in seeds if parts is not None]
        if len(known) == len(seeds):
            found[name] = _of_method(logs[name], known, target_nll_nats)
    return found


def _of_method(
    logs: Sequence[Sequence[Row]], before: Sequence[Mapping[str, float]], target_nll_nats: float
) -> dict[str, Any]:
    """Means over seeds. One that never reached the target counts with all the time that it ran, and the figures are
    then lower bounds: they are under ``_at_least`` alone, and ``training`` and ``total`` are null.
    """
    hits = [first_at_or_under(rows, target_nll_nats) for rows in logs]
    parts = {part: mean(of.get(part, 0.0) for of in before) for part in dict.fromkeys(chain(*before))}
    training = mean((hit or rows[-1])["wall_seconds"] for hit, rows in zip(hits, logs, strict=True))
    total, arrived = sum(parts.values()) + training, None not in hits
    return {
        **parts,
        "training": training if arrived else None,
        "total": total if arrived else None,
        "training_at_least": training,
        "total_at_least": total,
        "reached": [hit is not None for hit in hits],
    }


def wall_seconds(rows: Sequence[Row], provenance: Mapping[str, Any]) -> float:
    """What a finished run took: as its log counts it, and without a log from its last start to its end.

    A training logs wall_seconds so far, a search the seconds of each of its chunks.
    """
    last = rows[-1] if rows else {}
    if "wall_seconds" in last:
        return last["wall_seconds"]
    if "seconds" in last:
        return sum(row["seconds"] for row in rows)
    started = [provenance["started"], *provenance.get("resumed", [])][-1]
    return (datetime.fromisoformat(provenance["finished"]) - datetime.fromisoformat(started)).total_seconds()
