"""Configurations as JSON and back, and the differences between two of them that a resumption refuses."""

from __future__ import annotations

import dataclasses
import json
import os
from contextlib import suppress
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from nogs.errors import UserError

Kind = TypeVar("Kind")

MAY_CHANGE = ("machine", "jobs", "engine")
"""Fields of a config for where a run is computed. They do not change its results and may differ at --resume."""

SHOWN = 60
"""Characters of a value in an error text."""


def as_json(config: Any) -> dict[str, Any]:
    """Return a config dataclass as JSON values. Paths, that in a --data SPEC included, become absolute strings."""
    plain = json.loads(json.dumps(dataclasses.asdict(config), default=os.path.abspath))
    for part in (plain, *(value for value in plain.values() if isinstance(value, dict))):
        kind, _, place = str(part.get("data", "")).partition(":")
        if place and not place.startswith("~"):
            part["data"] = f"{kind}:{os.path.normpath(Path(place).absolute())}"
    return plain


def from_json(kind: type[Kind], content: Any) -> Kind:
    """Return the dataclass ``kind`` from JSON values: the inverse of ``as_json``.

    Raises UserError for missing and unknown fields, for values of another type, and for what ``kind`` itself refuses.
    """
    if not isinstance(content, dict):
        raise UserError(f"{kind.__name__} is {shown(content)}, not an object")
    hints = get_type_hints(kind, include_extras=True)
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type] # not known to be a dataclass
    if odd := sorted(set(names) ^ content.keys()):
        problem = "is missing" if odd[0] in names else "is unknown"
        raise UserError(f"`{odd[0]}` {problem} in {kind.__name__}")
    return kind(**{name: _typed(name, hints[name], content[name]) for name in names})


def _typed(name: str, hint: Any, value: Any) -> Any:
    """Return a JSON value as the type ``hint`` of a field: lists become tuples, texts paths where they should."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _typed(name, arguments[0], value)
    if origin in (Union, UnionType):
        if value is None and NoneType in arguments:
            return None
        return _typed(name, next(part for part in arguments if part is not NoneType), value)
    if origin is Literal and isinstance(value, str) and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        each = [arguments[0]] * len(value) if arguments[-1] is ... else list(arguments)
        if len(each) == len(value):
            return tuple(_typed(name, part, item) for part, item in zip(each, value, strict=True))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_json(hint, value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and type(value) in (int, float):
        with suppress(OverflowError):  # whole numbers beyond the range of floats
            return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise UserError(f"{name}={shown(value)}: expected {getattr(hint, '__name__', hint)}")


def shown(value: Any) -> str:
    """Return a value for an error text, cut to one short line."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def first_difference(had: dict[str, Any], wanted: dict[str, Any]) -> str | None:
    """Return the first argument in which two configurations differ, with both values.

    None if they differ in nothing, or only in the fields of MAY_CHANGE.
    """
    for key in [*wanted, *(k for k in had if k not in wanted)]:
        if key in MAY_CHANGE or had.get(key) == wanted.get(key):
            continue
        if isinstance(had.get(key), dict) and isinstance(wanted.get(key), dict):
            if nested := first_difference(had[key], wanted[key]):
                return nested
            continue
        return f"`{key}` (had {had.get(key)}, now {wanted.get(key)})"
    return None
