"""Locks on run directories: one process writes a directory at a time.

The lock is an flock on the directory itself, so that no file is left behind, and it ends with the process however the
process ends. File systems without such locks (some network mounts) are written without one.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from nogs.errors import UserError

_HELD: dict[tuple[int, int], int] = {}
"""File descriptors of the directories that this process has locked, by device and inode.

A process may open a directory that it has locked already: a stage that failed can be called again from a notebook.
"""


def lock(path: Path) -> None:
    """Lock the directory ``path`` until ``unlock`` or the end of the process.

    Raises UserError if another process has locked it.
    """
    if _inode(path) in _HELD:
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        fix = "wait until it ends, or choose another"
        raise UserError(f"out={path}: another nogs process is writing {path}; {fix}") from None
    except OSError:
        os.close(handle)
        return
    _HELD[_inode(path)] = handle


def unlock(path: Path) -> None:
    """Release the lock on ``path``, if this process has it."""
    if (handle := _HELD.pop(_inode(path), None)) is not None:
        os.close(handle)


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
