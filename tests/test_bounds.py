"""Configurations refuse numbers out of bounds and texts that cannot be names, from Python as on the command line."""

from __future__ import annotations

import dataclasses
import inspect
import math
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, get_args, get_type_hints

import pytest
import torch

import nogs
import nogs.cli
import nogs.config.groups
import nogs.config.pipeline
import nogs.config.stages
from nogs.config.bounds import Bound, Checked, Count, Nats, Natural, Pixels, Rate, Seed, Share
from nogs.config.table import STAGES
from nogs.errors import UserError
from nogs.glimpses.grid import Grid
from nogs.runs.device import chance
from tiny import driver
from typed import good, refused


@dataclasses.dataclass(frozen=True)
class Soup(Checked):
    """A configuration in miniature."""

    spoons: Count = 1
    chairs: Natural = 0
    salt: Share = 0.5
    heat_rate: Rate = 1.0
    taste: Nats | None = None
    luck: Seed = 0
    plate: Pixels = 1
    guests: Annotated[tuple[int, ...], Bound(0, 5)] = ()
    bowls: Count | None = None
    name: str = ""
    cook: str | None = None
    kitchen: Path = Path()
    books: tuple[Path, ...] = ()


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"spoons": 0}, "spoons=0: must be at least 1"),
        ({"spoons": 10**9 + 1}, "spoons=1000000001: must be at most 1000000000"),
        ({"chairs": -1}, "chairs=-1: must be at least 0"),
        ({"salt": 1.1}, "salt=1.1: must be at most 1"),
        ({"salt": -0.1}, "salt=-0.1: must be at least 0"),
        ({"salt": math.nan}, "salt=nan: must be a number"),
        ({"heat_rate": 0.0}, "heat_rate=0.0: must be greater than 0"),
        ({"heat_rate": math.inf}, "heat_rate=inf: must be at most 1000000"),
        ({"heat_rate": math.nan}, "heat_rate=nan: must be a number"),
        ({"taste": math.nan}, "taste=nan: must be a number"),
        ({"taste": -math.inf}, "taste=-inf: must be at least -1000000"),
        ({"luck": 2**63}, "luck=9223372036854775808: must be at most 9223372036854775807"),
        ({"luck": -1}, "luck=-1: must be at least 0"),
        ({"plate": 10**22}, f"plate={10**22}: must be at most 131072"),
        ({"guests": (3, -2, 1)}, "guests=-2: must be at least 0"),
        ({"bowls": 0}, "bowls=0: must be at least 1"),
        ({"name": "\udcff"}, r"name='\udcff': is not UTF-8; rename it"),
        ({"cook": "a\0"}, r"cook='a\x00': holds a null character; leave it out"),
        ({"kitchen": Path("\udcff/x")}, r"kitchen='\udcff/x': is not UTF-8; rename it"),
        ({"books": (Path("a"), Path("\udc80"))}, r"books='\udc80': is not UTF-8; rename it"),
    ],
    ids=ascii,
)
def test_a_value_out_of_its_bounds_is_refused_by_its_argument(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError) as caught:
        Soup(**wrong)
    assert str(caught.value) == reason
    with pytest.raises(UserError):
        dataclasses.replace(Soup(), **wrong)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"spoons": "3"}, "spoons='3': must be a whole number"),
        ({"spoons": 3.0}, "spoons=3.0: must be a whole number"),
        ({"spoons": True}, "spoons=True: must be a whole number"),
        ({"salt": "a"}, "salt='a': must be a number"),
        ({"guests": (1, "2")}, "guests='2': must be a whole number"),
    ],
    ids=ascii,
)
def test_a_value_that_is_no_number_is_refused(wrong: dict[str, Any], reason: str) -> None:
    """A file's metadata holds what it likes."""
    soup = Soup()
    for name, value in wrong.items():
        object.__setattr__(soup, name, value)  # past the type checker that tests run under
    with pytest.raises(UserError) as caught:
        soup.__post_init__()
    assert str(caught.value) == reason


def test_the_bounds_themselves_are_within_them() -> None:
    Soup(spoons=1, chairs=0, salt=0.0, heat_rate=1e-12, guests=(0,), bowls=1, luck=0, plate=131072, taste=-1e6)
    Soup(spoons=10**9, salt=1.0, heat_rate=1e6, guests=(5,), bowls=None, luck=2**63 - 1, name="é ☃", taste=None)
    soup = Soup()
    object.__setattr__(soup, "salt", 1)  # past the type checker that tests run under
    soup.__post_init__()


CONFIGURATIONS = (nogs.config.groups, nogs.config.stages, nogs.config.pipeline)


def kinds_of(module: ModuleType) -> list[type]:
    return [kind for _, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == module.__name__]


