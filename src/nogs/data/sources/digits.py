"""Draw scikit-learn's handwritten digits anywhere on a canvas, among fragments of other digits.

The 1,797 digits (8×8 pixels, by 13 people; Alpaydin and Kaynak, 1998) are split first, about 1,200 / 300 / 297, with
equal shares of each class. The digit and the fragments of a canvas come from one split, so train and test digits never
mix. The task is the cluttered translated MNIST of Mnih et al. (2014), with other digits.

On canvases of 96 pixels or more the digit is half as large, and the canvases are those of `needles`, stored as stamps:
where to look then differs from image to image.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from nogs.config.groups import Source
from nogs.data.handwriting import SCAN_PX, enlarged_digits, scanned_digits, split_digits
from nogs.data.imageset import SPLITS
from nogs.data.listing import Annotations, Arrays, Faults
from nogs.data.memory import check_memory
from nogs.data.sources import needles
from nogs.errors import UserError

CANVAS_PX = 52
ENLARGE = 6
"""An 8×8 digit is drawn 48 pixels wide, so that a small glimpse shows less than one of its original pixels."""
FRAGMENTS = 4
FRAGMENT_PX = 6
WIDE_PX = 96
"""Canvases of this side or more are those of `needles`."""
WIDE_PER_DIGIT = 8, 4, 8
"""Wide canvases of each train, val and test digit."""
CANVASES = (12_000, 1_500, 1_500)
"""Number of train canvases (ten per digit), val and test canvases."""


def digits(path: Path, source: Source, faults: Faults) -> Arrays:
    """Return the canvases of ``source.split_seed``, with the side length ``source.image_size``."""
    canvas_px = source.image_size or CANVAS_PX
    if canvas_px < WIDE_PX:
        return draw(canvas_px, source.split_seed)
    fragments = round(needles.FRAGMENTS * (canvas_px / needles.CANVAS_PX) ** 2)
    return needles.scatter(
        enlarged_digits(), canvas_px, source.split_seed, fragments=fragments, per_digit=WIDE_PER_DIGIT
    )


def draw(
    canvas_px: int = CANVAS_PX,
    seed: int = 0,
    *,
    enlarge: int = ENLARGE,
    fragments: int = FRAGMENTS,
    fragment_px: int = FRAGMENT_PX,
    canvases: tuple[int, int, int] = CANVASES,
) -> Arrays:
    """Return canvases [N, 1, canvas_px, canvas_px] with one digit each, whose index (0..1796) is the group.

    ``enlarge``: the factor by which digits are enlarged. ``fragments``: squares of ``fragment_px`` pixels, cut from
    other digits, on each canvas. ``canvases``: how many train, val and test canvases are drawn.
    """
    if canvas_px < SCAN_PX * enlarge:
        raise UserError(f"image_size={canvas_px}: digits are {SCAN_PX * enlarge} pixels wide, give more")
    check_memory(sum(canvases), channels=1, image_px=canvas_px)
    drawn, labels = scanned_digits(enlarge=enlarge)
    split = split_digits(labels, seed, test=297 / 1797, val=300 / 1500)
    rng = np.random.default_rng(seed)
    images, sources = [], []
    for which, count in enumerate(canvases):
        pool = (split == which).nonzero()[0]
        picks = np.arange(count) % len(pool)  # every digit in turn
        canvas = np.zeros((count, canvas_px, canvas_px), dtype=np.uint8)
        _stamp(canvas, drawn[pool[picks]], rng)
        for _ in range(fragments):
            others = (picks + rng.integers(1, len(pool), count)) % len(pool)  # 1 or more, so never the digit itself
            _stamp(canvas, _crops(drawn[pool[others]], fragment_px, rng), rng)
        images.append(canvas)
        sources.append(pool[picks])
    source = np.concatenate(sources)
    about = Annotations(
        names=tuple(f"{name}-{i:05d}" for name, count in zip(SPLITS, canvases, strict=True) for i in range(count)),
        labels=labels[source],
        classes=tuple("0123456789"),
        split=np.repeat(np.arange(len(SPLITS)), canvases),
        groups=source,
    )
    return Arrays(np.concatenate(images)[:, None], about)


def _corners(limit: int, count: int, rng: np.random.Generator) -> Int[np.ndarray, "2 n 1 1"]:
    """Return ``count`` uniform top-left pixels, rows and then columns, each in [0, limit]."""
    return rng.integers(0, limit + 1, size=(2, count, 1, 1))


def _crops(pictures: UInt8[np.ndarray, "n h h"], side: int, rng: np.random.Generator) -> UInt8[np.ndarray, "n f f"]:
    top, left = _corners(pictures.shape[1] - side, len(pictures), rng)
    step = np.arange(side)
    return pictures[np.arange(len(pictures))[:, None, None], top + step[:, None], left + step]


def _stamp(canvas: UInt8[np.ndarray, "n H H"], pictures: UInt8[np.ndarray, "n h h"], rng: np.random.Generator) -> None:
    """Draw each picture into its canvas at a uniform location. The brighter of two pixels is kept."""
    side = pictures.shape[1]
    top, left = _corners(canvas.shape[1] - side, len(canvas), rng)
    step = np.arange(side)
    at = np.arange(len(canvas))[:, None, None], top + step[:, None], left + step
    canvas[at] = np.maximum(canvas[at], pictures)
