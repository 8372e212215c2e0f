"""The runs that an evaluation reads: checked to belong together, and timed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nogs.attention.methods import JOINT, method
from nogs.errors import UserError
from nogs.evaluation.seconds import Before, wall_seconds
from nogs.runs.directory import RunDirectory, read_run
from nogs.runs.identity import first_difference


def check_alike(trained: Sequence[RunDirectory], searched: RunDirectory | None, fitted: RunDirectory | None) -> None:
    """Check that all networks have the same images, task and grid, and that no method has a seed twice.

    ``trained``: train runs; ``searched``: the search run; ``fitted``: its fit-posterior run. Without a search the first
    network decides.
    """
    if not trained:
        raise UserError("`models`: give at least one run of `nogs train`")
    source, than = trained[0].config["source"], str(trained[0].path)
    if searched and fitted:
        task = searched.config["task"] or fitted.config["source"]["task"]
        source, than = {**fitted.config["source"], "task": task}, "`sequences`"
    names: dict[tuple[str, int], Path] = {}
    for run in trained:
        if difference := first_difference(source, run.config["source"]):
            raise UserError(f"models={run.path} was trained with another {difference} than {than}")
        key = run.config["method"], run.config["optimisation"]["seed"]
        if key in names:
            raise UserError(f"models={names[key]} and {run.path} are both {key[0]} with seed {key[1]}: give one")
        names[key] = run.path


def stopping_runs(paths: Sequence[Path], trained: Sequence[RunDirectory]) -> dict[Path, RunDirectory]:
    """Return path of train run → its fit-stopping run. All are of one method and were fitted with the same costs."""
    networks = {run.hash_of("model.safetensors"): run for run in trained} if paths else {}
    fits: dict[Path, RunDirectory] = {}
    for path in paths:
        fitted = read_run(path, "fit-stopping")
        meta = fitted.load_metadata("model")
        if meta["network"] not in networks:
            raise UserError(f"stopping={path} was fitted on {fitted.config['model']}: add that to `models`")
        fits[networks[meta["network"]].path] = fitted
    methods = {run.config["method"] for run in trained if run.path in fits}
    if len(methods) > 1:
        raise UserError(f"`stopping` has runs on {' and '.join(sorted(methods))}: give those of one method")
    if len({tuple(run.config["costs"]) for run in fits.values()}) > 1:
        raise UserError("`stopping` has runs with different `costs`: fit all seeds with the same")
    return fits


def halting_runs(paths: Sequence[Path], fits: Mapping[Path, RunDirectory]) -> dict[int, list[RunDirectory]]:
    """Return seed → its train runs of method act, in the order of their costs.

    ``fits``: path of train run → its fit-stopping run. Both have the same seeds, images and geometry.
    """
    by_seed: dict[int, list[RunDirectory]] = {}
    for path in paths:
        run = read_run(path, "train")
        if run.config["method"] != JOINT:
            raise UserError(f"halting={path} was trained by {run.config['method']}: give runs of method {JOINT}")
        by_seed.setdefault(run.config["optimisation"]["seed"], []).append(run)
    stopped = {run.config["optimisation"]["seed"]: run for run in (read_run(path, "train") for path in fits)}
    if paths and by_seed.keys() != stopped.keys():
        raise UserError(
            f"`halting` has seeds {_listed(by_seed)}, and `stopping` {_listed(stopped)}: give the same seeds"
        )
    for seed, runs in by_seed.items():
        runs.sort(key=lambda run: run.config["halting_cost"])
        for run in runs:
            for group in ("source", "geometry"):
                if difference := first_difference(stopped[seed].config[group], run.config[group]):
                    raise UserError(f"halting={run.path} was trained with another {difference} than `stopping`")
    costs = {tuple(run.config["halting_cost"] for run in runs) for runs in by_seed.values()}
    if len(costs) > 1 or any(len(set(of_seed)) < len(of_seed) for of_seed in costs):
        raise UserError("`halting` needs the same costs for each seed, each once")
    return by_seed


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(seeds))) or "none"


def seconds_before(trained: RunDirectory) -> Before | None:
    """Return the seconds of each run that a training needs before it; None if they were made elsewhere or are gone."""
    if method(trained.config["method"]).sequences == "none":
        return {}
    learned = RunDirectory(Path(trained.config["sequences"]))
    how = learned.config if learned.complete else {"stage": "gone"}
    if how["stage"] == "search":
        paths = {"posterior": how["posterior"], "bank": how["bank"], "search": learned.path}
    elif how["stage"] == "record":
        paths = {"teacher": how["model"], "recording": learned.path}
    else:
        return None
    runs = {part: RunDirectory(Path(path)) for part, path in paths.items()}
    if not all(run.complete for run in runs.values()):
        return None
    return {part: wall_seconds(run.rows(), run.provenance) for part, run in runs.items()}
