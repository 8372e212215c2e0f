"""The trainings of a run: each with what has to be recorded before it and the stopping heads after it, as a job."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nogs.attention.methods import REFERENCE, STOPPING, method
from nogs.config.groups import Machine, Optimisation
from nogs.config.pipeline import Run
from nogs.config.stages import FitStopping, Record, Train
from nogs.config.table import stage_of
from nogs.config.tune import Tune
from nogs.engine import LOCAL, ray_tasks
from nogs.jobs import Job, run_jobs
from nogs.runs.device import choose_device
from nogs.runs.directory import RunDirectory
from nogs.runs.progress import Tick
from nogs.stages.fit_stopping import fit_stopping
from nogs.stages.record import record
from nogs.stages.train import train


class Trained(NamedTuple):
    """A training, the recording of another training that it needs, and the stopping heads that follow it."""

    training: Train
    record: Record | None
    stopping: FitStopping | None


def within(config: Run, place: type | str, *parts: str) -> Machine:
    """Return the machine of a stage whose run directory is that of a configuration class, or has the name ``place``."""
    directory = place if isinstance(place, str) else stage_of(place).directory
    return replace(config.machine, out=config.machine.out.joinpath(directory, *parts), resume=True)


def run_trainings(config: Run, trained: Sequence[Trained]) -> None:
    """Do all trainings of a run, side by side, on this machine or by Ray."""
    jobs = [job_of(one) for one in trained]
    if config.engine == LOCAL:
        run_jobs(jobs, at_once=at_once(config))
        return
    gpus = int(choose_device(config.machine.device).type == "cuda")
    workers = ray_tasks(config.engine, workers=config.jobs, gpus=gpus, directory=config.machine.out)
    run_jobs(jobs, at_once=config.jobs or len(jobs), workers=workers)


def at_once(config: Run | Tune) -> int:
    """Return the number of trainings at a time: ``jobs``, or one for each core, or one on an accelerator."""
    if config.jobs:
        return config.jobs
    return (os.cpu_count() or 1) if choose_device(config.machine.device).type == "cpu" else 1


def job_of(trained: Trained) -> Job:
    """Return a training as a job, which waits for the training that it learns from."""
    training = trained.training
    return Job(
        training.machine.out.name,
        partial(_train, trained),
        partial(progress_of, training.machine.out),
        total=training.optimisation.iterations,
        needs=trained.record.model.name if trained.record else None,
    )


def trained_by(config: Run, name: str, seed: int, searched: Path | None, path: Path | None) -> Trained:
    """Return the training of a method with one seed, with the sequences that the method's row names."""
    recorded = within(config, Record, f"{REFERENCE}-seed{seed}")
    teacher = within(config, Train, f"{REFERENCE}-seed{seed}").out
    sequences = {"none": None, "search": searched, "path": path, "record": recorded.out, "given": config.sequences}
    training = Train(
        within(config, Train, f"{name}-seed{seed}"),
        config.source,
        config.geometry,
        Optimisation(
            (config.reference_iterations or config.iterations) if name == REFERENCE else config.iterations,
            config.batch_size,
            config.learning_rate,
            config.validate_every,
            config.patience,
            seed,
            config.schedule,
            config.average,
        ),
        method=name,
        sequences=sequences[method(name).sequences],
        supervision=config.supervision,
        jitter=config.jitter,
        network=config.network,
        gains=config.gains,
    )
    records = method(name).sequences == "record"
    stops = FitStopping(within(config, FitStopping, f"{name}-seed{seed}"), training.machine.out)
    return Trained(
        training,
        Record(recorded, teacher, annotate=config.annotate) if records else None,
        stops if config.stopping and name == STOPPING and config.geometry.glimpses > 1 else None,
    )


def _train(trained: Trained, tick: Tick) -> None:
    """Do a training, what has to be recorded before it, and its stopping heads. ``tick``: progress of the training."""
    if trained.record:
        record(trained.record, tick=_no_progress)
    train(trained.training, tick=tick)
    if trained.stopping:
        fit_stopping(trained.stopping, tick=_no_progress)


def _no_progress(done: int, note: str) -> None:
    """Ignore the progress of a part that has no bar of its own."""


def progress_of(out: Path) -> tuple[int, str]:
    """Return the iterations of a training so far and a note on its loss, from its log."""
    rows = RunDirectory(out).rows()
    if not rows:
        return 0, ""
    best = min(rows, key=lambda row: row["nll_nats"])
    return rows[-1]["iteration"], f"val {rows[-1]['nll_nats']:.3f} (best {best['nll_nats']:.3f})"
