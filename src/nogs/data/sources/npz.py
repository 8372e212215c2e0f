"""Read images in one NumPy archive: ``x`` uint8 [N, H, W] or [N, H, W, 3], ``y`` labels, optionally ``split``.

``y`` is int [N]: the distinct values are the classes, or with ``names`` the indices of the classes' names. Or ``y`` is
0/1 [N, K], a multi-label set, and ``names`` has the names of the K labels. ``split`` is [N] of train, val, test. The
name of an image is its row, from 0. ``x`` may have another integer or floating-point type if ``range`` is given.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from nogs.config.groups import Range, Source
from nogs.data.archive import Array, read_arrays
from nogs.data.decode import square, to_eight_bits
from nogs.data.frame import Cut, Frame
from nogs.data.imageset import SPLITS
from nogs.data.listing import Annotations, Arrays, Faults, split_numbers
from nogs.data.memory import check_memory
from nogs.errors import UserError

LARGEST_INTEGER = 2**53
"""Integers up to here are exact in floating-point labels."""


def npz(path: Path, source: Source, faults: Faults) -> Arrays:
    """Return the images of the archive as squares, and their labels, in memory.

    Rows whose label or split does not parse become faults and are left out.
    """
    arrays = read_arrays(path, ("x", "y", "names", "split"))
    for name in ("x", "y"):
        if name not in arrays:
            raise UserError(f"{path}: has no array {name}; write it with np.savez(path, x=x, y=y)")
    x, y = arrays["x"], arrays["y"]
    _check_images(path, x, source.range)
    if y.ndim == 0 or len(y) != len(x):
        raise UserError(f"{path}: y has {len(y) if y.ndim else 'no'} rows, but x has {len(x)}; they must be as many")
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
    return Arrays(_squares(x[rows] if wrong else x, source), about.keep(rows))


def _check_images(path: Path, x: Array, values: Range | None) -> None:
    shape = "x".join(map(str, x.shape))
    if x.dtype != np.uint8 and (values is None or x.dtype.kind not in "iuf"):
        fix = "or give `range`, the two values that become black and white" if x.dtype.kind in "iuf" else ""
        raise UserError(f"{path}: x is {x.dtype}; save uint8, in 0..255{', ' * bool(fix)}{fix}")
    if x.ndim != 3 and not (x.ndim == 4 and x.shape[3] in (1, 3)):
        raise UserError(f"{path}: x is {shape or 'one number'}; save [N, H, W], or [N, H, W, 3] with the colours last")
    if 0 in x.shape:
        raise UserError(f"{path}: x is {shape}, which is empty; save one row an image")


def _strings(path: Path, values: Array, name: str) -> tuple[str, ...]:
    if values.ndim != 1 or values.dtype.kind not in "US":
        raise UserError(f"{path}: {name} is {values.dtype} of {values.ndim} axes; save a list of strings")
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "surrogateescape")
    try:
        return tuple(values.tolist())
    except ValueError as error:
        raise UserError(f"{path}: {name} has characters that are not Unicode ({error})") from error


def _split(path: Path, values: Array, count: int, wrong: dict[int, str]) -> Int[np.ndarray, " N"]:
    strings = _strings(path, values, "split")
    if len(strings) != count:
        raise UserError(f"{path}: split has {len(strings)} rows, but x has {count}; they must be as many")
    wrong.update(
        (row, f"split is {value!r}, not train, val or test") for row, value in enumerate(strings) if value not in SPLITS
    )
    return split_numbers(strings)


def _integers(path: Path, y: Array, wrong: dict[int, str]) -> Int[np.ndarray, "N ..."]:
    """Return labels as integers. A row with NaN, a fraction or more than 53 bits is wrong, and 0 in the result."""
    if y.dtype.kind not in "biuf":
        raise UserError(f"{path}: y is {y.dtype}; save integers")
    whole = (y <= LARGEST_INTEGER) & (y >= -LARGEST_INTEGER)
    if y.dtype.kind == "f":
        whole &= y == np.round(y)
    for row in np.flatnonzero(~whole.reshape(len(y), -1).all(axis=1)).tolist():
        wrong[row] = f"y is {y[row].tolist()}, not an integer"
    return np.where(whole, y, 0).astype(np.int64)


def _classes(
    path: Path, y: Array, names: tuple[str, ...] | None, wrong: dict[int, str]
) -> tuple[Int[np.ndarray, " N"], tuple[str, ...]]:
    """Return one label of several classes: the distinct values, or those that ``names`` has."""
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
    """Return K labels of 0/1."""
    if y.ndim != 2 or y.shape[1] == 0:
        shape = "x".join(map(str, y.shape))
        raise UserError(f"{path}: y has {y.ndim} axes ({shape}); save [N], or [N, K] for K labels of 0/1")
    if names is None or len(names) != y.shape[1]:
        raise UserError(f"{path}: y has {y.shape[1]} labels; save names, a list of {y.shape[1]} strings")
    values = _integers(path, y, wrong)
    for row, column in np.argwhere((values != 0) & (values != 1)).tolist():
        wrong.setdefault(row, f"y of {names[column]} is {values[row, column]}, not 0 or 1")
    return values, names


def _squares(x: Array, source: Source) -> UInt8[np.ndarray, "N c H H"]:
    """Return squares, channels first, fitted and resized with Pillow as images in files are."""
    x = x if x.ndim == 4 else x[..., None]
    N, height, width, channels = x.shape
    side_px = source.image_size or (min(height, width) if source.fit == "crop" else max(height, width))
    check_memory(N, channels=channels, image_px=side_px)
    frame = Frame(channels, side_px, source.fit, source.range)
    images = np.empty((N, channels, side_px, side_px), dtype=np.uint8)
    cut = Cut()
    for row, values in enumerate(x):
        pixels = values if x.dtype == np.uint8 or source.range is None else to_eight_bits(values, source.range)
        cut = cut.add(width, height, source.fit)
        images[row] = square(Image.fromarray(pixels[..., 0] if channels == 1 else pixels), frame)
    cut.warn(N)
    return images
