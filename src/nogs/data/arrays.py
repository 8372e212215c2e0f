"""Images and labels in NumPy arrays as a data source: they are written to an archive once, under a name of its content.

A run on them is described by its configuration alone, so that it can be resumed and evaluated like a run on files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nogs.config.groups import Source
from nogs.data import cache
from nogs.errors import UserError

Array = np.ndarray[Any, np.dtype[Any]]


def from_arrays(
    x: Array,
    y: Array | Sequence[Any],
    *,
    names: Sequence[str] | None = None,
    split: Sequence[str] | Array | None = None,
    folder: str | Path | None = None,
    source: Source | None = None,
) -> Source:
    """Write images and labels to ``folder``/HASH.npz, unless that exists, and return the source that reads it.

    Parameters
    ----------
    x
        Images, uint8 [N, H, W] or [N, H, W, 3]. Numbers of other types need ``source.range``.
    y
        Classes [N]: whole numbers, or texts, which are sorted; or K labels of 0 and 1 [N, K].
    names
        Names of the classes 0, 1, ...; or of the K labels, which need names.
    split
        ``"train"``, ``"val"`` or ``"test"`` of each image. By default a seeded split is made.
    folder
        Where to keep the archive; by default in the cache of decoded images, whose files may be deleted.
    source
        Other options of the source, such as ``image_size``; its ``data`` is replaced.

    Raises
    ------
    UserError
        If the arrays do not fit together.
    """
    source = source or Source()
    x, y = np.asarray(x), np.asarray(y)
    _check(x, y, source)
    if y.dtype.kind in "USO":
        texts, y = np.unique(y.astype(str), return_inverse=True)
        if names is not None and list(names) != texts.tolist():
            raise UserError(f"names={list(names)}: y has the texts {texts.tolist()}; leave `names` out")
        names = texts.tolist()
    if y.dtype.kind == "b":
        y = y.astype(np.int64)
    arrays = {"x": x, "y": y}
    if names is not None:
        arrays["names"] = np.array([str(name) for name in names])
    if split is not None:
        arrays["split"] = np.asarray(split).astype(str)
    place = (cache.directory() / "arrays" if folder is None else Path(folder).expanduser()).absolute()
    file = place / f"{_content_hash(arrays)}.npz"
    if not file.exists():
        place.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}.partial")
        try:
            with partial.open("wb") as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type] # arrays by their names
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    return replace(source, data=f"npz:{file}")


def _check(x: Array, y: Array, source: Source) -> None:
    """Raise UserError for images or labels of a type or shape that no training takes."""
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[3] not in (1, 3)) or 0 in x.shape:
        last = x.ndim == 4 and x.shape[1] in (1, 3)
        fix = "put the channels last, with x.transpose(0, 2, 3, 1)" if last else "give [N, H, W] or [N, H, W, 3]"
        raise UserError(f"x is an array of shape {x.shape}: {fix}")
    if x.dtype != np.uint8 and (source.range is None or x.dtype.kind not in "iuf"):
        raise UserError(
            f"x has values of type {x.dtype}: give uint8 in 0..255, or give `source` a `range`, the two values that "
            "become 0 and 255"
        )
    if y.ndim == 0 or len(y) != len(x):
        raise UserError(f"y is an array of shape {y.shape}, and x of {x.shape}: give one label for each image")
    if y.dtype.kind == "f" and not (y == np.round(y)).all():
        raise UserError("y has fractions: labels must be classes, because regression is not supported")


def _content_hash(arrays: dict[str, Array]) -> str:
    """Return a hash of names, types, shapes and values, as 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, values in arrays.items():
        digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()[:32]
