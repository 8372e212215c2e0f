"""Write canvases on which a digit has one of three sizes, as an npz that `--data npz:` reads.

    python experiments/zoom.py DIGITS OUT      (DIGITS: an npz with images uint8 [N, 28, 28] and labels [N])

A canvas of 112 x 112 pixels shows a digit of 14, 28 or 56 pixels a side anywhere, among three fragments of other
digits, each a quarter of a digit of one of these sizes. Where they overlap the brighter pixel is kept. Digits are split
into 80 % train, 10 % val and 10 % test; four canvases of each to train with, one of the others.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

CANVAS_PX, SIDES, FRAGMENTS, DIGIT_PX, TO_TRAIN = 112, (14, 28, 56), 3, 28, 4


def put(canvas: np.ndarray, picture: np.ndarray, side: int, rng: np.random.Generator) -> None:
    """Enlarge ``picture`` to ``side`` pixels and draw it anywhere on ``canvas``."""
    scaled = np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR))
    row, column = rng.integers(0, CANVAS_PX - side + 1, 2)
    part = canvas[row : row + side, column : column + side]
    np.maximum(part, scaled, out=part)


def main() -> None:
    digits, out = np.load(sys.argv[1]), Path(sys.argv[2])
    pictures, labels = digits["images"], digits["labels"]
    rng = np.random.default_rng(0)
    order = rng.permutation(len(pictures))
    split = np.repeat(["train", "val", "test"], np.diff(np.linspace(0, len(order), 11).astype(int)[[0, 8, 9, 10]]))
    order, split = (
        np.concatenate((np.tile(of[split == "train"], TO_TRAIN), of[split != "train"])) for of in (order, split)
    )
    canvases = np.zeros((len(order), CANVAS_PX, CANVAS_PX), np.uint8)
    for canvas, index, name in zip(canvases, order, split, strict=True):
        pool = order[split == name]
        for other in rng.choice(pool, FRAGMENTS):
            half = DIGIT_PX // 2
            top, left = rng.integers(0, half + 1, 2)
            put(canvas, pictures[other, top : top + half, left : left + half], rng.choice(SIDES) // 2, rng)
        put(canvas, pictures[index], int(rng.choice(SIDES)), rng)
    np.savez(out, x=canvases, y=labels[order], split=split)


if __name__ == "__main__":
    main()
