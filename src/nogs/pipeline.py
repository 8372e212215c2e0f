"""The whole pipeline: posterior, bank, sequences, every method under every seed, evaluation, report.

Each stage is a run directory under --out, and what is finished there is not done again. Trainings do not
depend on each other, so they run side by side, each in a process and on a core of its own: networks this
small gain nothing from a second thread.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import torch

from nogs.config import BuildBank, Evaluate, FitPosterior, Machine, Optimisation, Report, Run, Search, Train
from nogs.data import load
from nogs.device import choose_device
from nogs.errors import UserError
from nogs.methods import method
from nogs.models import grid_of
from nogs.progress import progress_bars
from nogs.rundir import RunDirectory, finished_run, open_run
from nogs.stages.build_bank import build_bank
from nogs.stages.evaluate import evaluate
from nogs.stages.fit_posterior import fit_posterior
from nogs.stages.report import report
from nogs.stages.search import search
from nogs.stages.train import train

POLL_SECONDS = 2.0
POSTERIOR_BATCH = 128
POSTERIOR_LEARNING_RATE = 2e-3


def run(config: Run) -> RunDirectory:
    """Run the pipeline of ``config``; leave results.json and report.html in its directory."""
    if finished := finished_run(config.machine.out, "run", config, resume=config.machine.resume):
        return finished
    _check(config)
    directory = open_run(config.machine.out, "run", config, resume=config.machine.resume)
    posterior = fit_posterior(
        FitPosterior(
            _within(config, "posterior"),
            config.source,
            config.geometry,
            optimisation=Optimisation(
                iterations=config.posterior_iterations,
                batch_size=POSTERIOR_BATCH,
                learning_rate=POSTERIOR_LEARNING_RATE,
                validate_every=250,
            ),
            annotate=config.annotate,
        )
    )
    bank = build_bank(BuildBank(_within(config, "bank"), config.source, mirror=config.mirror))
    sequences = search(Search(_within(config, "sequences"), posterior.path, bank.path))
    trainings = [
        Train(
            _within(config, "train", f"{name}-seed{seed}"),
            config.source,
            config.geometry,
            Optimisation(
                config.iterations,
                config.batch_size,
                config.learning_rate,
                config.validate_every,
                config.patience,
                seed,
            ),
            method=name,
            sequences=None if method(name).sequences == "none" else sequences.path,
            supervision=config.supervision,
        )
        for seed in config.seeds
        for name in config.methods
    ]
    _train_side_by_side(trainings, jobs=_jobs(config))
    models = tuple(training.machine.out for training in trainings)
    evaluation = evaluate(Evaluate(_within(config, "evaluation"), models, sequences.path))
    directory.save_json("results.json", json.loads((evaluation.path / "results.json").read_text()))
    report(Report(directory.path))
    directory.finish()
    return directory


def _check(config: Run) -> None:
    """Everything that can be wrong with the input, before anything is written or computed."""
    for name in config.methods:
        method(name)
    for flag, values in (("--methods", config.methods), ("--seeds", config.seeds)):
        if not values or len(set(values)) < len(values):
            raise UserError(f"{flag} {','.join(map(str, values)) or '(none)'}: give one or more, each once")
    choose_device(config.machine.device)
    data = load(config.source)
    if data.multilabel:
        raise UserError(f"these images have many labels: choose --task among {', '.join(data.classes)}")
    grid_of(config.geometry, data)


def _within(config: Run, *parts: str) -> Machine:
    return replace(config.machine, out=config.machine.out.joinpath(*parts), resume=True)


def _jobs(config: Run) -> int:
    if config.jobs:
        return config.jobs
    return (os.cpu_count() or 1) if choose_device(config.machine.device).type == "cpu" else 1


def _train_side_by_side(trainings: list[Train], *, jobs: int) -> None:
    """Train all, ``jobs`` at a time, with a bar for each that runs; the first error ends it."""
    threads = max(1, torch.get_num_threads() // jobs)
    with (
        ProcessPoolExecutor(
            jobs,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin_worker,
            initargs=(threads,),
        ) as pool,
        progress_bars() as bars,
    ):
        running = {pool.submit(_train_quietly, training): training for training in trainings}
        tasks = {
            training.machine.out: bars.add_task(
                training.machine.out.name, total=training.optimisation.iterations, note="", start=False, visible=False
            )
            for training in trainings
        }
        try:
            while running:
                done, _ = wait(running, timeout=POLL_SECONDS)
                for training in running.values():
                    iteration, note = _heard_of(training.machine.out)
                    task = tasks[training.machine.out]
                    if note:
                        bars.start_task(task)
                        bars.update(task, completed=iteration, note=note, visible=True)
                for future in done:
                    future.result()
                    bars.update(tasks[running.pop(future).machine.out], total=1, completed=1)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _begin_worker(threads: int) -> None:
    """Ctrl-C is the parent's to answer; and a worker ends with its parent, however that ended.

    A worker left behind by a kill would go on writing where the resumed run writes.
    """
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _train_quietly(training: Train) -> None:
    train(training, tick=lambda done, note: None)


def _heard_of(out: Path) -> tuple[int, str]:
    """How far a training in another process has come, from its log."""
    rows = RunDirectory(out).rows()
    if not rows:
        return 0, ""
    best = min(rows, key=lambda row: row["nll_nats"])
    return rows[-1]["iteration"], f"val {rows[-1]['nll_nats']:.3f} (best {best['nll_nats']:.3f})"
