"""Draw digits at d places and a pointer that shows only which of them is the label: the task ``pointers``.

All images have the same d places, and the pointer at the same place. The digits at the other places are of random
classes, so before the pointer is seen a digit carries little about the label, and the pointer alone nothing. A search
that looks one step ahead takes about 3 - 1/d glimpses, where two suffice: the pointer, then the place that it names.
Digits are split into train, val and test first. Canvases are stored sparsely (`nogs.data.canvases`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from nogs.config.groups import Source
from nogs.data.handwriting import DIGIT_PX, Digits, canvas_arrays, digits_of, split_digits, stamps_of
from nogs.data.listing import Arrays, Faults
from nogs.errors import UserError

CANVAS_PX = 128
PLACE_PX = 32
"""Distance of neighbouring places; a digit lies in the middle of its place."""
PLACES = ((256, 50), (128, 10), (64, 3))
"""Side length of the canvas from which there are so many places (d)."""
BITS, BIT_PX = 6, 7
PER_DIGIT = 5, 1, 1
"""Canvases of each train, val and test digit as the label."""


def pointers(path: Path, source: Source, faults: Faults) -> Arrays:
    """Return the canvases of ``source.split_seed``, with the side length ``source.image_size``.

    ``path``: an npz of digits; empty: scikit-learn's.
    """
    return pointed(digits_of(path), source.image_size or CANVAS_PX, source.split_seed)


def pointed(digits: Digits, canvas_px: int, seed: int, *, per_digit: tuple[int, ...] = PER_DIGIT) -> Arrays:
    """Return sparse canvases of ``canvas_px`` pixels a side: the pointer top left, then d digits in reading order.

    The label digit's index is the canvas's group. ``per_digit``: the number of train, val and test canvases of each.
    """
    d = next((places for least_px, places in PLACES if canvas_px >= least_px), 0)
    if not d:
        raise UserError(f"image_size={canvas_px}: {PLACES[-1][1]} places need {PLACES[-1][0]} pixels or more")
    split = split_digits(digits.labels, seed)
    rng = np.random.default_rng(seed)
    side = canvas_px // PLACE_PX
    place = np.arange(d + 1)
    first = np.stack((place // side, place % side), axis=-1) * PLACE_PX + (PLACE_PX - DIGIT_PX) // 2
    stamps, shown = [], []
    for which, repeats in enumerate(per_digit):
        pool = (split == which).nonzero()[0]
        own = np.tile(pool, repeats)
        at = rng.integers(0, d, len(own))
        picture = np.concatenate((len(digits.pictures) + at[:, None], rng.choice(pool, (len(own), d))), axis=1)
        picture[np.arange(len(own)), 1 + at] = own
        stamps.append(stamps_of(picture, np.full(picture.shape, DIGIT_PX), np.tile(first, (len(own), 1, 1))))
        shown.append(own)
    group = np.concatenate(shown)
    pictures = np.concatenate((digits.pictures, codes(d)))
    return canvas_arrays(pictures, stamps, digits.labels[group], canvas_px=canvas_px, groups=group)


def codes(count: int) -> UInt8[np.ndarray, "n 28 28"]:
    """Return a picture of each number: its bits as white squares, three in a line, on a grey ground."""
    bits = (np.arange(count)[:, None] >> np.arange(BITS)) & 1
    pictures = np.full((count, DIGIT_PX, DIGIT_PX), 64, dtype=np.uint8)
    for bit in range(BITS):
        top, left = 4 + (bit // 3) * (BIT_PX + 6), 2 + (bit % 3) * (BIT_PX + 2)
        pictures[:, top : top + BIT_PX, left : left + BIT_PX] = 255 * bits[:, bit, None, None]
    return pictures
