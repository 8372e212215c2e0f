"""Run `nogs` commands as a user does, check refusals, and make images for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tiny import GEOMETRY, Ended, pictures, write_npz

NOGS = str(Path(sys.executable).parent / "nogs")


QUICK = (*GEOMETRY, "--iterations", 40, "--batch-size", 32, "--validate-every", 10)


def typed(*args: object) -> Ended:
    """Run the installed command in a process and return its exit code and output."""
    done = subprocess.run([NOGS, *map(str, args)], capture_output=True, text=True, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


def refused(ended: Ended, *reason: str) -> None:
    """Check for exit code 2, and one line that names the cause and the fix."""
    assert ended.code == 2, ended
    assert ended.err.startswith("nogs: ")
    assert len(ended.err.splitlines()) == 1, ended.err
    assert ended.err.endswith("\n")
    assert ended.out == ""
    for part in reason:
        assert part in ended.err


def save(image: np.ndarray[Any, Any], file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file)
    return file


def folder(root: Path, counts: dict[str, int], suffix: str = "png") -> Path:
    """Images of one folder a class."""
    root.mkdir()
    for label, (name, count) in enumerate(counts.items()):
        for place, image in enumerate(pictures(np.full(count, label), seed=label)):
            save(image, root / name / f"{place}.{suffix}")
    return root


def table(root: Path, rows: list[str]) -> Path:
    """A CSV of ten images, ``rows`` among them."""
    folder(root, {"a": 5, "b": 5})
    good = [f"{name}/{place}.png,{name}" for name in "ab" for place in range(5)]
    (root / "table.csv").write_text("\n".join(["file,label", good[0], *rows, *good[1:]]))
    return root / "table.csv"


def good(place: Path) -> list[object]:
    return ["--data", f"npz:{write_npz(place / 'good.npz')}"]
