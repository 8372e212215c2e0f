"""`nogs bench`: each method on each task, as one run directory of `nogs run` for each task, then a table and a plot.

Tasks are tables of a TOML file, and each holds options of `nogs run`. A task's run directory is ``out``/NAME, so a
bench that was stopped goes on where it ended, and one with more tasks, methods, seeds or iterations computes what is
missing. The task "*" stands for every label of a multi-label set, with one posterior and one bank for all of them.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from nogs.config.bench import Bench
from nogs.config.groups import Machine
from nogs.config.pipeline import Run
from nogs.config.stages import Evaluate, Train
from nogs.config.table import stage_of
from nogs.data import load
from nogs.errors import RunError, UserError
from nogs.evaluation.bench import SCHEMA, BenchResults, BenchTask, bench_task
from nogs.evaluation.inputs import seconds_before
from nogs.evaluation.schema import Results, read_results
from nogs.evaluation.typed_json import to_json
from nogs.pipeline import bank_of, check, needs_search, posterior_of, run
from nogs.report.bench_page import accuracies_of, build_bench
from nogs.runs.directory import RunDirectory, open_run
from nogs.runs.identity import as_json, from_json
from nogs.runs.lock import lock
from nogs.runs.marker import MARKER
from nogs.runs.paths import movable
from nogs.stages.build_bank import build_bank
from nogs.stages.fit_posterior import fit_posterior

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BUILT_IN = "bench.toml"
"""File of the built-in tasks, in `nogs.config`."""
COMMON = ("machine", "source", "geometry", "methods", "seeds", "jobs")
"""Fields of `Run` that a task cannot set: those of the bench, and groups, whose options a task sets by their names."""
EVERY_LABEL = "*"
"""Value of ``task`` that stands for all labels, each a task of its own."""
PATHS = ("posterior", "bank", "sequences")
"""Options whose values are paths, relative to the file of tasks, as that of ``data``."""


class Planned(NamedTuple):
    """The run of a task. ``whole``: the same run of all labels, if the task is one of them."""

    run: Run
    whole: Run | None = None


def bench(config: Bench) -> RunDirectory:
    """Run every method on every task; leave bench.json and bench.html in the directory, written anew after each task.

    Raises UserError for an invalid task before anything is trained. Errors name the task.
    """
    planned = _planned(config)
    for name, task in planned.items():
        with _naming(name):
            check(task.run)
    directory = _opened(config)
    tasks: dict[str, BenchTask] = {}
    for number, (name, task) in enumerate(planned.items(), 1):
        print(f"task {number} of {len(planned)}: {name}", file=sys.stderr)
        with _naming(name):
            one = _with_shared(task)
            tasks[name] = _task_of(run(one), one)
        print(accuracies_of(tasks[name]), file=sys.stderr)
        results = BenchResults(SCHEMA, tasks)
        directory.save_json("bench.json", to_json(results))
        directory.save_text("bench.html", build_bench(results, directory.provenance).html)
    directory.finish()
    return directory


def read_tasks(path: Path | None) -> dict[str, dict[str, Any]]:
    """Return name → options of each task, those at the top of the file included. None: the built-in tasks."""
    try:
        text = (path or files("nogs.config") / BUILT_IN).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8: save it as such") from None
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not TOML: {error}") from None
    tables = {name: table for name, table in content.items() if isinstance(table, dict)}
    common = {name: value for name, value in content.items() if name not in tables}
    if not tables:
        raise UserError(f"{path} has no task: give each a table, as in [needles], with options of `nogs run`")
    folder = path.absolute().parent if path else Path.cwd()
    return {name: _located({**common, **table}, folder) for name, table in tables.items()}


def _planned(config: Bench) -> dict[str, Planned]:
    """Return name → run of each task, with "*" replaced by all labels of its images."""
    planned: dict[str, Planned] = {}
    for name, options in read_tasks(config.tasks).items():
        if options.get("task") != EVERY_LABEL:
            of_table = {name: Planned(_run_of(config, name, options))}
        else:
            whole = _run_of(config, name, {**options, "task": None})
            with _naming(name):
                data = load(whole.source)
                if not data.multilabel:
                    raise UserError(f"task={EVERY_LABEL}: these images have one label only; leave it out")
            names = {label: f"{name}-{label}" for label in data.classes}
            of_table = {
                of: Planned(_run_of(config, of, {**options, "task": label}), whole) for label, of in names.items()
            }
        for of in of_table:
            if not re.fullmatch(r"\w[\w.-]*", of):
                raise UserError(
                    f"{config.tasks}: task {of!r} names a directory: use letters, digits, dots, dashes, underscores"
                )
            if of in planned:
                raise UserError(f"{config.tasks}: two tasks have the name {of}: rename a table")
        planned |= of_table
    return planned


def _with_shared(task: Planned) -> Run:
    """Return the run of a task, with the posterior and the bank that all labels share, made if they are not there."""
    one, whole = task
    if whole is None or not needs_search(one):
        return one
    posterior = one.posterior or fit_posterior(posterior_of(whole)).path
    bank = one.bank or build_bank(bank_of(whole)).path
    return replace(one, posterior=posterior, bank=bank)


def _located(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return options with underscores in their names, and relative paths resolved against ``folder``."""
    located = {key.replace("-", "_"): value for key, value in options.items()}
    for key in ("data", *PATHS):
        kind, colon, place = str(located.get(key, "")).rpartition(":") if key == "data" else ("", "", located.get(key))
        if place and (colon or key != "data") and not str(place).startswith("~"):
            located[key] = f"{kind}{colon}{folder / str(place)}"
    return located