def test_every_number_and_text_of_every_configuration_is_checked() -> None:
    """An annotation is checked only if its class is `Checked`, so every class must be."""
    kinds = [
        *(kind for module in CONFIGURATIONS for kind in kinds_of(module)),
        Grid,
    ]
    assert {nogs.Search, nogs.Optimisation, nogs.Predict} <= set(kinds)
    loose = []
    for kind in kinds:
        assert issubclass(kind, Checked)
        for name, hint in get_type_hints(kind, include_extras=True).items():
            metadata = [m for part in (hint, *get_args(hint)) for m in getattr(part, "__metadata__", ())]
            if numeric(hint) and not any(isinstance(m, Bound) for m in metadata):
                loose.append(f"{kind.__name__}.{name}")
    assert not loose


def numeric(hint: Any) -> bool:
    return hint in (int, float) or any(map(numeric, get_args(hint)))


NUMBERS = [
    (stage.name, name, flag, next(m for part in (hint, *get_args(hint)) for m in getattr(part, "__metadata__", ())))
    for stage in STAGES
    for group in (stage.config, *filter(dataclasses.is_dataclass, get_type_hints(stage.config).values()))
    for name, hint in get_type_hints(group, include_extras=True).items()
    if numeric(hint) and name != "range"  # a pair: tests/test_data_damage.py
    for flag in [f"--{name.replace('_', '-')}"]
]


@pytest.mark.parametrize("value", ["1" + "0" * 30, "nan"])
@pytest.mark.parametrize(("command", "name", "flag"), sorted({number[:3] for number in NUMBERS}))
def test_no_number_of_any_command_is_taken_without_bounds(
    command: str, name: str, flag: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = {
        "search": ["--posterior", "x", "--bank", "x"],
        "predict": ["x"],
        "export": ["x"],
        "record": ["--model", "x"],
        "fit-stopping": ["--model", "x"],
        "evaluate": ["--models", "x", "--sequences", "x"],
    }
    out = [] if command == "predict" else ["--out", str(tmp_path / "out")]
    assert nogs.cli.main([*command.split(), *needed.get(command, []), *out, flag, value]) == 2
    err = capsys.readouterr().err
    assert err.startswith("nogs: ")
    assert len(err.splitlines()) == 1
    assert flag in err
    assert not (tmp_path / "out").exists()


def test_the_stages_configurations_refuse_from_python() -> None:
    machine = nogs.Machine(Path("out"))
    with pytest.raises(UserError, match=r"^iterations=0: must be at least 1$"):
        nogs.Optimisation(iterations=0)
    with pytest.raises(UserError, match=r"^seeds=-1: must be at least 0$"):
        nogs.Run(machine, seeds=(0, -1))
    with pytest.raises(UserError, match=r"^focus=2.0: must be at most 1$"):
        nogs.FitPosterior(machine, focus=2.0)


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_every_seed_within_the_bounds_is_one_for_torch(seed: int) -> None:
    torch.manual_seed(seed)
    assert torch.rand(1, generator=chance(seed, 1, 2)).isfinite().all()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (
            ("--scales", 5),
            "--scales 5 with --glimpse-size 6 makes squares of 96 px on --image-size 16: choose at most 4",
        ),
        (("--glimpses", 10**9), "--glimpses 1000000000 does not fit a grid of 9 locations: choose 1 to 9"),
        (("--stride", 16384), "does not fit a grid of"),
    ],
    ids=str,
)
def test_a_grid_that_exceeds_memory_is_refused(tmp_path: Path, flags: tuple[object, ...], reason: str) -> None:
    geometry = ("--glimpse-size", 6, "--stride", 5, "--glimpses", 5)
    ended = driver().run("fit-posterior", *good(tmp_path), *geometry, *flags, "--out", tmp_path / "out")
    refused(ended, reason)
    assert not (tmp_path / "out").exists()


TEXTS = """
from pathlib import Path

import nogs

assert nogs.Machine(out="~/x") == nogs.Machine(Path.home() / "x")
given = nogs.Predict("m", ["a.png", Path("b.png")], stopping="s")
assert given == nogs.Predict(Path("m"), (Path("a.png"), Path("b.png")), stopping=Path("s"))
run = nogs.Run(nogs.Machine("x"), methods=["ram"], seeds=[0, 1])
assert (run.methods, run.seeds) == (("ram",), (0, 1))
assert nogs.Source(data="digits", task="a").data == "digits"
assert nogs.Source(range=[0, 1]).range == (0.0, 1.0)
try:
    nogs.Run(nogs.Machine("x"), seeds=[0, -1])
except nogs.UserError as error:
    assert str(error) == "seeds=-1: must be at least 0"
"""


def test_texts_are_paths_and_lists_are_tuples_where_those_are_meant(tmp_path: Path) -> None:
    """In a process of its own, without the type checker of the tests."""
    script = tmp_path / "script.py"
    script.write_text(TEXTS)
    assert driver().run(script) == (0, "", "")
