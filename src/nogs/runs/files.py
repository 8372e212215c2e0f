"""Files of run directories: written whole, read with checks, and their SHA-256.

A file is written to a neighbour NAME.partial and renamed, so that a kill at any moment leaves it either old or new.
A file that cannot be read as what it should be raises UserError with one line that names it and the fix.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from nogs.errors import UserError

BLOCK_BYTES = 2**20
MAX_DEPTH = 32
"""Deepest nesting of JSON values that is read; results.json has fewer than 10 levels."""
_HASHES: dict[tuple[int, int, int, int], str] = {}
"""SHA-256 of files that this process has read, by device, inode, size in bytes and time of the last change in ns."""


def write_whole(file: Path, content: bytes) -> None:
    """Replace ``file`` by ``content`` at once. If the disk is full, the partial file is removed before raising."""
    partial = file.with_name(f"{file.name}.partial")
    try:
        with partial.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        partial.replace(file)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def file_hash(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal. An unchanged file is read once per process."""
    status = file.stat()
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if key not in _HASHES:
        digest = hashlib.sha256()
        with file.open("rb") as handle:
            while block := handle.read(BLOCK_BYTES):
                digest.update(block)
        _HASHES[key] = digest.hexdigest()
    return _HASHES[key]


def damaged(file: Path, reason: str) -> UserError:
    """Return the error for a file of a run directory that cannot be used."""
    return UserError(f"{file} {reason}: restore it, or remove {file.parent} to make it again")


def check_regular(file: Path) -> os.stat_result:
    """Return the status of ``file``. Raises UserError if it is missing or no regular file, which may block readers."""
    try:
        status = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise damaged(file, "is missing") from None
    except OSError as error:
        if isinstance(error, PermissionError):
            raise
        raise damaged(file, f"cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(status.st_mode):
        raise damaged(file, "is not a file")
    return status


def read_object(file: Path) -> dict[str, Any]:
    """Return the JSON object in ``file``. Raises UserError if it holds anything else."""
    check_regular(file)
    return parse_object(file, file.read_bytes())


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a log, one a line. A last line without newline, torn by a kill, is left out."""
    check_regular(file)
    lines = file.read_bytes().split(b"\n")[:-1]
    return [parse_object(file, line, line=number) for number, line in enumerate(lines, start=1)]


def parse_object(file: Path, content: bytes, *, line: int | None = None) -> dict[str, Any]:
    """Return the JSON object in ``content``. Raises UserError, naming ``file`` and the line number."""
    where = "" if line is None else f" in line {line}"
    try:
        parsed = json.loads(content.decode())
        if not isinstance(parsed, dict):
            raise damaged(file, f"holds no JSON object{where}")
    except (ValueError, RecursionError):
        raise damaged(file, f"is damaged, it is not valid JSON{where}") from None
    if not _is_shallow(parsed):
        raise damaged(file, f"is damaged, its JSON is nested more than {MAX_DEPTH} deep{where}")
    return parsed


def _is_shallow(parsed: Any) -> bool:
    """Return whether JSON values are nested at most MAX_DEPTH deep, so that recursive functions can take them."""
    level = [parsed]
    for _ in range(MAX_DEPTH):
        children = [value.values() if isinstance(value, dict) else value for value in level]
        level = [child for value in children for child in value if isinstance(child, dict | list)]
        if not level:
            return True
    return False
