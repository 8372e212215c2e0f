"""A run directory: config.json, provenance.json, log.jsonl, safetensors, and COMPLETE written last.

Every file is written whole (`nogs.runs.files`). The log is the one file that grows; a torn last line is dropped when
it is read. `RunDirectory.config` has absolute paths (`nogs.runs.paths`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nogs.errors import UserError
from nogs.runs.files import check_regular, damaged, file_hash, parse_object, read_object, read_rows, write_whole
from nogs.runs.identity import as_json, first_difference, from_json
from nogs.runs.lock import lock, unlock
from nogs.runs.marker import MARKER, check, check_all, entries, write_marker
from nogs.runs.paths import absolute, movable
from nogs.runs.provenance import environment, now

Config = TypeVar("Config")


class RunDirectory:
    """The directory of one stage. ``open_run`` opens it for writing, ``read_run`` as a finished input.

    Reading a file raises UserError if it is missing or damaged. Files of a finished run are compared with the checksums
    in COMPLETE first.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def complete(self) -> bool:
        return (self.path / MARKER).exists()

    @property
    def exists(self) -> bool:
        return self.complete or (self.path / "config.json").exists()

    @property
    def config(self) -> dict[str, Any]:
        """config.json with absolute paths."""
        home = self.path.absolute()
        return absolute(read_object(self._checked("config.json")), home)

    def config_as(self, kind: type[Config]) -> Config:
        """Return config.json as the dataclass ``kind`` of its stage. Raises UserError if it does not fit."""
        content = self.config
        content.pop("stage", None)
        try:
            return from_json(kind, content)
        except UserError as error:
            raise damaged(self.path / "config.json", f"is no configuration of this version: {error}") from None

    @property
    def stage(self) -> str:
        """Name of the stage in config.json; empty if it has none."""
        return str(self.config.get("stage", ""))

    @property
    def provenance(self) -> dict[str, Any]:
        """provenance.json: versions, commit, machine, inputs and times."""
        return self.load_json("provenance.json")

    def log(self, **row: object) -> None:
        """Append one row to log.jsonl."""
        with (self.path / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of log.jsonl so far, without a last line torn by a kill; none if nothing is logged."""
        return read_rows(self._checked("log.jsonl")) if self._holds("log.jsonl") else []

    def rewind_log(self, iteration: int) -> list[dict[str, Any]]:
        """Drop the rows after ``iteration``, which a resumed run writes again; return the others."""
        rows = self.rows()
        if not all(isinstance(row.get("iteration"), int) for row in rows):
            raise damaged(self.path / "log.jsonl", "is damaged, a row has no iteration")
        kept = [row for row in rows if row["iteration"] <= iteration]
        self._write("log.jsonl", "".join(json.dumps(row) + "\n" for row in kept).encode())
        return kept

    def load_json(self, name: str) -> dict[str, Any]:
        return read_object(self._checked(name))

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
        """Return whether ``name``.safetensors was written. In a finished run it may have been lost since."""
        return self._holds(f"{name}.safetensors")

    def load_tensors(self, name: str, *, keys: Collection[str] | None = None) -> dict[str, Tensor]:
        """Return the tensors of ``name``.safetensors, or those of ``keys`` alone."""
        with self._safetensors(name) as file:
            return {key: file.get_tensor(key) for key in file.keys() if keys is None or key in keys}  # noqa: SIM118

    def load_metadata(self, name: str) -> dict[str, Any]:
        """Return the metadata that ``save_tensors`` wrote."""
        with self._safetensors(name) as file:
            content = (file.metadata() or {}).get("nogs", "")
        return parse_object(self.path / f"{name}.safetensors", content.encode())

    def shapes(self, name: str) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor of ``name``.safetensors, read from its header alone."""
        with self._safetensors(name) as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118

    def types(self, name: str) -> dict[str, str]:
        """Return the type of each tensor of ``name``.safetensors as in its header, such as F32."""
        with self._safetensors(name) as file:
            return {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118

    def hash_of(self, name: str) -> str:
        """Return the SHA-256 of a file of the run in hexadecimal. Raises UserError if it is missing or damaged."""
        return file_hash(self._checked(name))

    def finish(self, **provenance: object) -> None:
        """Add ``provenance`` to provenance.json, then write the marker that makes the run an input for others."""
        self.save_json("provenance.json", {**self.provenance, **provenance, "finished": now()})
        write_marker(self.path)
        unlock(self.path)

    def check(self) -> None:
        """Raise UserError unless this run and the runs within it are finished and undamaged (`marker.check_all`)."""
        for directory in sorted({file.parent for name in (MARKER, "config.json") for file in self.path.rglob(name)}):
            check_all(directory)

    def _write(self, name: str, content: bytes) -> None:
        write_whole(self.path / name, content)

    def _holds(self, name: str) -> bool:
        return name in entries(self.path) if self.complete else (self.path / name).exists()

    def _checked(self, name: str) -> Path:
        """Return the path of a file. Raises UserError if it is missing, or not what a finished run had written."""
        file = self.path / name
        if self.complete:
            check(file)
        else:
            check_regular(file)
        return file

    @contextmanager
    def _safetensors(self, name: str) -> Iterator[safe_open]:
        file = self._checked(f"{name}.safetensors")
        try:
            with safe_open(file, "pt") as opened:
                yield opened
        except SafetensorError:
            raise damaged(file, "is damaged, its tensors cannot be read") from None


def open_run(path: Path, stage: str, config: Any, *, resume: bool) -> RunDirectory:
    """Start the run directory of a stage, or continue it.

    ``config`` is the stage's frozen dataclass. Raises UserError if the directory holds files that are not a run's, a
    run without ``resume``, or a run of another stage or configuration; and if another process is writing it.
    """
    run = RunDirectory(path)
    wanted = {"stage": stage, **as_json(config)}
    _refuse_others(run, wanted, resume=resume)
    if not run.exists:
        path.mkdir(parents=True, exist_ok=True)
        lock(path)
        run.save_json("provenance.json", {"started": now(), **environment()})
        # Last, because config.json is what makes this a run directory.
        run.save_json("config.json", movable(wanted, path.absolute()))
    elif not run.complete:
        if (path / "log.jsonl").exists():
            run.save_text("log.jsonl", "".join(f"{json.dumps(row)}\n" for row in run.rows()))
        known = run.provenance
        resumed = known.get("resumed")
        earlier = resumed if isinstance(resumed, list) else []
        run.save_json("provenance.json", {**known, "resumed": [*earlier, now()]})
    return run


def finished_run(path: Path, stage: str, config: Any, *, resume: bool) -> RunDirectory | None:
    """Return the run directory if the run is complete, else None. Raises UserError as ``open_run`` does.

    Writes nothing. A stage calls this first, then reads its input, and calls ``open_run`` once the input is valid, so
    that a mistake leaves no directory behind.
    """
    run = RunDirectory(path)
    _refuse_others(run, {"stage": stage, **as_json(config)}, resume=resume)
    if not run.complete:
        return None
    run.check()
    return run


def read_run(path: Path, stage: str) -> RunDirectory:
    """Open a finished run directory as input. Raises UserError if it is missing, unfinished or of another stage."""
    run = RunDirectory(path)
    if not run.exists:
        raise UserError(f"{path} is not a run directory of {_command(stage)}: it has no config.json")
    if run.stage != stage:
        raise UserError(f"{path} is a run directory of {_command(run.stage)}, not of {_command(stage)}")
    if not run.complete:
        raise UserError(f"{path} is not finished: run its {_command(stage)} again with resume=True")
    return run


def _command(stage: str) -> str:
    """Return the command of a stage, for error texts."""
    return f"`nogs {stage}`"


def _refuse_others(run: RunDirectory, wanted: dict[str, Any], *, resume: bool) -> None:
    path = run.path
    nearest = next(place for place in (path, *path.parents) if place.exists())
    if not nearest.is_dir():
        where = "" if nearest == path else f": {nearest}"
        raise UserError(f"out={path}{where} is a file: choose a directory")
    if run.exists:
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
