"""Write where the signs in each composite of `gtsdb-pasted` are, as glimpse sequences to import.

    python experiments/gtsdb.py DATA GLIMPSE_SIZE STRIDE GLIMPSES [--limits] > places.csv

A sequence looks at the limit first, if there is one, and then at the other signs, each at the location whose centre is
nearest to that of the sign. The glimpses that are left go to the next nearest locations of the first sign. With
``--limits`` composites without a limit have no sequence.
"""

from __future__ import annotations

import csv
import sys

import torch

import nogs
from nogs.config.groups import Source
from nogs.data.composites import Composites
from nogs.glimpses.grid import Grid


def main(data: str, glimpse_px: int, stride_px: int, glimpses: int, *, limits: bool) -> None:
    images = nogs.load(Source(data=data, fit="pad"))
    assert isinstance(images.images, Composites)
    grid = Grid(images.images.image_px, glimpse_px, stride_px)
    corners = grid.top_left_px(torch.arange(len(grid)))
    rows = csv.writer(sys.stdout)
    rows.writerow(("image", "task", "step", "row", "col", "eig_nats"))
    for name, pastes in zip(images.names, images.images.pastes, strict=True):
        signs = [paste for paste in pastes.flip(0).tolist() if paste[3] > 0]  # the limit is pasted last
        if not signs or (limits and pastes[-1, 3] == 0):
            continue
        near = [
            (corners - torch.tensor((row, column)) - (side - glimpse_px) / 2).square().sum(1).argsort()[:glimpses]
            for _, row, column, side, _ in signs
        ]
        cells = torch.cat((torch.stack([of_sign[0] for of_sign in near]), near[0][1:]))[:glimpses]
        for step, (top, left) in enumerate(corners[cells].tolist(), start=1):
            rows.writerow((name, "", step, top, left, ""))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]), limits="--limits" in sys.argv)
