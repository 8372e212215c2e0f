"""Read street photographs, with signs from another benchmark pasted into those that show no speed limit, to learn from.

The folder holds both benchmarks as their archives unpack:

==============================  ======================================================================
``FullIJCNN2013``               photographs and ``gt.txt`` of the Detection Benchmark, as for ``gtsdb``
``GTSRB/Final_Training/Images`` crops of the Recognition Benchmark, in folders with a ``GT-*.csv`` each
==============================  ======================================================================

A third of the first 600 photographs are the val split, and the last 300 the test split; both are untouched. The train
split has the others untouched, and `COMPOSITES` composites (`nogs.data.composites`) of those that show no limit. A
composite shows at most one more limit, each limit as often, and up to `OTHERS` other signs, so that a pasted sign alone
tells nothing. Sizes and places are those of signs in training photographs, varied. Of circular signs the circle alone
is pasted: no photograph has the square around one.

The two benchmarks were recorded on the same drives, so crops of a limit that looks like one in a val or test photograph
are not pasted (`nogs.data.sources.gtsrb.showing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from numpy.random import Generator
from PIL import Image

from nogs.config.groups import Source
from nogs.data.composites import Composites
from nogs.data.decoded import decoded
from nogs.data.drawn import Drawn
from nogs.data.files import check_present
from nogs.data.frame import shown
from nogs.data.listing import Annotations, Arrays, Faults
from nogs.data.sources.gtsdb import LIMITS, NONE, gtsdb, signs
from nogs.data.sources.gtsrb import MARGIN, ROUND, gtsrb, showing
from nogs.data.splits import TRAIN, VAL, cut
from nogs.errors import UserError

PHOTOGRAPHS, CROPS = Path("FullIJCNN2013"), Path("GTSRB", "Final_Training", "Images")
CUTOUT_PX = 64
"""Side length of cut-outs. Signs are mostly smaller."""
VAL_SHARE = 1 / 3
COMPOSITES = 16000
NONE_SHARE = 0.5
"""Share of the composites that show no limit."""
OTHERS = 2
"""Most signs in a composite that are no limits."""
MOVED = 0.05
"""Standard deviation of the displacement of a sign, as a share of the photograph's side."""
RESIZED = 0.7, 1.3
BRIGHTNESS = 70, 130
"""Least and most brightness of a pasted sign, in per cent."""
MIN_SIGN_PX = 4
UNUSED = -1
"""In place of the class of a crop that is not pasted."""


class PlacedSign(NamedTuple):
    """A sign: its photograph's index, its class, and its centre (row, column) and side length there, in pixels."""

    photograph: int
    kind: int
    row: float
    column: float
    side: float


def gtsdb_pasted(root: Path, source: Source, faults: Faults) -> Arrays:
    """Return composites of ``source.split_seed`` and untouched photographs. Files that cannot be used become faults."""
    check_present("gtsdb-pasted", root, (str(PHOTOGRAPHS), str(CROPS)))
    listing, listed = gtsdb(root / PHOTOGRAPHS, source, faults), gtsrb(root / CROPS, faults)
    faults.stop()
    photographs, about = decoded(listing, source, faults)
    cutouts, cut_out = decoded(listed, replace(source, image_size=CUTOUT_PX), faults)
    faults.stop()
    if isinstance(photographs, Drawn) or isinstance(cutouts, Drawn):
        raise UserError(f"data={source.data}: photographs and crops must have less than two million pixels")
    if photographs.shape[1] != 3 or cutouts.shape[1] != 3:
        raise UserError(f"data={source.data}: photographs and crops must be in colour")
    if NONE not in about.classes:
        raise UserError(f"data={source.data}: all training photographs show a limit, so signs can be pasted into none")
    split = _split(about, source.split_seed)
    side_px, learned = photographs.shape[-1], (split == TRAIN).nonzero()[0]
    placed = _placed_signs(root / PHOTOGRAPHS, about.names, side_px, source)
    kinds = np.where(_held_out(photographs, split, cutouts, cut_out, placed), UNUSED, cut_out.labels)
    rng = np.random.default_rng(source.split_seed)
    photograph = rng.choice(learned[about.labels[learned] == about.classes.index(NONE)], COMPOSITES)
    seen = [sign for sign in placed if split[sign.photograph] == TRAIN]
    pastes, limits = _pastes(kinds, seen, side_px, rng, [name for name in about.classes if name != NONE])
    untouched = np.zeros((len(photographs), *pastes.shape[1:]), dtype=np.int64)
    of_all = np.concatenate((np.arange(len(photographs)), photograph))
    composites = Composites(
        torch.from_numpy(photographs),
        torch.from_numpy(cutouts),
        torch.from_numpy(np.isin(cut_out.labels, ROUND)),
        torch.from_numpy(of_all),
        torch.from_numpy(np.concatenate((untouched, pastes))),
    )
    together = Annotations(
        names=(*about.names, *(f"pasted-{i:06d}" for i in range(COMPOSITES))),
        labels=np.concatenate((about.labels, [about.classes.index(limit) for limit in limits])),
        classes=about.classes,
        split=np.concatenate((split, np.full(COMPOSITES, TRAIN))),
        groups=of_all,
    )
    return Arrays(composites, together)


