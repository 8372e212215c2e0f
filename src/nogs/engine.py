"""Where work is computed that is in independent parts: in this process, or by the workers of a Ray cluster.

Pieces (`computing`) are small: a function of something that all share, such as a posterior and a bank, and of the
piece. What is shared is sent once to each worker, and results come back. Tasks (`ray_tasks`) are long, and leave files
in a directory that all workers see. Both may run in any order, on any machine, and again after a failure, so their
results must depend on nothing else. This module does not know what it computes.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch

from nogs.errors import RunError, UserError

Shared = TypeVar("Shared")
Piece = TypeVar("Piece")
Result = TypeVar("Result")
Results = Callable[[Sequence[Piece]], Iterator[tuple[int, Result]]]
"""A function that yields (index, result) of each piece, in the order in which they are finished."""
Submit = Callable[[Callable[[], None]], Future[None]]
"""A function that starts another one elsewhere, and returns what is waited for."""
LOCAL, RAY = "local", "ray"
RETRIES = 3
"""How often a worker that died is started again, and its piece computed again."""
IN_FLIGHT = 2
"""Pieces that a worker holds at a time: the one that it computes, and the next."""


def check_engine(engine: str) -> None:
    """Raise UserError unless ``engine`` is "local", "ray", or "ray:" and the address of a cluster."""
    kind, _, address = engine.partition(":")
    if engine not in (LOCAL, RAY) and not (kind == RAY and address):
        raise UserError(f"engine={engine} does not exist: choose local, ray, or ray:ADDRESS")


def computing(
    engine: str, work: Callable[[Shared, Piece], Result], shared: Shared, *, workers: int, gpus: int = 0
) -> AbstractContextManager[Results[Piece, Result]]:
    """Return a context whose value computes pieces by ``engine``.

    ``workers``: of Ray; 0: one for each CPU of the cluster. ``gpus``: of each worker of Ray, of which there are then no
    more than the cluster has GPUs for. Raises UserError for an engine that does not exist or cannot be reached, or if
    the cluster has no GPU, and RunError if a worker dies more than `RETRIES` times.
    """
    check_engine(engine)
    if engine == LOCAL:
        return _here(work, shared)
    return _by_ray(engine, work, shared, workers=workers, gpus=gpus)


@contextmanager
def _here(work: Callable[[Shared, Piece], Result], shared: Shared) -> Iterator[Results[Piece, Result]]:
    def results(pieces: Sequence[Piece]) -> Iterator[tuple[int, Result]]:
        for index, piece in enumerate(pieces):
            yield index, work(shared, piece)

    yield results


@contextmanager
def _by_ray(
    engine: str, work: Callable[[Shared, Piece], Result], shared: Shared, *, workers: int, gpus: int
) -> Iterator[Results[Piece, Result]]:
    """Compute by actors, each of which gets what is shared once and computes its pieces one after the other.

    Without an address a cluster of this machine is started, whose ports are bound to the loopback interface, and
    stopped at the end.
    """
    address = engine.partition(":")[2]
    ray = _connected(address, workers)
    try:
        count, threads = _workers_of(ray, engine, workers, gpus)
        place = [ray.put(shared)]  # in a list, so that Ray does not send the content with every piece
        actor = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=RETRIES, max_task_retries=RETRIES)(_Worker)
        actors = [actor.remote(work, threads) for _ in range(count)]

        def results(pieces: Sequence[Piece]) -> Iterator[tuple[int, Result]]:
            waiting = list(range(len(pieces)))[::-1]
            running: dict[Any, tuple[int, Any]] = {}

            def give(worker: Any) -> None:
                if waiting:
                    index = waiting.pop()
                    running[worker.compute.remote(place, pieces[index])] = index, worker

            for _ in range(IN_FLIGHT):
                for worker in actors:
                    give(worker)
            while running:
                (done, *_), _ = ray.wait(list(running))
                index, worker = running.pop(done)
                with _plain_errors(ray):
                    result = ray.get(done)
                yield index, result
                give(worker)

        yield results
        for worker in actors:
            ray.kill(worker)
    finally:
        if not address:
            ray.shutdown()


@contextmanager
def ray_tasks(engine: str, *, workers: int, gpus: int, directory: Path) -> Iterator[Submit]:
    """Yield a function that starts tasks on the Ray cluster of ``engine``, each with one CPU and ``gpus`` GPUs.

    Tasks run in the working directory of this process, if their machine has it. A task whose worker died is started
    again, `RETRIES` times. An error within the context ends all tasks. ``directory``: what the tasks write to.

    A future of a task raises UserError if its machine does not see ``directory``. Errors that leave the context are
    those of the tasks themselves, RunError if a worker died too often, or UserError if the cluster has no GPUs.
    """
    address = engine.partition(":")[2]
    ray = _connected(address, workers)
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_task)
    started: list[Any] = []

    def submit(work: Callable[[], None]) -> Future[None]:
        started.append(task.remote(work, threads, Path.cwd(), directory))
        return started[-1].future()

    try:
        _, threads = _workers_of(ray, engine, workers, gpus)
        with _plain_errors(ray):
            yield submit
    except BaseException:
        for reference in started:
            ray.cancel(reference, force=True)
        raise
    finally:
        if not address:
            ray.shutdown()


def _task(work: Callable[[], None], threads: int, home: Path, directory: Path) -> None:
    """Do ``work`` on a worker, with relative paths as in ``home``."""
    torch.set_num_threads(threads)
    with suppress(OSError):
        os.chdir(home)
    if not directory.is_dir():
        raise UserError(
            f"out={directory}: the worker on {socket.gethostname()} does not see this directory: choose one on a file "
            "system that all machines of the cluster share"
        )
    work()


def _workers_of(ray: Any, engine: str, workers: int, gpus: int) -> tuple[int, int]:
    """Return the number of workers, by default one for each CPU of the cluster, and the threads of each.

    Raises UserError if each needs ``gpus`` GPUs and the cluster has fewer, because they would wait forever.
    """
    resources = ray.cluster_resources()
    count = workers or max(1, int(resources.get("CPU", 1)))
    if gpus:
        count = min(count, int(resources.get("GPU", 0)) // gpus)
        if count == 0:
            raise UserError(f"engine={engine}: no machine of the cluster has a GPU: choose device=cpu")
    return count, max(1, torch.get_num_threads() // count)


def _connected(address: str, workers: int) -> Any:
    """Return the module ray, connected to the cluster at ``address`` or to a new one of this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray reports its use over the network
    if not address:  # for other systems than Linux, Ray has this to bind all its ports to the loopback interface
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
    except ImportError:
        raise UserError("engine=ray needs Ray: install nogs[ray]") from None
    logging.getLogger("ray").setLevel(logging.ERROR)
    if ray.is_initialized():
        return ray
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            ray.init(address, **quiet)
        else:
            ray.init(num_cpus=workers or None, include_dashboard=False, **quiet)
    except Exception as error:  # Ray raises many kinds of errors for clusters that cannot be reached
        raise UserError(f"engine=ray:{address} cannot be reached: {str(error).splitlines()[0]}") from error
    return ray


@contextmanager
def _plain_errors(ray: Any) -> Iterator[None]:
    """Raise what a work raised as itself, and RunError for a worker that died too often."""
    died = ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError
    try:
        yield
    except (*died, ray.exceptions.OutOfMemoryError):
        raise RunError(
            f"a worker died {1 + RETRIES} times, perhaps for memory: use fewer workers; "
            "run it again with resume=True to go on from here"
        ) from None
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else error from None


class _Worker:
    """An actor, which computes pieces. It fetches what is shared before its first piece, also after it died."""

    def __init__(self, work: Callable[[Any, Any], Any], threads: int) -> None:
        torch.set_num_threads(threads)
        self.work, self.shared = work, None

    def compute(self, place: list[Any], piece: Any) -> Any:
        if self.shared is None:
            import ray

            self.shared = ray.get(place[0])
        return self.work(self.shared, piece)
