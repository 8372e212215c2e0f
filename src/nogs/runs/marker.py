"""The marker COMPLETE of a finished run: size and SHA-256 of each of its files, checked before a file is used.

It also states the SHA-256 of that list. These checksums detect damage; they do not authenticate a run.
Pages and figures are not listed, because `nogs report` may draw them again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from nogs.runs.files import check_regular, damaged, file_hash, read_object, write_whole

MARKER = "COMPLETE"
LISTED = (".json", ".jsonl", ".safetensors")
EAGER_BYTES = 64 * 2**20
"""`check_all` hashes files up to this size. Larger ones, the shards of a bank, are hashed when they are read."""


class Entry(NamedTuple):
    """A file's size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


def write_marker(directory: Path) -> None:
    """Write COMPLETE from the files that ``directory`` holds now."""
    files = sorted(file for file in directory.iterdir() if file.suffix in LISTED)
    listed = {file.name: {"bytes": file.stat().st_size, "sha256": file_hash(file)} for file in files}
    content = {"files": listed, "sha256": _digest(listed)}
    write_whole(directory / MARKER, (json.dumps(content, indent=1) + "\n").encode())


def entries(directory: Path) -> dict[str, Entry]:
    """Return the files that COMPLETE lists. Raises UserError if it is damaged."""
    marker = directory / MARKER
    content = read_object(marker)
    try:
        listed = {name: Entry(entry["bytes"], entry["sha256"]) for name, entry in content["files"].items()}
    except (KeyError, TypeError, AttributeError):
        raise damaged(marker, "is damaged, it has no list of checksums") from None
    if content.get("sha256") != _digest(content["files"]):
        raise damaged(marker, "is damaged, its SHA-256 is not the one that it states")
    return listed


def check(file: Path) -> None:
    """Raise UserError unless ``file``, of a finished run, is what COMPLETE lists."""
    _check(file, entries(file.parent))


def check_all(directory: Path) -> None:
    """Raise UserError unless all files of a finished run are there with the sizes that COMPLETE lists.

    Checksums are compared too, of files up to EAGER_BYTES.
    """
    listed = entries(directory)
    for name, entry in listed.items():
        if entry.size <= EAGER_BYTES:
            _check(directory / name, listed)
        else:
            _check_size(directory / name, entry)


def _digest(listed: dict[str, dict[str, object]]) -> str:
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()


def _check(file: Path, listed: dict[str, Entry]) -> None:
    entry = listed.get(file.name)
    if entry is None:
        raise damaged(file, "is not listed in COMPLETE")
    _check_size(file, entry)
    if file_hash(file) != entry.sha256:
        raise damaged(file, "is damaged, its SHA-256 is not the one in COMPLETE")


def _check_size(file: Path, entry: Entry) -> None:
    size = check_regular(file).st_size
    if size != entry.size:
        raise damaged(file, f"is damaged, it has {size} of {entry.size} bytes")
