"""Checks of the files of data sets. Only regular files are read, because opening a FIFO may block forever."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterable
from pathlib import Path

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
