"""Where jobs run: side by side in worker processes or elsewhere, or one after the other in this process.

A job is a function without arguments but its progress callback. This module is independent of what the jobs do. It
starts them, waits for the jobs that they need, shows their progress, and ends all of them when one fails or the user
stops.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import NamedTuple

import torch
from rich.progress import Progress, TaskID

from nogs.engine import Submit
from nogs.errors import RunError
from nogs.runs.progress import Tick, numbered, progress_bars
from nogs.runs.workers import begin, starting

POLL_SECONDS = 2.0
"""Time between two looks at the progress of worker processes."""


class Job(NamedTuple):
    """A function to run, and its progress.

    ``work``: picklable, and called with a progress callback. ``progress``: called in this process while ``work`` runs
    in another; returns (steps done, note), with an empty note before the first step. ``total``: number of steps.
    ``needs``: the name of a job that has to be finished before this one starts.
    """

    name: str
    work: Callable[[Tick], None]
    progress: Callable[[], tuple[int, str]]
    total: int
    needs: str | None = None


def run_jobs(
    jobs: Sequence[Job],
    *,
    at_once: int,
    workers: AbstractContextManager[Submit] | None = None,
    whole: str | None = None,
) -> None:
    """Run all jobs, ``at_once`` at a time, with a progress bar for each. The first error ends all of them.

    ``workers``: what starts a job elsewhere; by default processes of this machine, or with ``at_once=1`` this one.
    ``whole``: name of one more bar, which counts finished jobs; the bar of a finished job is then hidden.

    Raises RunError if a worker process was killed.
    """
    with progress_bars() as progress:
        bars = _Bars(progress, jobs, whole)
        if workers is None and at_once == 1:
            _in_this_process(jobs, bars)
        else:
            with workers or _processes(at_once) as submit:
                _in_workers(jobs, at_once, submit, bars)


class _Bars:
    """The bar of each job, shown when the job has begun, and with ``whole`` a bar that counts finished jobs."""

    def __init__(self, progress: Progress, jobs: Sequence[Job], whole: str | None) -> None:
        self.progress = progress
        self.whole = None if whole is None else progress.add_task(numbered(whole), total=len(jobs), note="")
        self.tasks: dict[str, TaskID] = {
            job.name: progress.add_task(numbered(job.name), total=job.total, note="", start=False, visible=False)
            for job in jobs
        }

    def show(self, name: str, done: int, note: str) -> None:
        self.progress.start_task(self.tasks[name])
        self.progress.update(self.tasks[name], completed=done, note=note, visible=True)

    def finish(self, name: str) -> None:
        self.progress.update(self.tasks[name], total=1, completed=1, visible=self.whole is None)
        if self.whole is not None:
            self.progress.advance(self.whole)


def _in_this_process(jobs: Sequence[Job], bars: _Bars) -> None:
    waiting, finished = list(jobs), set[str]()
    while waiting:
        job = next(job for job in waiting if job.needs is None or job.needs in finished)
        waiting.remove(job)
        bars.show(job.name, 0, "")
        job.work(partial(bars.show, job.name))
        finished.add(job.name)
        bars.finish(job.name)


def _in_workers(jobs: Sequence[Job], at_once: int, submit: Submit, bars: _Bars) -> None:
    waiting, running, finished = list(jobs), dict[Future[None], Job](), set[str]()
    while waiting or running:
        ready = [job for job in waiting if job.needs is None or job.needs in finished]
        for job in ready[: at_once - len(running)]:
            waiting.remove(job)
            running[submit(partial(job.work, _no_progress))] = job
        done, _ = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        for job in running.values():
            steps, note = job.progress()
            if note:
                bars.show(job.name, steps, note)
        for future in done:
            future.result()
            finished.add(name := running.pop(future).name)
            bars.finish(name)


@contextmanager
def _processes(count: int) -> Iterator[Submit]:
    """Yield a function that starts functions in ``count`` processes, which an error within the context ends."""
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // count)
    with ProcessPoolExecutor(count, mp_context=context, initializer=begin, initargs=(threads,)) as pool:

        def submit(work: Callable[[], None]) -> Future[None]:
            with starting():
                return pool.submit(work)

        try:
            yield submit
        except BrokenProcessPool:  # the pool ended the other processes already
            raise RunError(
                "a training process was killed, perhaps for memory: use jobs=1; "
                "run it again with resume=True to go on from here"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _no_progress(done: int, note: str) -> None:
    """Ignore progress: the parent process shows it."""
