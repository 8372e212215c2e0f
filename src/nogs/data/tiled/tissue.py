"""Draw synthetic slides: a piece of textured tissue with nodules, one of which may hold a lesion.

Nodules are alike at a distance: a dark core in a paler halo, which a reduced view shows. Close to, the core of a lesion
is ``striped`` or ``spotted``, and every other core is mottled at random, with the same two colours and the same grain.
So a reduced view tells where nodules are and not whether one is a lesion, nor of which kind.

The tissue between nodules is drawn from a stock of tiles, which all slides of a seed share.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.random import Generator, default_rng

from nogs.data.tiled.pyramid import TILE_PX, Tile, tile_of
from nogs.errors import UserError

KINDS = ("none", "spotted", "striped")
"""Labels: the kind of the lesion, or none."""
NODULES = 4
HALO = 3
"""Diameter of a halo, in diameters of the core."""
LEAST_PX = 16
"""Diameter of a core, in pixels, under which its texture is not seen."""
GRAINS = 4
"""Periods of the texture across a core, unless a period would be shorter than `LEAST_GRAIN_PX`."""
LEAST_GRAIN_PX = 5.0
STOCK = 64
GLASS, TISSUE, NUCLEUS, BLOOD = (238, 236, 238), (214, 160, 190), (122, 70, 140), (150, 84, 130)
CONTRAST = 34
"""Difference of the two colours of a core from their mean."""
RADIUS, WAVES, WAVE = 0.42, (2, 3, 5), 0.05
"""Mean radius of the tissue in sides, and the number and height in radii of the waves of its border."""
WITHIN = 0.3
"""Distance of nodules from the centre, in sides, at most."""
COARSE = 4
"""Pixels of a step of the border."""


class Nodule(NamedTuple):
    """A nodule: its centre and the angle of its texture in pixels and radians, its kind, and what it is mottled by."""

    row: float
    column: float
    kind: str
    angle: float
    signs: Bool[np.ndarray, "s s"]


class Drawing:
    """One slide of ``side_px`` pixels a side. ``kind``: of its lesion. The same ``seed`` gives the same slide.

    ``core_px``: diameter of the core of a nodule. ``stock``: as `stock` returns it.
    """

    def __init__(self, side_px: int, core_px: float, *, kind: str, stock: Stock, seed: tuple[int, ...]) -> None:
        self._rng = default_rng(seed)
        self.side_px, self.core_px, self._stock = side_px, core_px, stock
        self._phases = self._rng.uniform(0, 2 * math.pi, len(WAVES))
        self._tiles = self._rng.integers(0, STOCK, (-(-side_px // TILE_PX),) * 2)
        self.nodules = self._nodules(kind)

    @property
    def lesion(self) -> Nodule | None:
        return next((nodule for nodule in self.nodules if nodule.kind != KINDS[0]), None)

    def tile(self, row: int, column: int) -> Tile:
        """Return a tile of level 0."""
        top, left = row * TILE_PX, column * TILE_PX
        stocked = self._stock.tissue[self._tiles[row, column]]
        inside = self._inside(top, left)
        near = [nodule for nodule in self.nodules if self._touches(nodule, top, left)]
        if isinstance(inside, bool) and not (inside and near):
            return stocked if inside else self._stock.glass
        pixels = stocked.pixels.astype(np.float32)
        for nodule in near:
            self._draw(nodule, pixels, top, left)
        if not isinstance(inside, bool):
            pixels = np.where(inside[..., None], pixels, self._stock.glass.pixels)
        return tile_of(pixels.round().clip(0, 255).astype(np.uint8))

    def _nodules(self, kind: str) -> tuple[Nodule, ...]:
        """Place nodules that do not overlap; the first is of ``kind``."""
        placed: list[tuple[float, float]] = []
        while len(placed) < NODULES:
            distance, angle = WITHIN * math.sqrt(self._rng.uniform()), self._rng.uniform(0, 2 * math.pi)
            at = tuple(self.side_px * (0.5 + distance * turn(angle)) for turn in (math.sin, math.cos))
            if all(math.dist(at, other) > HALO * self.core_px for other in placed):
                placed.append((at[0], at[1]))
        cells = math.ceil(2 * self.core_px / self.grain_px) + 1
        return tuple(
            Nodule(
                *at,
                kind if number == 0 else KINDS[0],
                self._rng.uniform(0, math.pi),
                self._rng.integers(0, 2, (2 * cells, 2 * cells)).astype(bool),
            )
            for number, at in enumerate(placed)
        )

    @cached_property
    def grain_px(self) -> float:
        """Period of the texture of a core."""
        return max(LEAST_GRAIN_PX, self.core_px / GRAINS)

    def _inside(self, top: int, left: int) -> bool | Bool[np.ndarray, "256 256"]:
        """Return whether a tile lies in the tissue, or which of its pixels do."""
        middle, half = self.side_px / 2, TILE_PX / 2
        centre = math.hypot(top + half - middle, left + half - middle)
        radius, uneven = RADIUS * self.side_px, 1 + WAVE * len(WAVES)
        if centre + TILE_PX < radius / uneven:
            return True
        if centre - TILE_PX > radius * uneven:
            return False
        steps = (np.arange(TILE_PX // COARSE) + 0.5) * COARSE
        y, x = (top + steps - middle)[:, None], (left + steps - middle)[None]
        angle = np.arctan2(y, x)
        waves = sum(np.cos(times * angle + phase) for times, phase in zip(WAVES, self._phases, strict=True))
        within = np.hypot(y, x) < radius * (1 + WAVE * waves)
        return within.repeat(COARSE, 0).repeat(COARSE, 1)

    def _touches(self, nodule: Nodule, top: int, left: int) -> bool:
        nearest = (min(max(at, edge), edge + TILE_PX) for at, edge in ((nodule.row, top), (nodule.column, left)))
        return math.dist((nodule.row, nodule.column), tuple(nearest)) < HALO * self.core_px / 2

    def _draw(self, nodule: Nodule, pixels: Float[np.ndarray, "256 256 3"], top: int, left: int) -> None:
        """Draw a nodule into a tile."""
        span = np.arange(TILE_PX) + 0.5
        y, x = (top + span - nodule.row)[:, None], (left + span - nodule.column)[None]
        distance = np.hypot(y, x)
        halo, core = distance < HALO * self.core_px / 2, distance < self.core_px / 2
        pixels[halo] = 0.5 * pixels[halo] + 0.5 * np.array(BLOOD)
        along = y * math.cos(nodule.angle) + x * math.sin(nodule.angle)
        across = x * math.cos(nodule.angle) - y * math.sin(nodule.angle)
        u, v = along[core] / self.grain_px, across[core] / self.grain_px
        if nodule.kind == "striped":
            bright = np.sin(2 * math.pi * u) > 0
        elif nodule.kind == "spotted":
            bright = np.sin(2 * math.pi * u) * np.sin(2 * math.pi * v) > 0
        else:
            middle = len(nodule.signs) // 2
            bright = nodule.signs[(np.floor(2 * u) + middle).astype(int), (np.floor(2 * v) + middle).astype(int)]
        pixels[core] = np.array(NUCLEUS) + CONTRAST * np.where(bright, 1, -1)[:, None]


class Stock(NamedTuple):
    """Tiles that slides are made of."""

    glass: Tile
    tissue: tuple[Tile, ...]


def stock(seed: int) -> Stock:
    """Return the stock of a seed: an even tile of glass, and tiles of tissue."""
    rng = default_rng((seed, 0))
    glass = np.full((TILE_PX, TILE_PX, 3), GLASS, dtype=np.uint8)
    return Stock(tile_of(glass), tuple(tile_of(_tissue(rng)) for _ in range(STOCK)))


def _tissue(rng: Generator) -> UInt8[np.ndarray, "256 256 3"]:
    """Return a tile of tissue: soft grain and dark nuclei."""
    pixels = np.array(TISSUE) + np.zeros((TILE_PX, TILE_PX, 3))
    for grain_px, height in ((64, 8), (16, 6), (4, 4)):
        grain = rng.normal(0, height, (TILE_PX // grain_px, TILE_PX // grain_px, 1))
        pixels += grain.repeat(grain_px, 0).repeat(grain_px, 1)
    for row, column, radius in rng.uniform((0, 0, 2), (TILE_PX, TILE_PX, 5), (60, 3)):
        top, left = (max(0, int(at - radius)) for at in (row, column))
        around = pixels[top : int(row + radius) + 2, left : int(column + radius) + 2]
        y, x = np.ogrid[top : top + around.shape[0], left : left + around.shape[1]]
        around[(y - row) ** 2 + (x - column) ** 2 < radius**2] = NUCLEUS
    return pixels.clip(0, 255).astype(np.uint8)


def core_px(side_px: int, lesion_share: float) -> float:
    """Return the diameter of a lesion of this share of a slide's area. Raises UserError if it does not fit."""
    diameter = side_px * math.sqrt(4 * lesion_share / math.pi)
    if diameter < LEAST_PX:
        least = math.pi / 4 * (LEAST_PX / side_px) ** 2
        raise UserError(
            f"lesion_share={lesion_share:g}: a lesion is {diameter:.1f} pixels wide at side={side_px}, and its "
            f"texture needs {LEAST_PX}: give at least {least:.2g}"
        )
    if HALO * diameter * 2 * math.sqrt(NODULES) > 2 * WITHIN * side_px:
        most = math.pi / 4 * (WITHIN / HALO) ** 2 / NODULES
        raise UserError(f"lesion_share={lesion_share:g}: {NODULES} nodules do not fit: give at most {most:.2g}")
    return diameter
