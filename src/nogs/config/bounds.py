"""Checks of a configuration as it is made: numbers within their bounds, names and paths that can be written.

A number's bound is part of its type: ``iterations: Count``. Python and the command line refuse the same values with
the same words. What depends on the images, as the number of glimpses does, is checked by the grid (`nogs.glimpses`).
Imports no torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

from nogs.config.documented import with_fields
from nogs.errors import UserError

MOST_PIXELS = 2**14
"""Side length of the largest images: one of three channels takes 0.8 GB."""


class Bound(NamedTuple):
    """The numbers from ``low`` to ``high``, ``low`` itself excluded if ``above``; nan is in no bound."""

    low: int | float
    high: int | float
    above: bool = False

    def fault(self, number: int | float) -> str | None:
        """What is wrong with a number; None if it is within the bound."""
        if math.isnan(number):
            return "must be a number"
        if number < self.low or (self.above and number == self.low):
            return f"must be {'greater than' if self.above else 'at least'} {self.low}"
        return f"must be at most {self.high}" if number > self.high else None


COUNT, NATURAL = Bound(1, 10**9), Bound(0, 10**9)
SEED = Bound(0, 2**63 - 1)
"""What torch takes as a seed, without the negative numbers."""
PIXELS = Bound(1, MOST_PIXELS)
RATE, WIDTH = Bound(0, 10**6, above=True), Bound(0, 16, above=True)
Count = Annotated[int, COUNT]
Natural = Annotated[int, NATURAL]
Seed = Annotated[int, SEED]
Pixels = Annotated[int, PIXELS]
Scales = Annotated[int, Bound(1, 16)]
Shift = Annotated[int, Bound(0, 64)]
Batch = Annotated[int, Bound(1, 2**20)]
Units = Annotated[int, Bound(1, 2**14)]
"""Hidden units: a recurrent layer of the most takes 4 GB."""
Processes = Annotated[int, Bound(0, 1024)]
Share = Annotated[float, Bound(0, 1)]
Rate = Annotated[float, RATE]
Weight = Annotated[float, Bound(0, 10**6)]
Width = Annotated[float, WIDTH]
VALUE = Bound(-(10.0**38), 10.0**38)
"""What a pixel of 32 bits may hold."""
Nats = Annotated[float, Bound(-(10**6), 10**6)]


class Checked:
    """A dataclass that checks its numbers, names and paths as it is made, and expands ``~`` in its paths."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.__doc__ = with_fields(cls)

    def __post_init__(self) -> None:
        """Raise UserError, naming the argument, for a number out of bounds or a text that cannot be a name or path."""
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


def _each(value: Any) -> Iterator[Any]:
    """The items of a tuple, or the value itself unless it is None."""
    yield from value if isinstance(value, tuple) else () if value is None else (value,)


@cache
def _bounded(kind: type) -> tuple[tuple[str, type, Bound], ...]:
    """(name, int or float, bound) of the bounded fields of a dataclass, those that may be None among them."""
    hints: dict[str, Any] = get_type_hints(kind, include_extras=True)
    return tuple(
        (name, int if int in _types(part) else float, bound)
        for name, hint in hints.items()
        for part in (hint, *get_args(hint))
        for bound in getattr(part, "__metadata__", ())
        if isinstance(bound, Bound)
    )


def _types(hint: Any) -> set[Any]:
    """All types that a hint is made of."""
    return {hint}.union(*(_types(part) for part in get_args(hint)))


def _expanded(name: str, path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise UserError(f"{name}={path}: unknown user {path.parts[0]}; give an absolute path") from None


def _check_text(name: str, text: str) -> None:
    """Raise UserError for a text that is not UTF-8, for it cannot be written to JSON or safetensors."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{name}={text!r}: is not UTF-8; rename it") from None
    if "\0" in text:
        raise UserError(f"{name}={text!r}: holds a null character; leave it out")
