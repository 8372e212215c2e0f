"""docs/adding-a-policy.md: its code is a method that every stage accepts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import nogs
from nogs.attention.methods import METHODS, OBJECTIVES, Method
from staged import Stages

PAGE = (Path(__file__).parents[1] / "docs" / "adding-a-policy.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_adds_a_method(stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # So that the tables are restored after the test.
    monkeypatch.setitem(METHODS, "one-gain", METHODS["gain"])
    monkeypatch.setitem(OBJECTIVES, "one-gain", OBJECTIVES["gain"])
    names: dict[str, Any] = {"METHODS": METHODS, "OBJECTIVES": OBJECTIVES, "Method": Method}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(block, names)
    run = stages.train(str(tmp_path / "one-gain"), "one-gain", iterations=20, sequences=None)
    evaluated = nogs.evaluate(nogs.Evaluate(nogs.Machine(tmp_path / "evaluation"), (run.path,)))
    assert evaluated.complete
    assert OBJECTIVES["one-gain"].__name__ == "one_gain"


@pytest.mark.slow
def test_files_that_the_page_names_exist() -> None:
    root = Path(__file__).parents[1]
    named = re.findall(r"`((?:[a-z]+/)?[\w-]+\.(?:py|md)|[a-z]+/[\w/]+\.(?:py|md))`", PAGE)
    assert len(named) > 8
    for name in named:
        assert (root / name).exists() or (root / "src" / "nogs" / name).exists(), name
