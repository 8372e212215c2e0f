"""Frozen dataclasses to JSON values and back, checked against their type hints.

A field whose default is None or empty is written only if it has another value, so a key is there only if its figure was
computed. All other fields are always written. A NamedTuple is a list of its fields.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Number = int | float
"""A number in JSON, where whole ones may come back as int."""
T = TypeVar("T")


class MismatchError(ValueError):
    """A JSON value that does not have the expected type; the message names its place."""


def to_json(value: object) -> Any:
    """Return a dataclass, or a mapping, sequence or scalar within one, as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = {field: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {field.name: to_json(item) for field, item in items.items() if not _is_absent(field, item)}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[T], value: object, *, where: str = "") -> T:
    """Return ``value`` as a ``kind``. Raises MismatchError if a key is missing or unknown, or a value has another type.

    ``where``: the place of the value, for the message: keys and indices from the outermost value.
    """
    return _parse(kind, value, where)


def _is_absent(field: dataclasses.Field[Any], item: object) -> bool:
    """Return whether a field has its default, and that is None or empty."""
    return item == (default := _default(field)) and default in (None, (), {})


def _default(field: dataclasses.Field[Any]) -> object:
    """Return the default of a field, MISSING if it has none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _parse(kind: Any, value: object, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _parse_union(arguments, value, where)
    if origin is Literal:
        if value not in arguments:
            raise MismatchError(f"{where} is {value!r}, not one of {', '.join(map(repr, arguments))}")
        return value
    if origin in (dict, Mapping):
        items = _expect(dict, value, where, "an object")
        return {key: _parse(arguments[1], item, f"{where}.{key}") for key, item in items.items()}
    if origin is tuple:
        items = _expect(list, value, where, "a list")
        return tuple(_parse(arguments[0], item, f"{where}[{place}]") for place, item in enumerate(items))
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(kind, value, where)
    if issubclass(kind, tuple):
        return _parse_named_tuple(kind, value, where)
    return _parse_scalar(kind, value, where)


def _parse_union(kinds: tuple[Any, ...], value: object, where: str) -> Any:
    if value is None and NoneType in kinds:
        return None
    rest = [kind for kind in kinds if kind is not NoneType]
    return _parse(float if set(rest) == {int, float} else rest[0], value, where)


def _parse_dataclass(kind: Any, value: object, where: str) -> Any:
    items, hints = _expect(dict, value, where, "an object"), get_type_hints(kind)
    inside = f"{where}." if where else ""
    if unknown := next((key for key in items if key not in hints), None):
        raise MismatchError(f"{inside}{unknown} is not a known key")
    for field in dataclasses.fields(kind):
        if field.name not in items and _default(field) is dataclasses.MISSING:
            raise MismatchError(f"{inside}{field.name} is missing")
    return kind(**{key: _parse(hints[key], item, inside + key) for key, item in items.items()})


def _parse_named_tuple(kind: Any, value: object, where: str) -> Any:
    items, hints = _expect(list, value, where, "a list"), get_type_hints(kind)
    if len(items) != len(hints):
        raise MismatchError(f"{where} has {len(items)} items, not {len(hints)}: {', '.join(hints)}")
    return kind(
        *(_parse(hint, item, f"{where}[{n}]") for n, (hint, item) in enumerate(zip(hints.values(), items, strict=True)))
    )


def _parse_scalar(kind: type, value: object, where: str) -> Any:
    accepted = (int, float) if kind is float else (kind,)
    if type(value) not in accepted or (isinstance(value, float) and not math.isfinite(value)):
        name = {float: "a finite number", int: "a whole number", str: "a string", bool: "true or false"}[kind]
        raise MismatchError(f"{where} is {str(value)[:40]!r}, not {name}")
    return value


def _expect(kind: type, value: object, where: str, name: str) -> Any:
    if not isinstance(value, kind):
        raise MismatchError(f"{where or 'the file'} is {str(value)[:40]!r}, not {name}")
    return value
