"""Every option has a help text, and Python's help shows what the command line shows."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import nogs
import nogs.cli
from nogs.config.bounds import Checked, Count
from nogs.config.documented import with_fields
from nogs.config.stages import FitBaseline
from nogs.config.table import STAGES
from nogs.glimpses.grid import Grid


@dataclass(frozen=True)
class Spoon(Checked):
    """What soup is eaten with."""

    size: Count


@dataclass(frozen=True)
class Soup(Checked):
    """A soup, hot."""

    spoon: Spoon
    pot: Spoon = field(default_factory=lambda: Spoon(2))
    guests: Count | None = None
    """who eats;
    and drinks"""
    names: tuple[str, ...] = ("a", "b")
    place: Path = Path()
    """where"""


def test_fields_become_parameters_of_the_docstring() -> None:
    assert Soup.__doc__ == inspect.cleandoc(
        """A soup, hot.

        Parameters
        ----------
        spoon : Spoon
            What soup is eaten with.
        pot : Spoon, default Spoon(2)
            What soup is eaten with.
        guests : int | None, default None
            who eats;
            and drinks
        names : tuple[str, ...], default ('a', 'b')
        place : Path, default Path()
            where
        """
    )


def test_a_class_without_a_source_keeps_its_docstring() -> None:
    namespace: dict[str, Any] = {"__name__": __name__, "Checked": Checked}
    exec('class Unseen(Checked):\n    "Made at run time."', namespace)
    assert namespace["Unseen"].__doc__ == "Made at run time."
    assert with_fields(int) == int.__doc__


@pytest.mark.parametrize(
    "kind", [stage.config for stage in STAGES] + [FitBaseline, Grid], ids=lambda kind: kind.__name__
)
def test_every_option_has_a_help_text(kind: type) -> None:
    doc = inspect.getdoc(kind) or ""
    for part in dataclasses.fields(kind):
        entry = doc.partition(f"\n{part.name} : ")[2]
        assert entry, part.name
        if kind is not Grid:
            assert entry.partition("\n")[2].startswith("    "), part.name
    assert "--" not in doc.replace("----------", "")


def test_help_on_the_command_line_is_help_in_python(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        nogs.cli.main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "step between neighbouring locations, in pixels (default: 4)" in text
    assert "Parameters" not in text
    assert "step between neighbouring locations, in pixels" in (nogs.Geometry.__doc__ or "")
