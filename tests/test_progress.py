"""Progress bars where they are shown."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import rich.console

from nogs.runs.progress import ticking


def test_a_notebook_without_widgets_gets_no_warnings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Warnings are errors in tests."""
    display = ModuleType("IPython.display")
    display.__dict__["display"] = lambda *shown: None
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    with ticking("train", 2) as tick:
        tick(2, "done")
    assert "train" in capsys.readouterr().err
