"""Dataclasses to JSON and back, and what is refused, in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import pytest

from nogs.evaluation.typed_json import MismatchError, from_json, to_json


class Point(NamedTuple):
    x: float
    y: int


@dataclass(frozen=True)
class Inner:
    kind: Literal["a", "b"]
    flag: bool = False


@dataclass(frozen=True)
class Outer:
    name: str
    task: str | None
    points: tuple[Point, ...]
    inner: Mapping[str, Inner]
    missing: tuple[float | None, ...] = ()
    extra: Inner | None = None
    more: Mapping[str, float] = field(default_factory=dict)


WHOLE = Outer("n", None, (Point(0.5, 1), Point(1, 2)), {"k": Inner("a")}, (None, 1.5))
WRITTEN = {
    "name": "n",
    "task": None,
    "points": [[0.5, 1], [1, 2]],
    "inner": {"k": {"kind": "a", "flag": False}},
    "missing": [None, 1.5],
}


def test_what_is_written_is_read_back() -> None:
    assert json.loads(json.dumps(to_json(WHOLE))) == WRITTEN
    assert from_json(Outer, WRITTEN) == WHOLE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 1}, "name is '1', not a string"),
        ({"name": None}, "name is 'None', not a string"),
        ({"points": [[0.5, 1, 2]]}, "points[0] has 3 items, not 2: x, y"),
        ({"points": [[0.5, 1.5]]}, "points[0][1] is '1.5', not a whole number"),
        ({"points": [[True, 1]]}, "points[0][0] is 'True', not a finite number"),
        ({"points": [[float("nan"), 1]]}, "points[0][0] is 'nan', not a finite number"),
        ({"points": {}}, "points is '{}', not a list"),
        ({"inner": {"k": {"kind": "c"}}}, "inner.k.kind is 'c', not one of 'a', 'b'"),
        ({"inner": {"k": {"kind": "a", "flag": 1}}}, "inner.k.flag is '1', not true or false"),
        ({"inner": {"k": {}}}, "inner.k.kind is missing"),
        ({"inner": []}, "inner is '[]', not an object"),
        ({"unknown": 1}, "unknown is not a known key"),
        ({"missing": [None, "x"]}, "missing[1] is 'x', not a finite number"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(MismatchError) as caught:
        from_json(Outer, {**WRITTEN, **change})  # type: ignore[dict-item]
    assert str(caught.value) == message


def test_a_file_that_is_no_object_is_named() -> None:
    with pytest.raises(MismatchError, match="the file is '3', not an object"):
        from_json(Outer, 3)
