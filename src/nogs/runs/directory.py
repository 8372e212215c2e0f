"""A run directory: config.json, provenance.json, log.jsonl, safetensors, and COMPLETE written last.

Every file is written whole (`nogs.runs.files`). The log is the one file that grows; a torn last line is dropped when
it is read. `RunDirectory.config` has absolute paths (`nogs.runs.paths`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from nogs.config.table import command_of
from nogs.errors import UserError
from nogs.runs.files import whole_lines, write_whole
from nogs.runs.identity import as_json, first_difference
from nogs.runs.lock import lock, unlock
from nogs.runs.paths import absolute, movable
from nogs.runs.provenance import environment, now

MARKER = "COMPLETE"


class RunDirectory:
    """The directory of one stage. ``open_run`` opens it for writing, ``read_run`` as a finished input."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def complete(self) -> bool:
        return (self.path / MARKER).exists()

    @property
    def config(self) -> dict[str, Any]:
        """config.json with absolute paths."""
        home = self.path.absolute()
        return absolute(json.loads((home / "config.json").read_text()), home)

    def log(self, **row: object) -> None:
        """Append one row to log.jsonl."""
        with (self.path / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of log.jsonl so far, without a last line torn by a kill."""
        file = self.path / "log.jsonl"
        return [json.loads(line) for line in whole_lines(file)] if file.exists() else []

    def rewind_log(self, iteration: int) -> list[dict[str, Any]]:
        """Drop the rows after ``iteration``, which a resumed run writes again; return the others."""
        kept = [row for row in self.rows() if row["iteration"] <= iteration]
        self._write("log.jsonl", "".join(json.dumps(row) + "\n" for row in kept).encode())
        return kept

    def save_json(self, name: str, content: object) -> None:
        self._write(name, (json.dumps(content, indent=1) + "\n").encode())

    def save_text(self, name: str, content: str) -> None:
        self._write(name, content.encode())

    def save_tensors(self, name: str, tensors: Mapping[str, Tensor], **metadata: object) -> None:
        """Write tensors and JSON metadata to ``name``.safetensors. The same content gives the same bytes.

        All metadata is one entry, because safetensors writes several entries in random order.
        """
        contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        self._write(f"{name}.safetensors", save(contiguous, metadata={"nogs": json.dumps(metadata)}))

    def has(self, name: str) -> bool:
        return (self.path / f"{name}.safetensors").exists()

    def load_tensors(self, name: str) -> dict[str, Tensor]:
        with safe_open(self.path / f"{name}.safetensors", "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)

    def load_metadata(self, name: str) -> dict[str, Any]:
        with safe_open(self.path / f"{name}.safetensors", "pt") as file:
            return json.loads(file.metadata()["nogs"])

    def finish(self, **provenance: object) -> None:
        """Add ``provenance`` to provenance.json, then write the marker that makes the run an input for others."""
        known = json.loads((self.path / "provenance.json").read_text())
        self.save_json("provenance.json", {**known, **provenance, "finished": now()})
        self._write(MARKER, b"")
        unlock(self.path)

    def _write(self, name: str, content: bytes) -> None:
        write_whole(self.path / name, content)


def open_run(path: Path, stage: str, config: Any, *, resume: bool) -> RunDirectory:
    """Start the run directory of a stage, or continue it.

    ``config`` is the stage's frozen dataclass. Raises UserError if the directory holds files that are not a run's, a
    run without ``resume``, or a run of another stage or configuration; and if another process is writing it.
    """
    run = RunDirectory(path)
    wanted = {"stage": stage, **as_json(config)}
    _refuse_others(run, wanted, resume=resume)
    if not (path / "config.json").exists():
        path.mkdir(parents=True, exist_ok=True)
        lock(path)
        run.save_json("provenance.json", {"started": now(), **environment()})
        # Last, because config.json is what makes this a run directory.
        run.save_json("config.json", movable(wanted, path.absolute()))
    elif not run.complete:
        if (path / "log.jsonl").exists():
            run.save_text("log.jsonl", "".join(f"{line}\n" for line in whole_lines(path / "log.jsonl")))
        known = json.loads((path / "provenance.json").read_text())
        run.save_json("provenance.json", {**known, "resumed": [*known.get("resumed", []), now()]})
    return run


def finished_run(path: Path, stage: str, config: Any, *, resume: bool) -> RunDirectory | None:
    """Return the run directory if the run is complete, else None. Raises UserError as ``open_run`` does.

    Writes nothing. A stage calls this first, then reads its input, and calls ``open_run`` once the input is valid, so
    that a mistake leaves no directory behind.
    """
    run = RunDirectory(path)
    _refuse_others(run, {"stage": stage, **as_json(config)}, resume=resume)
    return run if run.complete else None


def extend_run(path: Path, stage: str, config: Any, *, by: tuple[str, ...], outdated: tuple[str, ...]) -> None:
    """Replace a run's configuration by ``config`` if that only adds to the fields ``by`` (more items of a list).

    The directories ``outdated`` within the run are removed, because they were made from all items. Nothing happens if
    any other field differs; ``open_run`` then raises. A kill leaves the old configuration or the new.
    """
    run = RunDirectory(path)
    if not (path / "config.json").exists() or run.config["stage"] != stage:
        return
    had, wanted = run.config, {"stage": stage, **as_json(config)}
    if first_difference({**had, **{field: wanted[field] for field in by}}, wanted):
        return
    if all(had[field] == wanted[field] for field in by) or not all(_holds(wanted[key], had[key]) for key in by):
        return
    lock(path)
    (path / MARKER).unlink(missing_ok=True)
    for name in outdated:
        shutil.rmtree(path / name, ignore_errors=True)
    run.save_json("config.json", movable(wanted, path.absolute()))


def _holds(wanted: Any, had: Any) -> bool:
    """Return whether a list has all items of another, or a switch that was on is still on."""
    return set(had) <= set(wanted) if isinstance(had, list) else wanted >= had


def read_run(path: Path, stage: str) -> RunDirectory:
    """Open a finished run directory as input. Raises UserError if it is missing, unfinished or of another stage."""
    run = RunDirectory(path)
    if not (path / "config.json").exists():
        raise UserError(f"{path} is not a run directory of {_command(stage)}: it has no config.json")
    if run.config["stage"] != stage:
        raise UserError(f"{path} is a run directory of {_command(run.config['stage'])}, not of {_command(stage)}")
    if not run.complete:
        raise UserError(f"{path} is not finished: run its {_command(stage)} again with resume=True")
    return run


def _command(stage: str) -> str:
    """Return the command of a stage, for error texts."""
    return f"`nogs {command_of(stage)}`"


def _refuse_others(run: RunDirectory, wanted: dict[str, Any], *, resume: bool) -> None:
    path = run.path
    nearest = next(place for place in (path, *path.parents) if place.exists())
    if not nearest.is_dir():
        where = "" if nearest == path else f": {nearest}"
        raise UserError(f"out={path}{where} is a file: choose a directory")
    if (path / "config.json").exists():
        if not run.complete:
            lock(path)
        if not resume:
            raise UserError(f"out={path} holds another run: add resume=True to go on with it, or choose another")
        difference = first_difference(run.config, wanted)
        if difference:
            raise UserError(f"out={path} holds another run, which differs in {difference}: choose another `out`")
    elif path.is_dir():
        for entry in path.iterdir():
            if entry.suffix != ".partial" and entry.name != "provenance.json":
                raise UserError(f"out={path} holds files that are not a run's ({entry.name}): choose an empty one")
    if not run.complete and not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"out={path}: no permission to write in {nearest}; choose another place")
