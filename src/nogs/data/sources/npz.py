"""Images in one NumPy archive: ``x`` uint8 [N, H, W] or [N, H, W, 3], ``y`` labels, optionally ``split``.

``y`` is int [N], whose distinct values are the classes (or which counts into ``names``, where given); or 0/1
[N, K], a multi-label set, and then ``names`` has the K labels' names. ``split`` is [N] of train, val, test.
An image's name is its row, from 0. Pickled objects are never loaded.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from nogs.data.decode import Frame, square
from nogs.data.imageset import SPLITS
from nogs.data.listing import Annotations, Faults
from nogs.data.memory import check_memory
from nogs.errors import UserError

Array = np.ndarray[Any, np.dtype[Any]]


def npz(path: Path, image_size: int | None, faults: Faults) -> tuple[UInt8[np.ndarray, "N c H H"], Annotations]:
    """The archive's images, cropped to the centre square and, with ``image_size``, resized; and their labels.

    Held in memory. Rows whose label or split does not parse become faults and are left out.
    """
    arrays = _arrays(path)
    x, y = arrays["x"], arrays["y"]
    _check_images(path, x)
    if len(y) != len(x):
        raise UserError(f"{path}: y has {len(y)} rows, but x has {len(x)}; they must be as many")
    names = _strings(path, arrays["names"], "names") if "names" in arrays else None
    if names is not None and len(set(names)) < len(names):
        raise UserError(f"{path}: names has {', '.join(names)}; each must be another")
    wrong: dict[int, str] = {}
    split = _split(path, arrays["split"], len(x), wrong) if "split" in arrays else None
    parse = _classes if y.ndim == 1 else _attributes
    labels, classes = parse(path, y, names, wrong)
    for row in sorted(wrong):
        faults.add(f"{path} row {row}", wrong[row])
    about = Annotations(tuple(map(str, range(len(x)))), labels, classes, split)
    rows = np.array([row for row in range(len(x)) if row not in wrong], dtype=np.int64)
    return _squares(x[rows] if wrong else x, image_size), about.keep(rows)


def _arrays(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ("x", "y", "names", "split") if name in archive}
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: not a NumPy archive of plain arrays ({error}); write it with np.savez(path, x=x, y=y)"
        ) from error
    for name in ("x", "y"):
        if name not in arrays:
            raise UserError(f"{path}: has no array {name}; write it with np.savez(path, x=x, y=y)")
    return arrays


def _check_images(path: Path, x: Array) -> None:
    shape = "x".join(map(str, x.shape))
    if x.dtype != np.uint8:
        raise UserError(f"{path}: x is {x.dtype}; save uint8, in 0..255")
    if x.ndim != 3 and not (x.ndim == 4 and x.shape[3] in (1, 3)):
        raise UserError(f"{path}: x is {shape}; save [N, H, W], or [N, H, W, 3] with the colours last")
    if 0 in x.shape:
        raise UserError(f"{path}: x is {shape}, which is empty; save one row an image")


def _strings(path: Path, values: Array, name: str) -> tuple[str, ...]:
    if values.ndim != 1 or values.dtype.kind not in "US":
        raise UserError(f"{path}: {name} is {values.dtype} of {values.ndim} axes; save a list of strings")
    return tuple(values.astype(str).tolist())


def _split(path: Path, values: Array, count: int, wrong: dict[int, str]) -> Int[np.ndarray, " N"]:
    strings = _strings(path, values, "split")
    if len(strings) != count:
        raise UserError(f"{path}: split has {len(strings)} rows, but x has {count}; they must be as many")
    numbers = {str(name): which for which, name in enumerate(SPLITS)}
    wrong.update(
        (row, f"split is {value!r}, not train, val or test")
        for row, value in enumerate(strings)
        if value not in numbers
    )
    return np.array([numbers.get(value, 0) for value in strings], dtype=np.int64)


def _integers(path: Path, y: Array, wrong: dict[int, str]) -> Int[np.ndarray, "N ..."]:
    """Labels as integers; a row with NaN or a fraction is wrong, and 0 here."""
    if y.dtype.kind not in "biuf":
        raise UserError(f"{path}: y is {y.dtype}; save integers")
    whole = np.isfinite(y) & (y == np.round(y)) if y.dtype.kind == "f" else np.ones(y.shape, dtype=np.bool_)
    for row in np.flatnonzero(~whole.reshape(len(y), -1).all(axis=1)).tolist():
        wrong[row] = f"y is {y[row].tolist()}, not an integer"
    return np.where(whole, y, 0).astype(np.int64)


def _classes(
    path: Path, y: Array, names: tuple[str, ...] | None, wrong: dict[int, str]
) -> tuple[Int[np.ndarray, " N"], tuple[str, ...]]:
    """One label of several classes: the distinct values, or those that ``names`` has."""
    values = _integers(path, y, wrong)
    if names is None:
        distinct = np.unique([value for row, value in enumerate(values.tolist()) if row not in wrong])
        return np.searchsorted(distinct, values), tuple(str(int(value)) for value in distinct)
    for row in np.flatnonzero((values < 0) | (values >= len(names))).tolist():
        wrong[row] = f"y is {values[row]}, but names has {len(names)}: 0 to {len(names) - 1}"
    return values, names


def _attributes(
    path: Path, y: Array, names: tuple[str, ...] | None, wrong: dict[int, str]
) -> tuple[Int[np.ndarray, "N K"], tuple[str, ...]]:
    """K labels of 0/1."""
    if y.ndim != 2:
        raise UserError(f"{path}: y has {y.ndim} axes; save [N], or [N, K] for K labels of 0/1")
    if names is None or len(names) != y.shape[1]:
        raise UserError(f"{path}: y has {y.shape[1]} labels; save names, a list of {y.shape[1]} strings")
    values = _integers(path, y, wrong)
    for row, column in np.argwhere((values != 0) & (values != 1)).tolist():
        wrong.setdefault(row, f"y of {names[column]} is {values[row, column]}, not 0 or 1")
    return values, names


def _squares(x: Array, image_size: int | None) -> UInt8[np.ndarray, "N c H H"]:
    """Channels first, centre square, resized by Pillow as images of files are."""
    x = x if x.ndim == 4 else x[..., None]
    side = min(x.shape[1:3])
    frame = Frame(channels=x.shape[3], side_px=image_size or side)
    check_memory(len(x), channels=frame.channels, image_px=frame.side_px)
    images = np.empty((len(x), frame.channels, frame.side_px, frame.side_px), dtype=np.uint8)
    for row, pixels in enumerate(x):
        images[row] = square(Image.fromarray(pixels[..., 0] if frame.channels == 1 else pixels), frame)
    return images
