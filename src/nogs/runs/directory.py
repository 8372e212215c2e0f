"""A run directory: config.json, provenance.json, log.jsonl, safetensors, and COMPLETE written last.

Every file is written whole to a neighbour and renamed, so that a kill at any moment leaves each file
either old or new. The log is the one file that grows; a torn last line is dropped when it is read.

In config.json the paths of runs of the same pipeline are relative to the run's own directory ("../posterior"), so
that a pipeline can be moved as a whole; all other paths, that of the data among them, are absolute. Whoever reads
a `RunDirectory.config` gets absolute paths.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from nogs.errors import UserError
from nogs.runs.provenance import environment, now

MARKER = "COMPLETE"
NOT_IDENTITY = ("machine", "jobs")
"""Fields of a config that say where a run happens, not what it is: they may change at --resume."""
_LOCKED: dict[tuple[int, int], int] = {}
"""Directories that this process has locked, by device and inode. A lock is the process's, as the operating system
has it: a stage that failed and is called again, from a notebook say, is not in its own way."""


class RunDirectory:
    """One stage's directory, open for writing. Make it with ``open_run``, read others with ``read_run``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def complete(self) -> bool:
        return (self.path / MARKER).exists()

    @property
    def config(self) -> dict[str, Any]:
        """config.json, its paths made absolute."""
        home = self.path.absolute()

        def absolute(value: str) -> str:
            return os.path.normpath(home / value) if value.startswith("../") else value

        return _each_string(json.loads((home / "config.json").read_text()), absolute)

    def log(self, **row: object) -> None:
        """Append one row to log.jsonl."""
        with (self.path / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """The rows logged so far; a last line torn by a kill is left out."""
        file = self.path / "log.jsonl"
        return [json.loads(line) for line in _whole_lines(file)] if file.exists() else []

    def rewind_log(self, iteration: int) -> list[dict[str, Any]]:
        """Drop the rows that a resumed run will write again; return the ones that stay."""
        kept = [row for row in self.rows() if row["iteration"] <= iteration]
        self._write("log.jsonl", "".join(json.dumps(row) + "\n" for row in kept).encode())
        return kept

    def save_json(self, name: str, content: object) -> None:
        self._write(name, (json.dumps(content, indent=1) + "\n").encode())

    def save_text(self, name: str, content: str) -> None:
        self._write(name, content.encode())

    def save_tensors(self, name: str, tensors: Mapping[str, Tensor], **metadata: object) -> None:
        """Write tensors to ``name``.safetensors, and metadata as JSON: the same content is the same bytes.

        One entry holds all metadata, for safetensors writes several in an order of chance.
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
        """Add to provenance.json, then write the marker that makes this directory an input for others."""
        known = json.loads((self.path / "provenance.json").read_text())
        self.save_json("provenance.json", {**known, **provenance, "finished": now()})
        self._write(MARKER, b"")
        _unlock(self.path)

    def _write(self, name: str, content: bytes) -> None:
        partial = self.path / f"{name}.partial"
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path / name)
        except OSError:  # a disk that is full: make room at least for what comes to say so
            partial.unlink(missing_ok=True)
            raise


def open_run(path: Path, stage: str, config: Any, *, resume: bool) -> RunDirectory:
    """Start the run directory of a stage, or go on with it.

    ``config`` is the stage's frozen dataclass. Raises UserError if the directory holds anything else: files
    that are not a run's, a run without ``resume``, or a run of another stage or configuration; and if another
    process is writing it.
    """
    run = RunDirectory(path)
    wanted = {"stage": stage, **as_json(config)}
    _refuse_others(run, wanted, resume=resume)
    if not (path / "config.json").exists():
        path.mkdir(parents=True, exist_ok=True)
        _lock(path)
        run.save_json("provenance.json", {"started": now(), **environment()})
        run.save_json("config.json", _movable(wanted, path.absolute()))  # last: its presence makes this a run directory
    elif not run.complete:
        if (path / "log.jsonl").exists():
            run.save_text("log.jsonl", "".join(f"{line}\n" for line in _whole_lines(path / "log.jsonl")))
        known = json.loads((path / "provenance.json").read_text())
        run.save_json("provenance.json", {**known, "resumed": [*known.get("resumed", []), now()]})
    return run


def finished_run(path: Path, stage: str, config: Any, *, resume: bool) -> RunDirectory | None:
    """The run directory if nothing is left to do in it, else None. Raises UserError as ``open_run`` does.

    Writes nothing: a stage asks this first, reads its input, and opens its run when all of it was right, so
    that a mistake leaves no directory behind.
    """
    run = RunDirectory(path)
    _refuse_others(run, {"stage": stage, **as_json(config)}, resume=resume)
    return run if run.complete else None


def extend_run(path: Path, stage: str, config: Any, *, by: tuple[str, ...], outdated: tuple[str, ...]) -> None:
    """Have a run be one of more, where ``config`` asks for all that it has of the fields ``by``, and for more of them.

    What was made of all of them, the directories ``outdated``, is removed; nothing happens if anything else differs,
    for ``open_run`` to say so. Killed at any moment, the run is still one of the old configuration or of the new.
    """
    run = RunDirectory(path)
    if not (path / "config.json").exists() or run.config["stage"] != stage:
        return
    had, wanted = run.config, {"stage": stage, **as_json(config)}
    if first_difference({**had, **{field: wanted[field] for field in by}}, wanted):
        return
    if all(had[field] == wanted[field] for field in by) or not all(_holds(wanted[key], had[key]) for key in by):
        return
    _lock(path)
    (path / MARKER).unlink(missing_ok=True)
    for name in outdated:
        shutil.rmtree(path / name, ignore_errors=True)
    run.save_json("config.json", _movable(wanted, path.absolute()))


def _holds(wanted: Any, had: Any) -> bool:
    """Whether a list has all items of another, or a switch that was on is on."""
    return set(had) <= set(wanted) if isinstance(had, list) else wanted >= had


def read_run(path: Path, stage: str) -> RunDirectory:
    """Open a finished run directory as input. Raises UserError if missing, unfinished or another kind."""
    run = RunDirectory(path)
    if not (path / "config.json").exists():
        raise UserError(f"{path} is not a run directory of {_command(stage)}: it has no config.json")
    if run.config["stage"] != stage:
        raise UserError(f"{path} is a run directory of {_command(run.config['stage'])}, not of {_command(stage)}")
    if not run.complete:
        raise UserError(f"{path} is not finished: run its {_command(stage)} again with --resume")
    return run


def _command(stage: str) -> str:
    """The command that a stage is typed as."""
    return "`nogs sequences import`" if stage == "import" else f"`nogs {stage}`"


def as_json(config: Any) -> dict[str, Any]:
    """A config dataclass as plain JSON values; paths, that in a --data SPEC among them, become absolute strings."""
    plain = json.loads(json.dumps(dataclasses.asdict(config), default=os.path.abspath))
    for part in (plain, *(value for value in plain.values() if isinstance(value, dict))):
        kind, _, place = str(part.get("data", "")).partition(":")
        if place and not place.startswith("~"):
            part["data"] = f"{kind}:{os.path.normpath(Path(place).absolute())}"
    return plain


def first_difference(had: dict[str, Any], wanted: dict[str, Any]) -> str | None:
    """The flag in which two configurations differ, with both values; None if it is only where they run."""
    for key in [*wanted, *(k for k in had if k not in wanted)]:
        if key in NOT_IDENTITY or had.get(key) == wanted.get(key):
            continue
        if isinstance(had.get(key), dict) and isinstance(wanted.get(key), dict):
            if nested := first_difference(had[key], wanted[key]):
                return nested
            continue
        return f"--{key.replace('_', '-')} (had {had.get(key)}, now {wanted.get(key)})"
    return None


def file_hash(path: Path) -> str:
    """SHA-256 of a file, for provenance."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _whole_lines(file: Path) -> list[str]:
    """The lines that end in a newline: a kill may have torn the last."""
    return file.read_text().split("\n")[:-1]


def _movable(content: dict[str, Any], home: Path) -> dict[str, Any]:
    """The same, with paths relative to ``home`` where a run that is around both can be moved as one."""
    around = [place for place in home.parents if (place / "config.json").exists()]

    def relative(value: str) -> str:
        together = any(Path(value).is_relative_to(place) for place in around)
        return os.path.relpath(value, home) if together and not Path(value).is_relative_to(home) else value

    return _each_string(content, relative)


def _each_string(content: Any, change: Callable[[str], str]) -> Any:
    if isinstance(content, dict):
        return {key: _each_string(value, change) for key, value in content.items()}
    if isinstance(content, list):
        return [_each_string(value, change) for value in content]
    return change(content) if isinstance(content, str) else content


def _lock(path: Path) -> None:
    """Be the one process that writes here, until the run is finished or the process ends, however it ends.

    The lock is on the directory itself, so that no file is left behind. Where the file system has no such locks,
    as some networks' have none, nothing is locked.
    """
    if _identity(path) in _LOCKED:
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        fix = "wait until it ends, or choose another"
        raise UserError(f"--out {path}: another nogs process is writing {path}; {fix}") from None
    except OSError:
        os.close(handle)
        return
    _LOCKED[_identity(path)] = handle


def _unlock(path: Path) -> None:
    if (handle := _LOCKED.pop(_identity(path), None)) is not None:
        os.close(handle)


def _identity(path: Path) -> tuple[int, int]:
    known = path.stat()
    return known.st_dev, known.st_ino


def _refuse_others(run: RunDirectory, wanted: dict[str, Any], *, resume: bool) -> None:
    path = run.path
    nearest = next(place for place in (path, *path.parents) if place.exists())
    if not nearest.is_dir():
        where = "" if nearest == path else f": {nearest}"
        raise UserError(f"--out {path}{where} is a file: choose a directory")
    if (path / "config.json").exists():
        if not run.complete:
            _lock(path)
        if not resume:
            raise UserError(f"--out {path} holds another run: add --resume to go on with it, or choose another")
        difference = first_difference(run.config, wanted)
        if difference:
            raise UserError(f"--out {path} holds another run, which differs in {difference}: choose another --out")
    elif path.is_dir():
        for entry in path.iterdir():
            if entry.suffix != ".partial" and entry.name != "provenance.json":
                raise UserError(f"--out {path} holds files that are not a run's ({entry.name}): choose an empty one")
    if not run.complete and not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"--out {path}: no permission to write in {nearest}; choose another place")
