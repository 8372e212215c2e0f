"""`nogs bench`: each method on each task, as one run directory of `nogs run` for each task, then a table and a plot.

Tasks are tables of a TOML file, and each holds options of `nogs run`. A task's run directory is ``out``/NAME, so a
bench that was stopped goes on where it ended, and one with more tasks, methods, seeds or iterations computes what is
missing.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from nogs.config.bench import Bench
from nogs.config.groups import Machine
from nogs.config.pipeline import Run
from nogs.config.stages import Evaluate, Train
from nogs.config.table import stage_of
from nogs.errors import RunError, UserError
from nogs.evaluation.bench import SCHEMA, BenchResults, BenchTask, bench_task
from nogs.evaluation.inputs import seconds_before
from nogs.evaluation.schema import Results, read_results
from nogs.evaluation.typed_json import to_json
from nogs.pipeline import check, run
from nogs.report.bench_page import build_bench
from nogs.runs.directory import RunDirectory, open_run
from nogs.runs.identity import as_json, from_json
from nogs.runs.lock import lock
from nogs.runs.marker import MARKER
from nogs.runs.paths import movable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BUILT_IN = "bench.toml"
"""File of the built-in tasks, in `nogs.config`."""
COMMON = ("machine", "source", "geometry", "methods", "seeds", "jobs")
"""Fields of `Run` that a task cannot set: those of the bench, and groups, whose options a task sets by their names."""
PATHS = ("posterior", "bank", "sequences")
"""Options whose values are paths, relative to the file of tasks, as that of ``data``."""


def bench(config: Bench) -> RunDirectory:
    """Run every method on every task; leave bench.json and bench.html in the directory.

    Raises UserError for an invalid task before anything is trained. Errors name the task.
    """
    runs = {name: _run_of(config, name, options) for name, options in read_tasks(config.tasks).items()}
    for name, one in runs.items():
        with _naming(name):
            check(one)
    directory = _opened(config)
    tasks = {}
    for number, (name, one) in enumerate(runs.items(), 1):
        print(f"task {number} of {len(runs)}: {name}", file=sys.stderr)
        with _naming(name):
            tasks[name] = _task_of(run(one), one)
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
    for name in tables:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise UserError(f"{path}: task {name!r} names a directory: use letters, digits, dots, dashes, underscores")
    folder = path.absolute().parent if path else Path.cwd()
    return {name: _located({**common, **table}, folder) for name, table in tables.items()}


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
    plain = as_json(Run(machine, methods=config.methods, seeds=config.seeds, jobs=config.jobs))
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
