"""Checks of the files of data sets. Only regular files are read, because opening a FIFO may block forever."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from nogs.errors import UserError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular(file: Path) -> None:
    """Raise OSError unless ``file`` is a regular file, or a link to one."""
    kind = stat.S_IFMT(file.stat().st_mode)
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"it is {_KINDS.get(kind, 'special')}, not a file", str(file))


def is_zarr(path: Path) -> bool:
    """Return whether a path is a folder that is an image in OME-Zarr, by its name."""
    return path.suffix.lower() == ".zarr" and path.is_dir()


class FolderState(NamedTuple):
    """The bytes of all files in a folder, the last time of change in it, and a digest of the files' names and sizes."""

    file_bytes: int
    changed_ns: int
    digest: str


def folder_state(folder: Path) -> FolderState:
    """Return the state of a folder and its sub-folders. Raises OSError if one of the files cannot be found."""
    digest, file_bytes, changed_ns = hashlib.blake2b(digest_size=16), 0, folder.stat().st_mtime_ns
    for name, status in _below(str(folder), ""):
        changed_ns = max(changed_ns, status.st_mtime_ns)
        if not stat.S_ISDIR(status.st_mode):
            file_bytes += status.st_size
            digest.update(f"{name}\0{status.st_size}\0".encode("utf-8", "surrogateescape"))
    return FolderState(file_bytes, changed_ns, digest.hexdigest())


def _below(folder: str, name: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the path below a folder, and the status, of everything in it, sorted by name. Links are not entered."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        yield name + entry.name, entry.stat()
        if entry.is_dir(follow_symlinks=False):
            yield from _below(entry.path, f"{name}{entry.name}/")


def check_present(kind: str, root: Path, names: Iterable[str]) -> None:
    """Raise UserError unless the folder ``root`` of a data set has all files and folders ``names``."""
    for name in names:
        if not (root / name).exists():
            raise UserError(f"data={kind}:{root}: {name} is missing; unpack it there as it is published")


def read_lines(file: Path) -> list[str]:
    """Return the lines of a text file in UTF-8; other bytes become U+FFFD. Raises OSError if it cannot be read."""
    check_regular(file)
    return file.read_text(encoding="utf-8", errors="replace").splitlines()


def is_number(text: str) -> bool:
    """Return whether a text is a natural number in ASCII digits that fits 63 bits."""
    return text.isascii() and text.isdigit() and len(text) <= 18


def is_utf8(name: str) -> bool:
    """Return whether a name is UTF-8; bytes of a file name that are not are surrogates in Python."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
