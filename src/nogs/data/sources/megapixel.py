"""Draw five digits, of which three agree, among fifty noise patches on a huge canvas: the task ``megapixel``.

The recipe is that of Katharopoulos and Fleuret 2019, *Processing Megapixel Images with Deep Attention-Sampling Models*
(section 4.2): canvases of 1500 pixels a side, labelled with the digit that is there three times, whose two other digits
are of other classes; noise patches are lines. Digits and patches do not overlap. Digits are split into train, val and
test first. Canvases are stored sparsely (`nogs.data.canvases`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from nogs.config.groups import Source
from nogs.data.handwriting import DIGIT_PX, Digits, canvas_arrays, digits_of, split_digits, stamps_of
from nogs.data.listing import Arrays, Faults
from nogs.errors import UserError

CANVAS_PX = 1500
AGREE, OTHERS = 3, 2
NOISE = 50
LINES = 1000
"""Different pictures of a line."""
CANVASES = 1000, 500, 1000
"""Number of train, val and test canvases."""
LEAST_PX = 750
"""Below, patches that must not overlap would hardly fit."""


def megapixel(path: Path, source: Source, faults: Faults) -> Arrays:
    """Return the canvases of ``source.split_seed``, with the side length ``source.image_size``.

    ``path``: an npz of digits; empty: scikit-learn's.
    """
    return agreeing(digits_of(path), source.image_size or CANVAS_PX, source.split_seed)


def agreeing(digits: Digits, canvas_px: int, seed: int, *, canvases: tuple[int, ...] = CANVASES) -> Arrays:
    """Return sparse canvases of ``canvas_px`` pixels a side. ``canvases``: how many train, val and test ones."""
    if canvas_px < LEAST_PX:
        raise UserError(f"image_size={canvas_px}: {AGREE + OTHERS + NOISE} patches need {LEAST_PX} pixels or more")
    split = split_digits(digits.labels, seed)
    rng = np.random.default_rng(seed)
    classes = np.unique(digits.labels)
    pictures = np.concatenate((digits.pictures, lines(LINES, rng)))
    stamps, labels = [], []
    for which, count in enumerate(canvases):
        label = classes[np.arange(count) % len(classes)]
        of_class = {c: ((split == which) & (digits.labels == c)).nonzero()[0] for c in classes}
        shown = np.empty((count, AGREE + OTHERS + NOISE), dtype=np.int64)
        for canvas, own in enumerate(label):
            others = rng.choice(classes[classes != own], OTHERS)
            shown[canvas, :AGREE] = rng.choice(of_class[own], AGREE)
            shown[canvas, AGREE : AGREE + OTHERS] = [rng.choice(of_class[other]) for other in others]
        shown[:, AGREE + OTHERS :] = len(digits.pictures) + rng.integers(0, LINES, (count, NOISE))
        first = apart(count, shown.shape[1], canvas_px, rng)
        stamps.append(stamps_of(shown, np.full(shown.shape, DIGIT_PX), first))
        labels.append(label)
    return canvas_arrays(pictures, stamps, np.concatenate(labels), canvas_px=canvas_px)


def lines(count: int, rng: np.random.Generator) -> UInt8[np.ndarray, "n 28 28"]:
    """Return pictures of one line of 2 pixels' width each, through a random point in a random direction."""
    angle, along = rng.uniform(0, np.pi, (count, 1, 1)), np.arange(DIGIT_PX)
    centre = rng.uniform(DIGIT_PX / 4, 3 * DIGIT_PX / 4, (2, count, 1, 1))
    distance = (along[:, None] - centre[0]) * np.cos(angle) - (along - centre[1]) * np.sin(angle)
    return np.where(np.abs(distance) < 1, 255, 0).astype(np.uint8)


def apart(count: int, patches: int, canvas_px: int, rng: np.random.Generator) -> Int[np.ndarray, "n p 2"]:
    """Return uniform top-left pixels of ``patches`` digits on each canvas, of which no two overlap."""
    first = rng.integers(0, canvas_px - DIGIT_PX + 1, (count, patches, 2))
    later = np.triu(np.ones((patches, patches), dtype=bool), 1)
    canvases = np.arange(count)
    while len(canvases):
        gaps = np.abs(first[canvases, :, None] - first[canvases, None])
        moved = ((gaps < DIGIT_PX).all(-1) & later).any(1)
        canvases, moved = canvases[moved.any(1)], moved[moved.any(1)]
        row, patch = moved.nonzero()
        first[canvases[row], patch] = rng.integers(0, canvas_px - DIGIT_PX + 1, (len(row), 2))
    return first
