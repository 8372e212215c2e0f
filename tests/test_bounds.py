"""Numbers that mean nothing are refused as a configuration is made, in Python as on the command line."""

from __future__ import annotations

import dataclasses
import inspect
import math
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import pytest

import nogs
import nogs.config.groups
import nogs.config.stages
from nogs.config.bounds import Bound, Bounded, Count, Natural, Rate, Share
from nogs.errors import UserError

OF_THE_GRID = {"image_size", "glimpse_size", "stride", "glimpses"}
"""These depend on the images: the grid and the data refuse them, with words of their own."""
ANY_WILL_DO = {"threshold"}


@dataclasses.dataclass(frozen=True)
class Soup(Bounded):
    """A configuration in miniature."""

    spoons: Count = 1
    chairs: Natural = 0
    salt: Share = 0.5
    heat_rate: Rate = 1.0
    guests: Annotated[tuple[int, ...], Bound(lambda n: n >= 0, "must be at least 0")] = ()
    bowls: Count | None = None
    name: str = ""


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"spoons": 0}, "spoons=0: must be at least 1"),
        ({"chairs": -1}, "chairs=-1: must be at least 0"),
        ({"salt": 1.1}, "salt=1.1: must be between 0 and 1"),
        ({"salt": math.nan}, "salt=nan: must be between 0 and 1"),
        ({"heat_rate": 0.0}, "heat_rate=0.0: must be greater than 0"),
        ({"heat_rate": math.inf}, "heat_rate=inf: must be greater than 0"),
        ({"heat_rate": math.nan}, "heat_rate=nan: must be greater than 0"),
        ({"guests": (3, -2, 1)}, "guests=-2: must be at least 0"),
        ({"bowls": 0}, "bowls=0: must be at least 1"),
    ],
    ids=str,
)
def test_a_number_out_of_its_bounds_is_refused_with_its_flag(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        Soup(**wrong)
    assert str(caught.value) == says
    with pytest.raises(UserError):
        dataclasses.replace(Soup(), **wrong)


def test_the_bounds_themselves_are_within_them() -> None:
    Soup(spoons=1, chairs=0, salt=0.0, heat_rate=1e-12, guests=(0,), bowls=1)
    Soup(salt=1.0, bowls=None)


def test_every_number_of_every_configuration_has_a_bound() -> None:
    """So that none is forgotten: an annotation alone is not enough, the class must be Bounded too."""
    kinds = [
        kind
        for module in (nogs.config.stages, nogs.config.groups)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__
    ]
    assert {nogs.Search, nogs.Optimisation} <= set(kinds)
    loose = []
    for kind in kinds:
        for name, hint in get_type_hints(kind, include_extras=True).items():
            metadata = [m for part in (hint, *get_args(hint)) for m in getattr(part, "__metadata__", ())]
            bounded = issubclass(kind, Bounded) and any(isinstance(m, Bound) for m in metadata)
            if numeric(hint) and not bounded and name not in OF_THE_GRID | ANY_WILL_DO:
                loose.append(f"{kind.__name__}.{name}")
    assert not loose


def numeric(hint: Any) -> bool:
    return hint in (int, float) or any(map(numeric, get_args(hint)))


def test_the_stages_configurations_refuse_from_python() -> None:
    machine = nogs.Machine(Path("out"))
    with pytest.raises(UserError, match=r"^iterations=0: must be at least 1$"):
        nogs.Optimisation(iterations=0)
    with pytest.raises(UserError, match=r"^seeds=-1: must be at least 0$"):
        nogs.Run(machine, seeds=(0, -1))
    with pytest.raises(UserError, match=r"^focus=2.0: must be between 0 and 1$"):
        nogs.FitPosterior(machine, focus=2.0)
