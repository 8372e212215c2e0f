"""Where independent pieces of one work are computed: in this process, or by the workers of a Ray cluster.

A work is a function of something that all pieces share, such as a posterior and a bank, and of a piece. Pieces may be
computed in any order, on any machine, and again after a failure, so their results must depend on nothing else. What
is shared is sent once to each worker. This module does not know what it computes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import torch

from nogs.errors import RunError, UserError

Shared = TypeVar("Shared")
Piece = TypeVar("Piece")
Result = TypeVar("Result")
Results = Callable[[Sequence[Piece]], Iterator[tuple[int, Result]]]
"""A function that yields (index, result) of each piece, in the order in which they are finished."""
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
    engine: str, work: Callable[[Shared, Piece], Result], shared: Shared, *, workers: int
) -> AbstractContextManager[Results[Piece, Result]]:
    """Return a context whose value computes pieces by ``engine``.

    ``workers``: of Ray; 0: one for each CPU of the cluster. Raises UserError for an engine that does not exist or
    cannot be reached, and RunError if a worker dies more than `RETRIES` times.
    """
    check_engine(engine)
    if engine == LOCAL:
        return _here(work, shared)
    return _by_ray(engine.partition(":")[2], work, shared, workers=workers)


@contextmanager
def _here(work: Callable[[Shared, Piece], Result], shared: Shared) -> Iterator[Results[Piece, Result]]:
    def results(pieces: Sequence[Piece]) -> Iterator[tuple[int, Result]]:
        for index, piece in enumerate(pieces):
            yield index, work(shared, piece)

    yield results


@contextmanager
def _by_ray(
    address: str, work: Callable[[Shared, Piece], Result], shared: Shared, *, workers: int
) -> Iterator[Results[Piece, Result]]:
    """Compute by actors, each of which gets what is shared once and computes its pieces one after the other.

    Without an address a cluster of this machine is started, whose ports are bound to the loopback interface, and
    stopped at the end.
    """
    ray = _connected(address, workers)
    count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    try:
        threads = max(1, torch.get_num_threads() // count)
        place = [ray.put(shared)]  # in a list, so that Ray does not send the content with every piece
        actor = ray.remote(num_cpus=1, max_restarts=RETRIES, max_task_retries=RETRIES)(_Worker)
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
                yield index, _result_of(ray, done)
                give(worker)

        yield results
        for worker in actors:
            ray.kill(worker)
    finally:
        if not address:
            ray.shutdown()


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


def _result_of(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayActorError:
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
