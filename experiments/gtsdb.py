"""Write where the limit in each composite of `gtsdb-pasted` is, as glimpse sequences to import.

    python experiments/gtsdb.py DATA GLIMPSE_SIZE STRIDE GLIMPSES > places.csv

A sequence is the location whose centre is nearest to that of the sign, over and over.
"""

from __future__ import annotations

import csv
import sys

import torch

import nogs
from nogs.config.groups import Source
from nogs.data.composites import Composites
from nogs.glimpses.grid import Grid


def main(data: str, glimpse_px: int, stride_px: int, glimpses: int) -> None:
    images = nogs.load(Source(data=data, fit="pad"))
    assert isinstance(images.images, Composites)
    grid = Grid(images.images.image_px, glimpse_px, stride_px)
    corners = grid.top_left_px(torch.arange(len(grid)))
    rows = csv.writer(sys.stdout)
    rows.writerow(("image", "task", "step", "row", "col", "eig_nats"))
    limit = images.images.pastes[:, -1]
    for image in (limit[:, 3] > 0).nonzero()[:, 0].tolist():
        _, row, column, side, _ = limit[image].tolist()
        centre = torch.tensor((row, column)) + (side - glimpse_px) / 2
        top, left = corners[(corners - centre).square().sum(1).argmin()].tolist()
        for step in range(1, glimpses + 1):
            rows.writerow((images.names[image], "", step, top, left, ""))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
