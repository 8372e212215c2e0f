"""docs/first-hour.md: its commands and lines, run in their order in an empty folder."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tiny import Ended, driver

PAGE = (Path(__file__).parents[1] / "docs" / "first-hour.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", PAGE, flags=re.DOTALL)
FEWER = {"--iterations 500": "--iterations 40 --validate-every 20 --jobs 1 --device cpu", "range(600)": "range(120)"}
"""Replacements that shorten the page: fewer iterations, fewer images."""


def shortened(block: str) -> str:
    for text, replacement in FEWER.items():
        block = block.replace(text, replacement)
    return block


def run_command(line: str, folder: Path) -> Ended:
    """Run a line of a shell block, whose program is nogs or python."""
    program, *arguments = shlex.split(line)
    if program == "nogs":
        return driver().run(*arguments, cwd=folder)
    assert program == "python"
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=300)
    return Ended(done.returncode, done.stdout, done.stderr)


def test_the_blocks_that_are_shortened_are_on_the_page() -> None:
    assert all(PAGE.count(text) == 1 for text in FEWER)


@pytest.mark.slow
def test_the_page_runs_from_photographs_to_a_shared_model(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    python = "import matplotlib\nmatplotlib.use('Agg')\n"
    for language, block in BLOCKS:
        if language == "sh":
            for line in shortened(block).replace("\\\n", " ").splitlines():
                ended = run_command(line, tmp_path)
                assert ended.code == 0, f"{line}\n{ended.err}"
        else:
            python += shortened(block)  # later blocks use the names of earlier ones
            (tmp_path / "script.py").write_text(python)
            ended = driver().run(tmp_path / "script.py", cwd=tmp_path)
            assert ended.code == 0, f"{block}\n{ended.err}"
    assert len(list(tmp_path.glob("seen/*.png"))) == 60
    assert (tmp_path / "answer.png").exists()
    assert {file.name for file in (tmp_path / "shared" / "stripes").iterdir()} >= {"README.md", "model.safetensors"}