def _run_of(config: Bench, name: str, options: Mapping[str, Any]) -> Run:
    """Return the run of one task. Raises UserError for an option that `nogs run` does not have, or a wrong value."""
    machine = Machine(config.machine.out / name, resume=True, device=config.machine.device)
    plain = as_json(Run(machine, methods=config.methods, seeds=config.seeds, engine=config.engine, jobs=config.jobs))
    places = {key: part for part in (plain["source"], plain["geometry"], plain) for key in part if key not in COMMON}
    given = options if config.iterations is None else {**options, "iterations": config.iterations}
    with _naming(name):
        for key, value in given.items():
            if key in ("methods", "seeds", "jobs"):
                raise UserError(f"{key} is the same for all tasks: give `{key}` to `nogs bench`")
            if key not in places:
                close = difflib.get_close_matches(key, places, n=1)
                raise UserError(f"{key} is no option of `nogs run`" + (f"; did you mean {close[0]}?" if close else ""))
            places[key][key] = value
        return from_json(Run, plain)


@contextmanager
def _naming(task: str) -> Iterator[None]:
    """Begin errors within the context with the name of the task."""
    try:
        yield
    except (UserError, RunError) as error:
        raise type(error)(f"task {task}: {error}") from None


def _opened(config: Bench) -> RunDirectory:
    """Open the directory. A resumed bench takes this configuration: each task's run refuses what cannot change."""
    path = config.machine.out
    earlier = RunDirectory(path)
    if config.machine.resume and earlier.exists and earlier.stage == stage_of(Bench).name:
        lock(path)
        (path / MARKER).unlink(missing_ok=True)
        wanted = {"stage": stage_of(Bench).name, **as_json(config)}
        earlier.save_json("config.json", movable(wanted, path.absolute()))
    return open_run(path, stage_of(Bench).name, config, resume=config.machine.resume)


def _task_of(done: RunDirectory, config: Run) -> BenchTask:
    """Return the figures of a finished task, with the validations of its trainings."""
    trained = {
        name: [RunDirectory(done.path / stage_of(Train).directory / f"{name}-seed{seed}") for seed in config.seeds]
        for name in config.methods
    }
    pictured = RunDirectory(done.path / stage_of(Evaluate).directory).load_metadata("answers")
    return bench_task(
        read_results(done, Results),
        {name: [one.rows() for one in seeds] for name, seeds in trained.items()},
        {name: seconds_before(seeds[0]) for name, seeds in trained.items()},
        image_px=pictured["grid"]["image_px"],
    )
