"""Write cluttered translated MNIST (Mnih et al. 2014, section 4.1) as an npz for `nogs run --data npz:...`.

python experiments/cluttered_mnist.py DIGITS OUT --canvas 60

DIGITS is an npz with ``images`` uint8 [N, 28, 28] and ``labels`` [N]. A canvas is black and has one digit at a uniform
location, among four 8x8 pieces of other digits. Digits are split first, 80 / 10 / 10 %, so that no digit is in two
splits. Each training digit is drawn on ``--copies`` canvases.
"""

from __future__ import annotations

import argparse

import numpy as np

PIECES, PIECE_PX = 4, 8


def stamp(canvas: np.ndarray, pictures: np.ndarray, chance: np.random.Generator) -> None:
    """Draw each picture [n, h, h] into its canvas [n, H, H] at a uniform location. The brighter pixel is kept."""
    side = pictures.shape[1]
    top, left = chance.integers(0, canvas.shape[1] - side + 1, size=(2, len(canvas), 1, 1))
    step = np.arange(side)
    at = np.arange(len(canvas))[:, None, None], top + step[:, None], left + step
    canvas[at] = np.maximum(canvas[at], pictures)


def pieces(pictures: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Return a square of PIECE_PX from a uniform location of each picture [n, h, h]."""
    top, left = chance.integers(0, pictures.shape[1] - PIECE_PX + 1, size=(2, len(pictures), 1, 1))
    step = np.arange(PIECE_PX)
    return pictures[np.arange(len(pictures))[:, None, None], top + step[:, None], left + step]


def cluttered(digits: np.ndarray, canvas_px: int, chance: np.random.Generator) -> np.ndarray:
    """Return one canvas [n, canvas_px, canvas_px] for each of ``digits`` [n, 28, 28], all of one split."""
    canvas = np.zeros((len(digits), canvas_px, canvas_px), dtype=np.uint8)
    stamp(canvas, digits, chance)
    for _ in range(PIECES):
        stamp(canvas, pieces(digits[chance.permutation(len(digits))], chance), chance)
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("digits")
    parser.add_argument("out")
    parser.add_argument("--canvas", type=int, default=60)
    parser.add_argument("--copies", type=int, default=4)
    arguments = parser.parse_args()
    with np.load(arguments.digits) as archive:
        x, y = archive["images"], archive["labels"]
    chance = np.random.default_rng(0)
    order, n = chance.permutation(len(x)), len(x)
    parts = {"train": order[: 8 * n // 10], "val": order[8 * n // 10 : 9 * n // 10], "test": order[9 * n // 10 :]}
    parts["train"] = np.tile(parts["train"], arguments.copies)
    np.savez_compressed(
        arguments.out,
        x=np.concatenate([cluttered(x[members], arguments.canvas, chance) for members in parts.values()]),
        y=np.concatenate([y[members] for members in parts.values()]),
        split=np.concatenate([np.full(len(members), name) for name, members in parts.items()]),
    )


if __name__ == "__main__":
    main()
