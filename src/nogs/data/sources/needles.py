"""Draw one handwritten digit anywhere on a large canvas, among fragments of other digits: the task ``needles``.

The digit's place differs from image to image, and a reduced view shows where bright spots are, but hardly which digit.
Digits are split into train, val and test first, so the digit and the fragments of a canvas come from one split.
Canvases are stored sparsely (`nogs.data.canvases`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nogs.config.groups import Source
from nogs.data.handwriting import DIGIT_PX, Digits, canvas_arrays, digits_of, split_digits, stamps_of
from nogs.data.listing import Arrays, Faults
from nogs.errors import UserError

CANVAS_PX = 256
FRAGMENTS = 24
FRAGMENT_PX = 10
PER_DIGIT = 5, 1, 1
"""Canvases of each train, val and test digit."""


def needles(path: Path, source: Source, faults: Faults) -> Arrays:
    """Return the canvases of ``source.split_seed``, with the side length ``source.image_size``.

    ``path``: an npz of digits; empty: scikit-learn's.
    """
    return scatter(digits_of(path), source.image_size or CANVAS_PX, source.split_seed)


def scatter(
    digits: Digits, canvas_px: int, seed: int, *, fragments: int = FRAGMENTS, per_digit: tuple[int, ...] = PER_DIGIT
) -> Arrays:
    """Return sparse canvases of ``canvas_px`` pixels a side, with one digit and ``fragments`` fragments each.

    The digit's index is the canvas's group. ``per_digit``: the number of train, val and test canvases of each digit.
    """
    if canvas_px < DIGIT_PX:
        raise UserError(f"image_size={canvas_px}: digits are {DIGIT_PX} pixels wide, give more")
    split = split_digits(digits.labels, seed)
    rng = np.random.default_rng(seed)
    stamps, shown = [], []
    for which, repeats in enumerate(per_digit):
        pool = (split == which).nonzero()[0]
        own = np.tile(pool, repeats)
        picture = np.concatenate((own[:, None], rng.choice(pool, (len(own), fragments))), axis=1)
        side = np.full(picture.shape, FRAGMENT_PX)
        side[:, 0] = DIGIT_PX
        cut_from = rng.integers(0, DIGIT_PX - side[..., None] + 1, (*picture.shape, 2))
        first = rng.integers(0, canvas_px - side[..., None] + 1, (*picture.shape, 2))
        stamps.append(stamps_of(picture, side, first, cut_from=cut_from))
        shown.append(own)
    group = np.concatenate(shown)
    return canvas_arrays(digits.pictures, stamps, digits.labels[group], canvas_px=canvas_px, groups=group)
