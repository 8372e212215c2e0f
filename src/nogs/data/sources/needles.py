"""Draw one handwritten digit anywhere on a large canvas, among fragments of other digits: the task ``needles``.

The digit's place differs from image to image, and a reduced view shows where bright spots are, but hardly which digit.
Digits are those of an npz, or scikit-learn's enlarged to the same size; they are split into train, val and test first,
so the digit and the fragments of a canvas come from one split. Canvases are stored sparsely (`nogs.data.canvases`).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8

from nogs.config.groups import Source
from nogs.data.archive import read_arrays
from nogs.data.canvases import Canvases
from nogs.data.imageset import SPLITS
from nogs.data.listing import Annotations, Arrays, Faults
from nogs.data.sources.digits import scanned_digits
from nogs.data.splits import TEST, VAL, cut
from nogs.errors import UserError

CANVAS_PX = 256
DIGIT_PX = 28
FRAGMENTS = 24
FRAGMENT_PX = 10
PER_DIGIT = 5, 1, 1
"""Canvases of each train, val and test digit."""
HELD_OUT = 0.1
"""Share of the digits in val, and in test."""


class Digits(NamedTuple):
    """D pictures of single digits and their classes."""

    pictures: UInt8[np.ndarray, "D 28 28"]
    labels: Int[np.ndarray, " D"]


def needles(path: Path, source: Source, faults: Faults) -> Arrays:
    """Return the canvases of ``source.split_seed``, with the side length ``source.image_size``.

    ``path``: an npz with ``images`` uint8 [N, 28, 28] and ``labels`` [N] of 0 to 9; empty: scikit-learn's digits.
    """
    return scatter(
        read_digits(path) if path.name else enlarged_digits(), source.image_size or CANVAS_PX, source.split_seed
    )


def scatter(
    digits: Digits, canvas_px: int, seed: int, *, fragments: int = FRAGMENTS, per_digit: tuple[int, ...] = PER_DIGIT
) -> Arrays:
    """Return sparse canvases of ``canvas_px`` pixels a side, with one digit and ``fragments`` fragments each.

    The digit's index is the canvas's group. ``per_digit``: the number of train, val and test canvases of each digit.
    """
    if canvas_px < DIGIT_PX:
        raise UserError(f"image_size={canvas_px}: digits are {DIGIT_PX} pixels wide, give more")
    split = _split(digits.labels, seed)
    rng = np.random.default_rng(seed)
    stamps, shown = [], []
    for which, repeats in enumerate(per_digit):
        pool = (split == which).nonzero()[0]
        own = np.tile(pool, repeats)
        picture = np.concatenate((own[:, None], rng.choice(pool, (len(own), fragments))), axis=1)
        side = np.full(picture.shape, FRAGMENT_PX)
        side[:, 0] = DIGIT_PX
        cut_from = rng.integers(0, DIGIT_PX - side[..., None] + 1, (*picture.shape, 2))
        place = rng.integers(0, canvas_px - side[..., None] + 1, (*picture.shape, 2))
        stamps.append(np.concatenate((picture[..., None], cut_from, side[..., None], place), axis=-1))
        shown.append(own)
    source = np.concatenate(shown)
    counts = [len(own) for own in shown]
    about = Annotations(
        names=tuple(f"{name}-{i:06d}" for name, count in zip(SPLITS, counts, strict=True) for i in range(count)),
        labels=digits.labels[source],
        classes=tuple("0123456789"),
        split=np.repeat(np.arange(len(SPLITS)), counts),
        groups=source,
    )
    drawn = torch.from_numpy(np.concatenate(stamps).astype(np.int32))
    return Arrays(Canvases(torch.from_numpy(digits.pictures), drawn, image_px=canvas_px), about)


def read_digits(path: Path) -> Digits:
    """Read the digits of an npz. Raises UserError if an array is missing, or of another shape or type."""
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


def _split(labels: Int[np.ndarray, " D"], seed: int) -> Int[np.ndarray, " D"]:
    each = np.arange(len(labels))
    split = np.zeros(len(labels), dtype=np.int64)
    split[cut(split == 0, labels, groups=each, share=HELD_OUT, seed=seed)] = TEST
    split[cut(split == 0, labels, groups=each, share=HELD_OUT / (1 - HELD_OUT), seed=seed + 1)] = VAL
    return split
