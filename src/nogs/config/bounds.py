"""Checks of a configuration when it is created: bounds of numbers, and names and paths that can be written to files.

A number's bound is part of its type: ``iterations: Count``. Python and the command line refuse the same values with the
same text. Numbers whose bounds depend on the images, such as the number of glimpses, are checked by the grid
(`nogs.glimpses`). Imports no torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from nogs.config.documented import with_fields
from nogs.errors import UserError

MAX_PX = 2**17
"""Largest side of an image in pixels. Larger images than fit into memory are read from tiles."""


class Bound(NamedTuple):
    """The numbers from ``low`` to ``high``, without ``low`` if ``above`` is true, and without nan."""

    low: int | float
    high: int | float
    above: bool = False

    def fault(self, number: int | float) -> str | None:
        """Return why a number is out of bounds, as in "must be at least 1"; None if it is within."""
        if number != number:  # nan; `math.isnan` fails for whole numbers beyond the range of floats
            return "must be a number"
        if number < self.low or (self.above and number == self.low):
            return f"must be {'greater than' if self.above else 'at least'} {self.low}"
        return f"must be at most {self.high}" if number > self.high else None


COUNT, NATURAL = Bound(1, 10**9), Bound(0, 10**9)
SEED = Bound(0, 2**63 - 1)
"""The seeds of torch, without negative ones."""
PIXELS = Bound(1, MAX_PX)
RATE, WIDTH = Bound(0, 10**6, above=True), Bound(0, 16, above=True)
Count = Annotated[int, COUNT]
Natural = Annotated[int, NATURAL]
Seed = Annotated[int, SEED]
Pixels = Annotated[int, PIXELS]
Scales = Annotated[int, Bound(1, 16)]
Shift = Annotated[int, Bound(0, 64)]
Batch = Annotated[int, Bound(1, 2**20)]
Units = Annotated[int, Bound(1, 2**14)]
"""Hidden units of a recurrent layer, which takes 4 GB at the upper bound."""
Processes = Annotated[int, Bound(0, 1024)]
Share = Annotated[float, Bound(0, 1)]
Decay = Annotated[float, Bound(0, 0.99999)]
"""Decay of a moving average, in each iteration."""
Rate = Annotated[float, RATE]
Weight = Annotated[float, Bound(0, 10**6)]
Width = Annotated[float, WIDTH]
VALUE = Bound(-(10.0**38), 10.0**38)
"""Values of pixels, in the range of 32-bit floats."""
Nats = Annotated[float, Bound(-(10**6), 10**6)]


class Checked:
    """A dataclass that checks its numbers, names and paths when it is created, and expands ``~`` in its paths.

    A text is accepted for a path, and a list for a tuple.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.__doc__ = with_fields(cls)

    def __post_init__(self) -> None:
        """Raise UserError, naming the argument, for a number out of bounds or a text that cannot be a name or path."""
        for name, hint in _hints(type(self)).items():  # type: ignore[arg-type] # mypy takes no class for Hashable
            given = getattr(self, name)
            if (converted := _converted(hint, given)) is not given:
                object.__setattr__(self, name, converted)
        for name, kind, bound in _bounded(type(self)):  # type: ignore[arg-type] # mypy takes no class for Hashable
            for value in _each(getattr(self, name)):
                if not isinstance(value, (int, float) if kind is float else int) or isinstance(value, bool):
                    raise UserError(f"{name}={value!r}: must be a {'' if kind is float else 'whole '}number")
                if fault := bound.fault(value):
                    raise UserError(f"{name}={value}: {fault}")
        assert dataclasses.is_dataclass(self)
        for field in dataclasses.fields(self):
            given = getattr(self, field.name)
            for value in _each(given):
                if isinstance(value, str | Path):
                    _check_text(field.name, str(value))
            if isinstance(given, Path):
                object.__setattr__(self, field.name, _expanded(field.name, given))
            elif isinstance(given, tuple) and any(isinstance(value, Path) for value in given):
                object.__setattr__(self, field.name, tuple(_expanded(field.name, path) for path in given))


def check_distinct(config: Checked, *names: str) -> None:
    """Raise UserError if one of the tuples ``names`` of ``config`` is empty or holds a value twice."""
    for name in names:
        values = getattr(config, name)
        if not values or len(set(values)) < len(values):
            raise UserError(f"{name}={','.join(map(str, values)) or '(none)'}: give one or more, each once")


@cache
def _hints(kind: type) -> dict[str, Any]:
    """Return the type of each field of a dataclass."""
    return get_type_hints(kind)


def _converted(hint: Any, value: Any) -> Any:
    """Return a text as a path and a list as a tuple, where ``hint`` allows the one and not the other."""
    allowed = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if isinstance(value, str) and Path in allowed and str not in allowed:
        return Path(value)
    of = next((part for part in allowed if get_origin(part) is tuple), None)
    if of is None or not isinstance(value, list | tuple):
        return value
    items = tuple(_converted(get_args(of)[0], item) for item in value)
    return value if items == value and isinstance(value, tuple) else items


def _each(value: Any) -> Iterator[Any]:
    """Yield the items of a tuple, or the value itself unless it is None."""
    yield from value if isinstance(value, tuple) else () if value is None else (value,)


@cache
def _bounded(kind: type) -> tuple[tuple[str, type, Bound], ...]:
    """Return (name, int or float, bound) of the bounded fields of a dataclass, including those that may be None."""
    hints: dict[str, Any] = get_type_hints(kind, include_extras=True)
    return tuple(
        (name, int if int in _types(part) else float, bound)
        for name, hint in hints.items()
        for part in (hint, *get_args(hint))
        for bound in getattr(part, "__metadata__", ())
        if isinstance(bound, Bound)
    )


def _types(hint: Any) -> set[Any]:
    """Return a type hint and all its arguments, recursively."""
    return {hint}.union(*(_types(part) for part in get_args(hint)))


def _expanded(name: str, path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise UserError(f"{name}={path}: unknown user {path.parts[0]}; give an absolute path") from None


def _check_text(name: str, text: str) -> None:
    """Raise UserError for a text that cannot be written to JSON or safetensors."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{name}={text!r}: is not UTF-8; rename it") from None
    if "\0" in text:
        raise UserError(f"{name}={text!r}: holds a null character; leave it out")