def _split(about: Annotations, seed: int) -> Int[np.ndarray, " N"]:
    """Return the splits of the photographs, with a third of the published train split in val."""
    split = np.zeros(len(about.names), dtype=np.int64) if about.split is None else about.split.copy()
    each = np.arange(len(split))
    split[cut(split == TRAIN, about.labels, groups=each, share=VAL_SHARE, seed=seed)] = VAL
    return split


def _held_out(
    photographs: UInt8[np.ndarray, "P 3 H H"],
    split: Int[np.ndarray, " P"],
    cutouts: UInt8[np.ndarray, "M 3 s s"],
    cut_out: Annotations,
    placed: list[PlacedSign],
) -> Bool[np.ndarray, " M"]:
    """Return which crops are of a track that shows a limit which a photograph of val or test shows."""
    held = [sign for sign in placed if split[sign.photograph] != TRAIN and sign.kind in LIMITS]
    windows = [_window(photographs[sign.photograph], sign) for sign in held]
    return showing(cutouts, cut_out, windows, np.array([sign.kind for sign in held], dtype=np.int64))


def _window(photograph: UInt8[np.ndarray, "3 H H"], sign: PlacedSign) -> UInt8[np.ndarray, "3 s s"]:
    """Return a sign with the margin that crops have."""
    side = min(max(MIN_SIGN_PX, round(sign.side * (1 + 2 * MARGIN))), photograph.shape[-1])
    top, left = (min(max(0, round(at - side / 2)), photograph.shape[-1] - side) for at in (sign.row, sign.column))
    return photograph[:, top : top + side, left : left + side]


def _placed_signs(root: Path, names: Sequence[str], side_px: int, source: Source) -> list[PlacedSign]:
    """Return all signs of the photographs ``names`` whose centres the squares keep."""
    placed = []
    index = {name: i for i, name in enumerate(names)}
    sizes: dict[str, tuple[int, int]] = {}
    for name, box, kind in signs(root, index, Faults(skip=True)):
        if name not in sizes:
            with Image.open(root / name) as image:
                sizes[name] = image.size
        square = shown(*sizes[name], source.fit)
        down, across = side_px / (square.bottom - square.top), side_px / (square.right - square.left)
        sign = PlacedSign(
            index[name],
            kind,
            ((box.top + box.bottom) / 2 - square.top) * down,
            ((box.left + box.right) / 2 - square.left) * across,
            float(np.sqrt((box.bottom - box.top) * down * (box.right - box.left) * across)),
        )
        if 0 <= sign.row < side_px and 0 <= sign.column < side_px:
            placed.append(sign)
    return placed


def _pastes(
    kinds: Int[np.ndarray, " M"], placed: list[PlacedSign], side_px: int, rng: Generator, limits: list[str]
) -> tuple[Int[np.ndarray, "N S 5"], list[str]]:
    """Return the pastes of all composites, other signs first and a limit last, and the limit that each shows."""
    if not placed:
        raise UserError("no training photograph shows a sign, so sizes and places are unknown; unpack all of gtsdb")
    pools = {LIMITS[kind]: (kinds == kind).nonzero()[0] for kind in LIMITS}
    others = (~np.isin(kinds, [*LIMITS, UNUSED])).nonzero()[0]
    for limit in limits:
        if not len(pools[limit]):
            raise UserError(f"there is no crop of the limit {limit} in {CROPS} to learn from; unpack all of them")
    pastes = np.zeros((COMPOSITES, OTHERS + 1, 5), dtype=np.int64)
    shows: list[str] = []
    for of_one in pastes:
        limit = NONE if rng.random() < NONE_SHARE else str(rng.choice(limits))
        shows.append(limit)
        pasted = [rng.choice(others) for _ in range(rng.integers(OTHERS + 1))] if len(others) else []
        for slot, cutout in enumerate(pasted):
            of_one[slot] = _paste(int(cutout), placed, side_px, rng)
        if limit != NONE:
            of_one[OTHERS] = _paste(int(rng.choice(pools[limit])), placed, side_px, rng)
    return pastes, shows


def _paste(cutout: int, placed: list[PlacedSign], side_px: int, rng: Generator) -> Int[np.ndarray, " 5"]:
    """Return a paste of a cut-out with about the place and the size of some sign."""
    sign = placed[rng.integers(len(placed))]
    sign_px = max(MIN_SIGN_PX, sign.side * rng.uniform(*RESIZED))
    side = min(round(sign_px * (1 + 2 * MARGIN)), side_px - 2)
    centre = np.array((sign.row, sign.column)) + rng.normal(0, MOVED * side_px, 2)
    first = np.clip(np.round(centre - side / 2), 1, side_px - 1 - side).astype(np.int64)
    return np.array((cutout, *first, side, rng.integers(BRIGHTNESS[0], BRIGHTNESS[1] + 1)))
