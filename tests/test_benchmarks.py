"""The benchmarks and experiments can be imported: all that they use of the package exists."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted([*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "experiments").glob("*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_imports(script: Path) -> None:
    assert "main" in runpy.run_path(str(script), run_name="imported")
