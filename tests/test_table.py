"""The table of stages: every row is a command, a function and a configuration of the package."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import nogs
import nogs.cli
from nogs.config.table import STAGES, Stage, stage_of


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_row_is_reached_from_everywhere(stage: Stage) -> None:
    module, _, function = stage.verb.partition(":")
    verb = getattr(importlib.import_module(module), function)
    assert verb.__module__ == module
    assert getattr(nogs, function) is verb
    assert getattr(nogs, stage.config.__name__) is stage.config
    assert {function, stage.config.__name__} <= set(dir(nogs)) & set(nogs.__all__)
    assert nogs.cli.COMMANDS[stage.name].config is stage.config
    assert stage_of(stage.config) is stage
    assert stage.description
    assert not stage.description.endswith(".")


def test_rows_share_nothing() -> None:
    for column in ("name", "config", "verb"):
        values = [getattr(stage, column) for stage in STAGES]
        assert len(set(values)) == len(values)
    directories = [stage.directory for stage in STAGES if stage.directory]
    assert len(set(directories)) == len(directories)


def test_the_package_has_only_what_it_lists() -> None:
    assert nogs.__all__ == sorted(nogs.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name))
    for name in (*nogs.__all__, "__version__"):
        assert hasattr(nogs, name)
        assert name in dir(nogs)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = nogs.nothing


def test_a_new_stage_is_a_configuration_a_file_and_a_row(tmp_path: Path) -> None:
    """Its command, its help, its function and its refusals follow."""
    (tmp_path / "count.py").write_text(
        """
import dataclasses
import json
from pathlib import Path

from nogs.config.bounds import Checked, Count


@dataclasses.dataclass(frozen=True)
class CountWords(Checked):
    \"\"\"Count words.\"\"\"

    out: Path
    how_often: Count = 3
    \"\"\"times that they are counted\"\"\"


def count_words(config: CountWords) -> None:
    config.out.write_text(json.dumps(config.how_often))
"""
    )
    (tmp_path / "command.py").write_text(
        """
import sys

import nogs.config.table as table
from count import CountWords

table.STAGES = (*table.STAGES, table.Stage("count", CountWords, "count:count_words", "counts"))

import nogs
import nogs.cli

assert nogs.CountWords is CountWords
assert nogs.count_words.__name__ == "count_words"
sys.exit(nogs.cli.main())
"""
    )

    def count(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "command.py", "count", *args]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert count("--out", "out", "--how-often", "5").returncode == 0
    assert json.loads((tmp_path / "out").read_text()) == 5
    assert "times that they are counted" in count("--help").stdout
    assert count("--out", "out", "--how-often", "0").stderr == "nogs: --how-often 0: must be at least 1\n"
