"""Every test runs on one thread, with the shapes and types in the signatures of `nogs` checked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from staged import Stages

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for processes that tests start: two workers on two cores leave one core to each
# Before any test module imports nogs: the hook rewrites modules as they are imported, and stays installed.
install_import_hook("nogs", "beartype.beartype")
pytest.register_assert_rewrite("sets", "staged", "typed")


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of decoded images for one test."""
    place = tmp_path / "cache"
    monkeypatch.setenv("NOGS_CACHE", str(place))
    return place


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """A run of every stage, with two methods, and RAM with seeds in the order 1, 0. Tests must not change it."""
    from staged import Stages
    from tiny import write_npz

    folder = tmp_path_factory.mktemp("stages")
    made = Stages(folder, write_npz(folder / "images.npz"))
    made.posterior()
    made.bank()
    made.search()
    made.train("ram-1", "ram", seed=1)
    made.train("ram-0", "ram")
    made.train("nogs-0", "ps-nogs")
    made.evaluate("evaluation", "ram-1", "ram-0", "nogs-0")
    return made
