"""A run directory: config.json, provenance.json, log.jsonl, safetensors, and COMPLETE written last.

Every file is written whole to a neighbour and renamed, so that a kill at any moment leaves each file
either old or new. The log is the one file that grows; a torn last line is dropped when it is read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from nogs.errors import UserError

MARKER = "COMPLETE"
NOT_IDENTITY = ("machine", "jobs")
"""Fields of a config that say where a run happens, not what it is: they may change at --resume."""


class RunDirectory:
    """One stage's directory, open for writing. Make it with ``open_run``, read others with ``read_run``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def complete(self) -> bool:
        return (self.path / MARKER).exists()

    @property
    def config(self) -> dict[str, Any]:
        return json.loads((self.path / "config.json").read_text())

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
        self.save_json("provenance.json", {**known, **provenance, "finished": _now()})
        self._write(MARKER, b"")

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
    that are not a run's, a run without ``resume``, or a run of another stage or configuration.
    """
    run = RunDirectory(path)
    wanted = {"stage": stage, **as_json(config)}
    _refuse_others(run, wanted, resume=resume)
    if not (path / "config.json").exists():
        path.mkdir(parents=True, exist_ok=True)
        run.save_json("provenance.json", {"started": _now(), **_environment()})
        run.save_json("config.json", wanted)  # last: its presence makes this a run directory
    elif not run.complete:
        if (path / "log.jsonl").exists():
            run.save_text("log.jsonl", "".join(f"{line}\n" for line in _whole_lines(path / "log.jsonl")))
        known = json.loads((path / "provenance.json").read_text())
        run.save_json("provenance.json", {**known, "resumed": [*known.get("resumed", []), _now()]})
    return run


def finished_run(path: Path, stage: str, config: Any, *, resume: bool) -> RunDirectory | None:
    """The run directory if nothing is left to do in it, else None. Raises UserError as ``open_run`` does.

    Writes nothing: a stage asks this first, reads its input, and opens its run when all of it was right, so
    that a mistake leaves no directory behind.
    """
    run = RunDirectory(path)
    _refuse_others(run, {"stage": stage, **as_json(config)}, resume=resume)
    return run if run.complete else None


def read_run(path: Path, stage: str) -> RunDirectory:
    """Open a finished run directory as input. Raises UserError if missing, unfinished or another kind."""
    run = RunDirectory(path)
    if not (path / "config.json").exists():
        raise UserError(f"{path} is not a run directory of `nogs {stage}`: it has no config.json")
    if run.config["stage"] != stage:
        raise UserError(f"{path} is a run directory of `nogs {run.config['stage']}`, not of `nogs {stage}`")
    if not run.complete:
        raise UserError(f"{path} is not finished: run its `nogs {stage}` again with --resume")
    return run


def as_json(config: Any) -> dict[str, Any]:
    """A config dataclass as plain JSON values; paths become strings."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


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


def _refuse_others(run: RunDirectory, wanted: dict[str, Any], *, resume: bool) -> None:
    path = run.path
    nearest = next(place for place in (path, *path.parents) if place.exists())
    if not nearest.is_dir():
        where = "" if nearest == path else f": {nearest}"
        raise UserError(f"--out {path}{where} is a file: choose a directory")
    if (path / "config.json").exists():
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


def _environment() -> dict[str, object]:
    packages = ("nogs", "torch", "torchvision", "timm", "numpy", "scikit-learn", "safetensors")
    commit = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "commit": commit.stdout.strip() if commit.returncode == 0 else None,
        "platform": platform.platform(),
    }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
