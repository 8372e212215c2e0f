"""Where work runs: side by side in worker processes, or one after the other in this process.

A job is a function without arguments but its progress callback. This module is independent of what the jobs do. It
starts them, waits for the jobs that they need, shows their progress, and ends all of them when one fails or the user
stops.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import torch
from rich.progress import Progress, TaskID

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


def run_jobs(jobs: Sequence[Job], *, at_once: int) -> None:
    """Run all jobs, ``at_once`` at a time, with a progress bar for each. The first error ends all of them.

    With ``at_once=1`` they run in this process. Raises RunError if a worker process was killed.
    """
    with progress_bars() as bars:
        tasks = {
            job.name: bars.add_task(numbered(job.name), total=job.total, note="", start=False, visible=False)
            for job in jobs
        }
        if at_once == 1:
            _in_this_process(jobs, bars, tasks)
        else:
            _in_workers(jobs, at_once, bars, tasks)


def _in_this_process(jobs: Sequence[Job], bars: Progress, tasks: dict[str, TaskID]) -> None:
    waiting, finished = list(jobs), set[str]()
    while waiting:
        job = next(job for job in waiting if job.needs is None or job.needs in finished)
        waiting.remove(job)
        task = tasks[job.name]
        bars.start_task(task)
        bars.update(task, visible=True)
        job.work(lambda done, note, task=task: bars.update(task, completed=done, note=note))  # type: ignore[misc]
        finished.add(job.name)
        bars.update(task, total=1, completed=1)


def _in_workers(jobs: Sequence[Job], at_once: int, bars: Progress, tasks: dict[str, TaskID]) -> None:
    waiting, running, finished = list(jobs), dict[Future[None], Job](), set[str]()
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // at_once)
    with ProcessPoolExecutor(at_once, mp_context=context, initializer=begin, initargs=(threads,)) as pool:
        try:
            while waiting or running:
                for job in [job for job in waiting if job.needs is None or job.needs in finished]:
                    waiting.remove(job)
                    with starting():
                        running[pool.submit(job.work, _no_progress)] = job
                done, _ = wait(running, timeout=POLL_SECONDS)
                for job in running.values():
                    steps, note = job.progress()
                    if note:
                        bars.start_task(tasks[job.name])
                        bars.update(tasks[job.name], completed=steps, note=note, visible=True)
                for future in done:
                    future.result()
                    finished.add(name := running.pop(future).name)
                    bars.update(tasks[name], total=1, completed=1)
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
