"""Numbers are bounded by their types, and refused where they are declared: as a configuration is made.

A field of a `Bounded` dataclass that is annotated ``Count`` or ``Share`` takes such numbers only: from Python
as from the command line, and with the same words.
What depends on the images, as the size of a glimpse does, is for the grid to refuse (`nogs.glimpses`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

from nogs.errors import UserError


class Bound(NamedTuple):
    """Which numbers a field takes, and what is said of others."""

    holds: Callable[[float], bool]
    says: str


NATURAL = Bound(lambda n: n >= 0, "must be at least 0")
COUNT = Bound(lambda n: n >= 1, "must be at least 1")
RATE = Bound(lambda x: 0 < x < math.inf, "must be greater than 0")
Natural = Annotated[int, NATURAL]
Count = Annotated[int, COUNT]
Share = Annotated[float, Bound(lambda x: 0 <= x <= 1, "must be between 0 and 1")]
Rate = Annotated[float, RATE]


class Bounded:
    """A dataclass whose numbers are checked as it is made."""

    def __post_init__(self) -> None:
        """Raise UserError, naming the argument, for a number that its field's type does not take."""
        for name, bound in _bounded(type(self)):
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                if number is not None and not bound.holds(number):
                    raise UserError(f"{name}={number}: {bound.says}")


def _bounded(kind: type) -> tuple[tuple[str, Bound], ...]:
    """The bounded fields of a dataclass, those that may be None among them: ``Count | None``."""
    hints: dict[str, Any] = get_type_hints(kind, include_extras=True)
    return tuple(
        (name, bound)
        for name, hint in hints.items()
        for part in (hint, *get_args(hint))
        for bound in getattr(part, "__metadata__", ())
        if isinstance(bound, Bound)
    )
