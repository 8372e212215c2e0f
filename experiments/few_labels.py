"""Draw few labelled faces and leave all others unlabelled; tabulate what was trained with them.

    python experiments/few_labels.py draw CELEBA OUT DRAW      writes OUT/drawDRAW-nN.csv for each number of labels N
    python experiments/few_labels.py table OUT                 prints the tables from the run directories below OUT

The test images are those of ``celeba:CELEBA``, all 2,270. Of the training partition N images are labelled, and of the
validation partition max(50, N / 4), which choose iterations and settings of every method. People do not cross
partitions. Both draws are nested: a larger N has the images of a smaller one. They keep the share of Eyeglasses to the
nearest image, so that a hundred labels hold six faces with glasses. All other images of both partitions have no label.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nogs.config.groups import Source
from nogs.data import SPLITS, load
from nogs.data.imageset import UNLABELLED

LABELLED = (100, 300, 1000)
TASKS = ("Smiling", "Eyeglasses", "Male")
STRATIFIED = "Eyeglasses"


def validated(labelled: int) -> int:
    """Return the number of validation images beside so many labelled training images."""
    return max(50, labelled // 4)


def order(positive: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Return an order of all images in which the first n hold round(n x rate) positives, for every n."""
    among = [rng.permutation(np.flatnonzero(positive == sign)) for sign in (False, True)]
    due = np.diff(np.round(np.arange(len(positive) + 1) * positive.mean())).astype(int)
    turns = [iter(of_sign) for of_sign in among]
    return np.array([next(turns[sign]) for sign in due])


def draw(celeba: Path, out: Path, seed: int) -> None:
    """Write the tables of one draw. They list the same files in the same order, so that these are decoded once."""
    faces = load(Source(data=f"celeba:{celeba}", image_size=64))
    rng = np.random.default_rng(seed)
    positive = faces.labels[:, faces.classes.index(STRATIFIED)].numpy() == 1
    ranked = {
        split: (rows := faces.members(split).numpy())[order(positive[rows], rng=rng)] for split in ("train", "val")
    }
    test = set(faces.members("test").tolist())
    columns = [faces.classes.index(task) for task in TASKS]
    out.mkdir(parents=True, exist_ok=True)
    for labelled in LABELLED:
        train = set(ranked["train"][:labelled].tolist())
        val = set(ranked["val"][: validated(labelled)].tolist())
        split_of = {row: name for name, rows in zip(SPLITS, (train, val, test), strict=True) for row in rows}
        for name, rows in (("", range(len(faces))), ("-labelled", sorted(split_of))):
            with (out / f"draw{seed}-n{labelled}{name}.csv").open("w", newline="", encoding="utf-8") as stream:
                table = csv.writer(stream)
                table.writerow(["file", "split", *TASKS])
                for row in rows:
                    split = split_of.get(row, UNLABELLED)
                    labels = faces.labels[row, columns].tolist() if row in split_of else [""] * len(TASKS)
                    table.writerow([(celeba / "img_align_celeba" / faces.names[row]).absolute(), split, *labels])


def main() -> None:
    what, *rest = sys.argv[1:]
    if what == "draw":
        draw(Path(rest[0]), Path(rest[1]), int(rest[2]))


if __name__ == "__main__":
    main()
