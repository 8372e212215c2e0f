"""Files that are written whole, and their SHA-256.

A file is written to a neighbour NAME.partial and renamed, so that a kill at any moment leaves it either old or new.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

BLOCK_BYTES = 2**20


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


def whole_lines(file: Path) -> list[str]:
    """Return the lines that end in a newline: a kill may have torn the last."""
    return file.read_text().split("\n")[:-1]


def file_hash(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while block := handle.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
