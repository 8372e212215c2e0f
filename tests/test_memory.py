"""Images that could only exhaust memory are refused before any is decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nogs
import nogs.data.memory
from nogs.data.memory import check_memory, memory_bytes
from nogs.errors import UserError
from typed import folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 10,000 bytes of memory, and of disk."""
    monkeypatch.setattr(nogs.data.memory, "memory_bytes", lambda: 10_000)
    usage = type("Usage", (), {"free": 10_000})
    monkeypatch.setattr(nogs.data.memory.shutil, "disk_usage", lambda place: usage)


def test_the_largest_size_that_fits_is_named(small: None) -> None:
    check_memory(3, channels=3, image_px=33)
    with pytest.raises(UserError, match=r"^image_size=34: 3 images of 3 channels take .*; choose at most 33$"):
        check_memory(3, channels=3, image_px=34)
    check_memory(3, channels=3, image_px=33, disk=Path("not/there/yet"))
    with pytest.raises(UserError, match="choose at most 33"):
        check_memory(3, channels=3, image_px=34, disk=Path("not/there/yet"))


def test_a_large_disk_is_enough_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nogs.data.memory, "memory_bytes", lambda: 10_000)
    check_memory(3, channels=3, image_px=34, disk=Path("not/there/yet"))


@pytest.mark.parametrize("kind", ["digits", "npz", "folder"])
def test_every_source_is_checked(kind: str, small: None, cached: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=np.zeros((30, 8, 8), dtype=np.uint8), y=np.arange(30) % 2)
    if kind == "folder":
        folder(tmp_path / "set", {"cats": 5, "dogs": 5})
    spec = {"digits": "digits", "npz": f"npz:{tmp_path / 'set.npz'}", "folder": f"folder:{tmp_path / 'set'}"}[kind]
    with pytest.raises(UserError, match=r"^image_size=64: \d+ images of 1 channels take .*choose at most \d+$"):
        nogs.load(nogs.Source(data=spec, image_size=64))
    assert not cached.exists()


@pytest.mark.parametrize(("limit", "smaller"), [("5000\n", True), ("max\n", False), (None, False)])
def test_the_limit_of_a_container_counts(
    limit: str | None, smaller: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit)
    monkeypatch.setattr(nogs.data.memory, "CGROUP", tmp_path / "memory.max")
    assert (memory_bytes() == 5000) == smaller
    assert memory_bytes() > 0
