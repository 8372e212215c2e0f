"""Read arrays of an untrusted NumPy archive (.npz): nothing is unpickled, and nothing too large is allocated.

The header of each array is compared with the size of its archive member before the array is read, because a header of
a hundred bytes can claim terabytes, and a small compressed file can hold gigabytes.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nogs.data.files import check_regular
from nogs.data.memory import memory_bytes
from nogs.errors import UserError

Array = np.ndarray[Any, np.dtype[Any]]
_ENCRYPTED = 0x1
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


def read_arrays(file: Path, names: Iterable[str]) -> dict[str, Array]:
    """Return the arrays of ``names`` that the archive has; names without an array are left out.

    Raises UserError, naming the file and the member, for anything but plain arrays that fit into memory.
    """
    check_regular(file)
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename: info for info in archive.infolist()}
            present = [name for name in names if f"{name}.npy" in members]
            return {name: _read(file, archive, members[f"{name}.npy"]) for name in present}
    except zipfile.BadZipFile as error:
        raise _unusable(f"{file}: not a NumPy archive of plain arrays ({error})") from error


def _read(file: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    where = f"{file}, member {member.filename}"
    if member.flag_bits & _ENCRYPTED:
        raise _unusable(f"{where}: is encrypted")
    if member.compress_type not in _METHODS:
        raise _unusable(f"{where}: is compressed in another way than NumPy does (method {member.compress_type})")
    try:
        with archive.open(member) as stream:
            _check_header(where, stream, member.file_size)
        with archive.open(member) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{where}: does not fit into memory; save fewer images") from error
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds of errors for damaged bytes
        raise _unusable(f"{where}: is not a plain array ({error})") from error


def _check_header(where: str, stream: Any, size: int) -> None:
    """Raise UserError unless the header describes a plain array that fills a member of ``size`` bytes."""
    if np.lib.format.read_magic(stream) != (1, 0):  # other versions are for structured arrays
        raise _unusable(f"{where}: is not a plain array")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject:
        raise _unusable(f"{where}: holds Python objects, which are not loaded")
    if dtype.itemsize == 0 or min(shape, default=0) < 0:
        raise _unusable(f"{where}: is not a plain array ({dtype}, {shape})")
    claimed, held = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if claimed != held:
        raise _unusable(f"{where}: its header claims {_readable(claimed)}, but it holds {_readable(held)}")
    if claimed > (memory := memory_bytes()):
        raise UserError(f"{where}: needs {_readable(claimed)} of {_readable(memory)} memory; save fewer images")


def _readable(count: int) -> str:
    """Return a number of bytes with a unit."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count} {unit}"
        count //= 1024
    return f"{count / 1024:.1f} TiB" if count >= 1024 else f"{count} TiB"


def _unusable(problem: str) -> UserError:
    return UserError(f"{problem}; write it with np.savez(path, x=x, y=y)")
