"""Engines: pieces computed here and by Ray, workers that die, and a search that is the same by both."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

import nogs
from nogs.engine import check_engine, computing
from nogs.errors import RunError, UserError
from staged import Stages, silent
from tiny import write_npz


def product(shared: int, piece: int) -> int:
    return shared * piece


def dying(shared: Path, piece: int) -> int:
    """Die once at piece 3, and always at piece 99, as a process that is killed does."""
    mark = shared / "died"
    if piece == 99 or (piece == 3 and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 10 * piece


def refusing(shared: None, piece: int) -> int:
    raise UserError(f"piece={piece}: cannot be computed")


@pytest.mark.parametrize("engine", ["ray:", "local:x", "spark", ""])
def test_an_engine_that_does_not_exist_is_one_line(engine: str) -> None:
    with pytest.raises(UserError, match="choose local, ray, or ray:ADDRESS"):
        check_engine(engine)


def test_pieces_computed_here() -> None:
    with computing("local", product, 3, workers=0) as results:
        assert list(results([1, 2, 3])) == [(0, 3), (1, 6), (2, 9)]
        assert list(results([])) == []


quiet = pytest.mark.filterwarnings("ignore")
"""Ray's own processes and files warn."""


@pytest.mark.slow
@quiet
def test_pieces_by_ray_each_once_also_if_a_worker_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Workers import the functions of this file.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    with computing("ray", dying, tmp_path, workers=2) as results:
        assert sorted(results(list(range(12)))) == [(piece, 10 * piece) for piece in range(12)]
        assert (tmp_path / "died").exists()
        assert sorted(results([1, 2])) == [(0, 10), (1, 20)]
        import ray  # by nogs first, which sets what Ray reads when it is imported

        assert {node["NodeManagerAddress"] for node in ray.nodes()} == {"127.0.0.1"}
        with pytest.raises(RunError, match="a worker died 4 times"):
            list(results([99]))
    with computing("ray", refusing, None, workers=1) as results, pytest.raises(UserError, match="piece=7: cannot"):
        list(results([7]))


@pytest.mark.slow
@quiet
def test_a_search_by_ray_is_that_of_this_process(tmp_path: Path) -> None:
    stages = Stages(tmp_path, write_npz(tmp_path / "images.npz"))
    stages.posterior(iterations=20)
    stages.bank()
    here = stages.search("here")
    there = stages.search("there", engine="ray", jobs=2)
    for name in ("sequences.safetensors", "usefulness.json"):
        assert (here.path / name).read_bytes() == (there.path / name).read_bytes()
    assert sorted(row["name"] for row in here.rows()) == sorted(row["name"] for row in there.rows())
    # A search that ray began goes on in this process.
    (there.path / "COMPLETE").unlink()
    before = (there.path / "sequences.safetensors").read_bytes()
    config = nogs.Search(nogs.Machine(there.path, resume=True, device="cpu"), tmp_path / "posterior", tmp_path / "bank")
    config = replace(config, **{name: there.config[name] for name in ("first", "pooling")})
    config = replace(config, retrieval=nogs.RetrievalOptions(**there.config["retrieval"]))
    assert nogs.search(config, silent).complete
    assert (there.path / "sequences.safetensors").read_bytes() == before
