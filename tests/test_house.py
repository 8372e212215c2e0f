"""docs/design.md against the code: every room is on the page once, in the order of the layers."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")


def rooms() -> list[str]:
    package = ROOT / "src" / "nogs"
    inside = (path for path in package.iterdir() if path.is_dir() or path.suffix == ".py")
    return sorted(path.stem for path in inside if not path.name.startswith("_"))


def layers() -> list[list[str]]:
    """The rooms of each layer of the import contract, from the top."""
    tomllib = pytest.importorskip("tomllib")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = (contract for contract in contracts if contract["type"] == "layers")
    return [[name.strip(" ()") for name in layer.split("|")] for layer in contract["layers"]]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib")
def test_the_page_names_every_room_once_in_the_order_of_the_layers() -> None:
    named = re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)
    assert sorted(named) == rooms()
    height = {room: number for number, layer in enumerate(layers()) for room in layer}
    assert [height[room] for room in named] == sorted(height[room] for room in named)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib")
def test_the_picture_has_every_layer() -> None:
    picture = (ROOT / "docs" / "pictures" / "house.svg").read_text(encoding="utf-8")
    boxes = re.findall(r'<text x="[\d.]+" y="(\d+)" fill="#212529">(\w+)<', picture)
    drawn: dict[str, list[str]] = {}
    for y, room in boxes:
        drawn.setdefault(y, []).append(room)
    assert list(drawn.values()) == layers(), "run experiments/docs_house.py"


def test_files_that_the_page_names_exist() -> None:
    for name in re.findall(r"`((?:src|tests|docs|[a-z]+)/[\w/]+\.py)`", PAGE):
        assert (ROOT / name).exists() or (ROOT / "src" / "nogs" / name).exists(), name
