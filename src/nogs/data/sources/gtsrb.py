"""Crops of the German Traffic Sign Recognition Benchmark, to be pasted into photographs.

A class has a folder with ``GT-*.csv``, a row for each crop: its file, its size, the box of its sign, and its class. A
crop's name is TRACK_NUMBER.ppm. The 30 crops of a track show one sign as a car drives towards it. Stallkamp et al.
(2012), "Man vs. computer".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from nogs.data.files import is_number, read_lines
from nogs.data.frame import Box
from nogs.data.listing import Annotations, Faults, Listing, by_path
from nogs.data.sources.gtsdb import LAST_CLASS
from nogs.errors import UserError

HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
MARGIN = 0.1
"""Share of a sign's side that is kept of its surroundings on each side."""
ROUND = (*range(11), *range(15, 18), *range(32, 43))
"""Classes of circular signs, all limits among them."""
EVERY = 5
"""Step between the crops of a track that are used."""
COMPARED_PX = 24
"""Side length in pixels at which signs are compared."""
SHIFTS_PX = -1, 0, 1
"""Displacements at that size at which they are compared, along rows and columns."""
SAME = 0.95
"""Correlation from which on two pictures may be of one sign. Of 240 crops a tenth are as close to another track's."""


def gtsrb(root: Path, faults: Faults) -> Listing:
    """Return every fifth crop of each track, cut to its sign with a margin, and labelled with the sign's class."""
    files: list[Path] = []
    kinds: list[int] = []
    boxes: list[Box] = []
    for table in sorted(root.glob("*/GT-*.csv")):
        for row, line in enumerate(read_lines(table), start=1):
            if line.strip() in ("", HEADER):
                continue
            where, (name, *fields) = f"{table}, row {row}", line.strip().split(";")
            if len(fields) != HEADER.count(";") or not all(map(is_number, fields)) or int(fields[-1]) > LAST_CLASS:
                faults.add(where, f"is not {HEADER}, with a class from 0 to {LAST_CLASS}")
                continue
            width, height, left, top, right, bottom, kind = map(int, fields)
            if not (left < right <= width and top < bottom <= height):
                faults.add(where, f"a sign from {left},{top} to {right},{bottom} is not within {width}x{height} pixels")
            elif _number(name) % EVERY == EVERY - 1:
                across, down = round(MARGIN * (right - left)), round(MARGIN * (bottom - top))
                box = Box(left - across, top - down, right + across, bottom + down)
                files.append(table.parent / name)
                kinds.append(kind)
                boxes.append(box.within(width, height))
    if not files:
        raise UserError(f"{root}: has no crops (00000/GT-00000.csv ...); unpack them there")
    labels = np.array(kinds, dtype=np.int64)
    about = Annotations(tuple(file.name for file in files), labels, tuple(map(str, range(LAST_CLASS + 1))))
    return by_path(files, about, boxes=boxes)


def showing(
    crops: UInt8[np.ndarray, "M 3 s s"],
    about: Annotations,
    windows: Sequence[UInt8[np.ndarray, "3 _ _"]],
    kinds: Int[np.ndarray, " W"],
) -> Bool[np.ndarray, " M"]:
    """Return which crops are of a track that may show the same sign as a window of the same class.

    A track may if the grey values of one of its crops have a correlation of `SAME` or more with those of a window.
    ``windows``: pictures of signs with the margin of crops. ``kinds``: their classes.
    """
    close, border = np.zeros(len(crops), dtype=bool), max(SHIFTS_PX)
    inner = _standardised(_small(crops)[:, border:-border, border:-border])
    for window, kind in zip(windows, kinds.tolist(), strict=True):
        small = _small(window[None])
        side = COMPARED_PX - 2 * border
        views = [small[:, border + i :, border + j :][:, :side, :side] for i in SHIFTS_PX for j in SHIFTS_PX]
        same = np.flatnonzero(about.labels == kind)
        close[same] |= ((inner[same] @ _standardised(torch.cat(views)).T).amax(1) >= SAME).numpy()
    tracks = [(kind, name.partition("_")[0]) for kind, name in zip(about.labels.tolist(), about.names, strict=True)]
    found = {track for track, is_close in zip(tracks, close, strict=True) if is_close}
    return np.array([track in found for track in tracks])


def _small(pictures: UInt8[np.ndarray, "n 3 h w"]) -> Float[Tensor, "n p p"]:
    """Return pictures in grey at `COMPARED_PX` pixels a side."""
    grey = torch.from_numpy(np.ascontiguousarray(pictures)).float().mean(1, keepdim=True)
    return F.interpolate(grey, (COMPARED_PX, COMPARED_PX), mode="bilinear", antialias=True)[:, 0]


def _standardised(pictures: Float[Tensor, "n h w"]) -> Float[Tensor, "n p"]:
    """Return pictures whose products are their correlations."""
    centred = pictures.flatten(1) - pictures.flatten(1).mean(1, keepdim=True)
    return centred / centred.norm(dim=1, keepdim=True).clamp_min(1e-6)


def _number(name: str) -> int:
    """Return the number of a crop in its track, from its name TRACK_NUMBER.ppm; -1 if it has another name."""
    number = name.removesuffix(".ppm").rpartition("_")[2]
    return int(number) if is_number(number) else -1
