"""Pictures of handwritten digits, of 28 pixels a side, and their splits: what the generated tasks are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from nogs.data.archive import read_arrays
from nogs.data.canvases import Canvases
from nogs.data.imageset import SPLITS
from nogs.data.listing import Annotations, Arrays
from nogs.data.splits import TEST, VAL, cut
from nogs.errors import UserError

DIGIT_PX = 28
SCAN_PX = 8
"""Side length of scikit-learn's scans."""
_SCAN_MAX = 16.0
HELD_OUT = 0.1
"""Share of the digits in val, and in test."""


class Digits(NamedTuple):
    """D pictures of single digits and their classes."""

    pictures: UInt8[np.ndarray, "D 28 28"]
    labels: Int[np.ndarray, " D"]


def digits_of(path: Path) -> Digits:
    """Return the digits of an npz, or scikit-learn's for an empty path."""
    return read_digits(path) if path.name else enlarged_digits()


def read_digits(path: Path) -> Digits:
    """Read ``images`` uint8 [N, 28, 28] and ``labels`` [N] of 0 to 9.

    Raises UserError if an array is missing, or of another shape or type.
    """
    arrays = read_arrays(path, ("images", "labels"))
    for name in ("images", "labels"):
        if name not in arrays:
            raise UserError(f"{path}: has no array {name}; write it with np.savez(path, images=images, labels=labels)")
    images, labels = arrays["images"], arrays["labels"]
    if images.dtype != np.uint8 or images.shape[1:] != (DIGIT_PX, DIGIT_PX):
        raise UserError(f"{path}: images is {images.dtype} {images.shape}; give uint8 [N, {DIGIT_PX}, {DIGIT_PX}]")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise UserError(f"{path}: labels is {labels.dtype} {labels.shape}; give one integer for each image")
    if len(labels) == 0 or labels.min() < 0 or labels.max() > 9:
        raise UserError(f"{path}: labels must be from 0 to 9, of one digit or more")
    return Digits(images, labels.astype(np.int64))


def enlarged_digits() -> Digits:
    """Return scikit-learn's digits as pictures of 28 pixels a side, with the margin of MNIST's."""
    pictures, labels = scanned_digits(enlarge=3)
    margin = (DIGIT_PX - pictures.shape[1]) // 2
    return Digits(np.pad(pictures, ((0, 0), (margin, margin), (margin, margin))), labels)


def scanned_digits(*, enlarge: int) -> tuple[UInt8[np.ndarray, "D h h"], Int[np.ndarray, " D"]]:
    """Return scikit-learn's digits, ``enlarge`` times as wide as their 8 pixels, and their classes."""
    from sklearn.datasets import load_digits  # takes seconds to import

    scans, labels = load_digits(return_X_y=True)
    return _enlarged(scans, enlarge), labels.astype(np.int64)


def _enlarged(scans: Float[np.ndarray, "D 64"], enlarge: int) -> UInt8[np.ndarray, "D h h"]:
    pixels: Tensor = torch.from_numpy(scans).float().reshape(-1, 1, SCAN_PX, SCAN_PX) * (255 / _SCAN_MAX)
    smooth = interpolate(pixels, scale_factor=enlarge, mode="bilinear", align_corners=False)
    return smooth.round().to(torch.uint8)[:, 0].numpy()


def split_digits(
    labels: Int[np.ndarray, " D"], seed: int, *, test: float = HELD_OUT, val: float = HELD_OUT / (1 - HELD_OUT)
) -> Int[np.ndarray, " D"]:
    """Return the split (0 train, 1 val, 2 test) of every digit, with equal shares of each class.

    ``test``: share of all digits. ``val``: share of the rest.
    """
    each = np.arange(len(labels))
    split = np.zeros(len(labels), dtype=np.int64)
    split[cut(split == 0, labels, groups=each, share=test, seed=seed)] = TEST
    split[cut(split == 0, labels, groups=each, share=val, seed=seed + 1)] = VAL
    return split


def canvas_arrays(
    pictures: UInt8[np.ndarray, "P 28 28"],
    stamps: Sequence[Int[np.ndarray, "_ S 6"]],
    labels: Int[np.ndarray, " N"],
    *,
    canvas_px: int,
    groups: Int[np.ndarray, " N"] | None = None,
) -> Arrays:
    """Return canvases and their annotations, in the order of the splits.

    ``stamps``: of the train, val and test canvases. ``groups``: of each canvas; None if each is its own.
    """
    counts = tuple(map(len, stamps))
    about = Annotations(
        names=tuple(f"{name}-{i:06d}" for name, count in zip(SPLITS, counts, strict=True) for i in range(count)),
        labels=labels,
        classes=tuple("0123456789"),
        split=np.repeat(np.arange(len(SPLITS)), counts),
        groups=groups,
    )
    drawn = torch.from_numpy(np.concatenate(stamps))
    return Arrays(Canvases(torch.from_numpy(pictures), drawn, image_px=canvas_px), about)


def stamps_of(
    picture: Int[np.ndarray, "*shape"],
    side: Int[np.ndarray, "*shape"],
    first: Int[np.ndarray, "*shape 2"],
    *,
    cut_from: Int[np.ndarray, "*shape 2"] | None = None,
) -> Int[np.ndarray, "*shape 6"]:
    """Return the stamps of `Canvases`. ``first``: (row, column) on the canvas. ``cut_from``: in the picture."""
    source = np.zeros_like(first) if cut_from is None else cut_from
    return np.concatenate((picture[..., None], source, side[..., None], first), axis=-1).astype(np.int32)
