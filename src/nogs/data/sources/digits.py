"""Digits among clutter, built in: scikit-learn's handwritten digits, placed among fragments of others.

The 1,797 digits (8×8, by 13 people; Alpaydin and Kaynak, 1998) are split first, about 1,200 / 300 / 297 and
alike in classes; then canvases are drawn, whose digit and fragments come from one split only, as in the
cluttered translated MNIST of Mnih et al. (2014). Train and test digits never mix.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from nogs.data.imageset import SPLITS, ImageSet
from nogs.data.memory import check_memory
from nogs.data.splits import TEST, VAL, cut
from nogs.errors import UserError

CANVAS_PX = 52
ENLARGE = 6  # an 8×8 digit is drawn 48 px wide: a small glimpse sees less than one of its own pixels
FRAGMENTS = 4
FRAGMENT_PX = 6
CANVASES = (12_000, 1_500, 1_500)  # train (ten a digit), val, test
_SCAN_PX = 8
_SCAN_MAX = 16.0


def digits(
    canvas_px: int = CANVAS_PX,
    seed: int = 0,
    *,
    enlarge: int = ENLARGE,
    fragments: int = FRAGMENTS,
    fragment_px: int = FRAGMENT_PX,
    canvases: tuple[int, int, int] = CANVASES,
) -> ImageSet:
    """Canvases [N, 1, canvas_px, canvas_px] of one digit each; its group is the digit's index, 0..1796."""
    if canvas_px < _SCAN_PX * enlarge:
        raise UserError(f"image_size={canvas_px}: digits are {_SCAN_PX * enlarge} pixels wide, give more")
    check_memory(sum(canvases), channels=1, image_px=canvas_px)
    from sklearn.datasets import load_digits  # seconds to import, for this source alone

    scans, labels = load_digits(return_X_y=True)
    labels = labels.astype(np.int64)
    drawn = _enlarged(scans, enlarge)
    split = _split(labels, seed)
    rng = np.random.default_rng(seed)
    images, sources = [], []
    for which, count in enumerate(canvases):
        pool = (split == which).nonzero()[0]
        picks = np.arange(count) % len(pool)  # every digit in turn
        canvas = np.zeros((count, canvas_px, canvas_px), dtype=np.uint8)
        _stamp(canvas, drawn[pool[picks]], rng)
        for _ in range(fragments):
            others = (picks + rng.integers(1, len(pool), count)) % len(pool)  # never the digit itself
            _stamp(canvas, _crops(drawn[pool[others]], fragment_px, rng), rng)
        images.append(canvas)
        sources.append(pool[picks])
    source = torch.from_numpy(np.concatenate(sources))
    return ImageSet(
        images=torch.from_numpy(np.concatenate(images))[:, None],
        labels=torch.from_numpy(labels)[source],
        classes=tuple("0123456789"),
        split=torch.repeat_interleave(torch.arange(len(SPLITS)), torch.tensor(canvases)),
        groups=source,
        names=tuple(f"{name}-{i:05d}" for name, count in zip(SPLITS, canvases, strict=True) for i in range(count)),
    )


def _enlarged(scans: Float[np.ndarray, "D 64"], enlarge: int) -> UInt8[np.ndarray, "D h h"]:
    pixels: Tensor = torch.from_numpy(scans).float().reshape(-1, 1, _SCAN_PX, _SCAN_PX) * (255 / _SCAN_MAX)
    smooth = interpolate(pixels, scale_factor=enlarge, mode="bilinear", align_corners=False)
    return smooth.round().to(torch.uint8)[:, 0].numpy()


def _split(labels: Int[np.ndarray, " D"], seed: int) -> Int[np.ndarray, " D"]:
    each = np.arange(len(labels))
    split = np.zeros(len(labels), dtype=np.int64)
    split[cut(split == 0, labels, groups=each, share=297 / 1797, seed=seed)] = TEST
    split[cut(split == 0, labels, groups=each, share=300 / 1500, seed=seed + 1)] = VAL
    return split


def _corners(limit: int, count: int, rng: np.random.Generator) -> Int[np.ndarray, "2 n 1 1"]:
    """Uniform top-left pixels (row, column), each in [0, limit]."""
    return rng.integers(0, limit + 1, size=(2, count, 1, 1))


def _crops(pictures: UInt8[np.ndarray, "n h h"], side: int, rng: np.random.Generator) -> UInt8[np.ndarray, "n f f"]:
    top, left = _corners(pictures.shape[1] - side, len(pictures), rng)
    step = np.arange(side)
    return pictures[np.arange(len(pictures))[:, None, None], top + step[:, None], left + step]


def _stamp(canvas: UInt8[np.ndarray, "n H H"], pictures: UInt8[np.ndarray, "n h h"], rng: np.random.Generator) -> None:
    """Put each picture on its canvas at a uniform place; the brighter of the two pixels stays."""
    side = pictures.shape[1]
    top, left = _corners(canvas.shape[1] - side, len(canvas), rng)
    step = np.arange(side)
    at = np.arange(len(canvas))[:, None, None], top + step[:, None], left + step
    canvas[at] = np.maximum(canvas[at], pictures)
