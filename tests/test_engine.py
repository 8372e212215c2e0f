"""Engines: pieces computed here and by Ray, workers that die, and a search that is the same by both."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import nogs
from nogs.engine import _workers_of, check_engine, computing, ray_tasks
from nogs.errors import RunError, UserError
from nogs.jobs import Job, run_jobs
from nogs.runs.directory import RunDirectory
from nogs.runs.progress import Tick
from staged import GEOMETRY, NETWORK, Stages, silent
from tiny import wait_for, write_npz


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


@pytest.mark.parametrize(
    ("workers", "gpus", "count"),
    [(0, 0, 8), (3, 0, 3), (0, 1, 2), (1, 1, 1), (5, 1, 2)],
)
def test_no_more_workers_than_there_are_gpus_for(workers: int, gpus: int, count: int) -> None:
    """Of a cluster with eight CPUs and two GPUs. More would wait for ever, and their pieces with them."""
    cluster = SimpleNamespace(cluster_resources=lambda: {"CPU": 8.0, "GPU": 2.0})
    found, threads = _workers_of(cluster, "ray", workers, gpus)
    assert found == count
    assert threads == max(1, torch.get_num_threads() // count)
    without = SimpleNamespace(cluster_resources=lambda: {"CPU": 8.0})
    if gpus:
        with pytest.raises(UserError, match=r"^engine=ray: no machine of the cluster has a GPU"):
            _workers_of(without, "ray", workers, gpus)


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


def leaving(mark: Path, tick: object) -> None:
    mark.touch()


def ending(mark: Path, tick: object) -> None:
    """Count how often it was started, and die as a process that is killed does."""
    with mark.open("a") as file:
        file.write("started\n")
    os.kill(os.getpid(), signal.SIGKILL)


def wrong(mark: Path, tick: object) -> None:
    raise UserError(f"mark={mark}: is wrong")


def jobs_of(folder: Path, **works: Callable[[Path, Tick], None]) -> list[Job]:
    return [Job(name, partial(work, folder / name), lambda: (0, ""), total=1) for name, work in works.items()]


@pytest.mark.slow
@quiet
def test_jobs_by_ray_end_with_one_line_where_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def run_in(directory: Path, jobs: list[Job], gpus: int = 0) -> None:
        run_jobs(jobs, at_once=2, workers=ray_tasks("ray", workers=2, gpus=gpus, directory=directory))

    after = Job("c", partial(leaving, tmp_path / "c"), lambda: (0, ""), total=1, needs="b")
    run_in(tmp_path, [after, *jobs_of(tmp_path, a=leaving, b=leaving)])
    assert {place.name for place in tmp_path.iterdir()} == {"a", "b", "c"}
    assert (tmp_path / "b").stat().st_mtime_ns < (tmp_path / "c").stat().st_mtime_ns
    with pytest.raises(UserError, match=r"^mark=\S*wrong: is wrong$"):
        run_in(tmp_path, jobs_of(tmp_path, wrong=wrong))
    with pytest.raises(UserError, match=r"^out=\S*absent: the worker on \S+ does not see this directory"):
        run_in(tmp_path / "absent", jobs_of(tmp_path, d=leaving))
    with pytest.raises(UserError, match=r"^engine=ray: no machine of the cluster has a GPU"):
        run_in(tmp_path, jobs_of(tmp_path, d=leaving), gpus=1)
    assert not (tmp_path / "d").exists()
    with pytest.raises(RunError, match="a worker died 4 times"):
        run_in(tmp_path, jobs_of(tmp_path, ending=ending))
    assert (tmp_path / "ending").read_text() == 4 * "started\n"


def descendants(title: bytes) -> list[int]:
    """Return the processes with a title, such as those of Ray that do a task, which this process has started."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and title in (entry / "cmdline").read_bytes():
                ancestor = int(entry.name)
                while ancestor > 1 and ancestor != os.getpid():
                    status = (Path("/proc") / str(ancestor) / "stat").read_text()
                    ancestor = int(status.rpartition(")")[2].split()[1])
                if ancestor == os.getpid():
                    found.append(int(entry.name))
        except OSError:  # it ended meanwhile
            continue
    return found


@pytest.mark.slow
@quiet
def test_trainings_by_ray_are_those_of_processes_also_if_a_worker_is_killed(tmp_path: Path) -> None:
    """With one that waits for another. The run directory is a relative path, from where the run is started."""
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("the processes of Ray are listed by Linux alone")
    config = nogs.Run(
        nogs.Machine(tmp_path / "here", device="cpu"),
        nogs.Source(data=f"npz:{write_npz(tmp_path / 'images.npz')}"),
        GEOMETRY,
        annotate=30,
        methods=("ps-ram", "ram"),
        seeds=(0,),
        iterations=300,
        batch_size=32,
        validate_every=20,
        network=NETWORK,
        jobs=2,
    )
    here = nogs.run(config)
    there = Path(os.path.relpath(tmp_path / "there"))
    log = there / "train" / "ram-seed0" / "log.jsonl"

    def kill() -> None:
        wait_for(lambda: log.exists() and log.stat().st_size > 0, "the first validation")
        for pid in descendants(b"ray::_task"):
            os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    nogs.run(replace(config, machine=replace(config.machine, out=there), engine="ray"))
    thread.join()
    for name in ("train/ram-seed0", "train/ps-ram-seed0"):
        weights = Path(name) / "model.safetensors"
        assert (here.path / weights).read_bytes() == (there / weights).read_bytes()
    assert "resumed" in RunDirectory(log.parent).provenance
