"""Completion by retrieval from a bank of images (*Near-Optimal Glimpse Sequences*, section 4.1).

Importance sampling with a Gaussian relaxation of the likelihood,

    log w(x') = - Σ_t ‖y_t - fovea(x', l_t)‖² / 2σ²,

in two stages. First all images of the bank and their mirror images are compared in PCA approximation
(`nogs.completion.proposals`). Then the nearest are compared pixel by pixel, at shifts in every direction, and N are
resampled by weight. Only the nearest are decoded, so that a bank may be far larger than memory.

Where we differ: σ² is not a schedule in t. It is the smallest value, for each image, that keeps a given effective
sample size, so nothing needs tuning for new images. Shifted copies are compared in the second stage only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Generator, Tensor
from torch.nn import functional as F

from nogs.completion.bank import Bank
from nogs.completion.proposals import Viewer, nearest
from nogs.completion.protocol import Completions
from nogs.config.groups import RetrievalOptions
from nogs.errors import UserError
from nogs.glimpses.fovea import Glimpses, fovea
from nogs.glimpses.grid import Grid

GREY = 127.5
"""The middle of [0, 255], subtracted from pixels to keep rounding errors small."""


@dataclass(frozen=True)
class Retrieval:
    """The completion that draws images from ``bank``, for glimpses on ``grid``."""

    bank: Bank
    grid: Grid
    options: RetrievalOptions

    def unconditional(self, count: int, *, generator: Generator) -> Completions:
        """Return ``count`` distinct images of the bank with equal weights, for one owner."""
        size = sum(map(len, self.bank.latents))
        chosen = torch.randperm(size, generator=generator)[:count].sort().values
        n = len(chosen)
        return Completions(
            self.bank.pictures(chosen),
            torch.zeros(n, dtype=torch.long),
            torch.full((n,), 1 / n),
            torch.tensor([float(n)]),
        )

    def __call__(self, seen: Glimpses, *, groups: Int[Tensor, " B"], generator: Generator) -> Completions:
        proposed = self._propose(seen, groups)
        images, owners, weights, effective = [], [], [], []
        for row, candidates in enumerate(proposed):
            drawn = self._exact(Glimpses(seen.patches[row], seen.cells[row]), candidates, generator)
            images.append(drawn.images)
            owners.append(torch.full((len(drawn.images),), row))
            weights.append(drawn.weights)
            effective.append(drawn.effective)
        return Completions(torch.cat(images), torch.cat(owners), torch.cat(weights), torch.cat(effective))

    @cached_property
    def _viewers(self) -> tuple[Viewer, ...]:
        """The viewer for the images as they are, and with ``mirror`` that for mirror images."""
        straight = Viewer(self.bank.mean, self.bank.components, self.grid, self.options.rank)
        return (straight, straight.mirrored()) if self.bank.mirror else (straight,)

    def _propose(self, seen: Glimpses, groups: Int[Tensor, " B"]) -> list[Int[Tensor, " _"]]:
        """Return the candidates nearest to each image in PCA approximation, numbered as by `nearest`."""
        proposed = nearest(
            self.bank.latents,
            [viewer.query(seen) for viewer in self._viewers],
            count=self.options.proposals,
            groups=groups,
            groups_of_bank=self.bank.groups,
        )
        usable = proposed.distances.isfinite()
        if not usable.any(1).all():
            raise UserError(
                "`bank` holds only images of the same group (person) as one to be completed, which are excluded: "
                "build the bank from more images"
            )
        # A small bank may hold fewer images of other groups than ``proposals``.
        return [indices[finite] for indices, finite in zip(proposed.indices, usable, strict=True)]

    def _exact(self, seen: Glimpses, candidates: Int[Tensor, " M"], generator: Generator) -> Completions:
        """Weight one image's M candidates at every shift by their pixels, and resample.

        With several scales, a coarse square that reaches over the border is compared with the unshifted image, and not
        with the border repeated after the shift. That changes a few averaged pixels, and saves making every candidate
        at every shift.
        """
        versions = 1 + self.bank.mirror
        images, rows = self.bank.select(candidates // versions)
        mirrored = candidates % versions == 1
        s = self.options.shift
        shifts = torch.tensor([(dy, dx) for dy in (s, 0, -s) for dx in (s, 0, -s)]) if s else torch.zeros(1, 2).long()
        top_left_px = self.grid.top_left_px(seen.cells)

        def pictures(chosen: Int[Tensor, " n"]) -> UInt8[Tensor, "n c H H"]:
            return _mirror(images.index_select(0, rows[chosen]), mirrored[chosen])

        wide_px = self.grid.glimpse_px + 2 * s
        if self.grid.scales == 1 and wide_px <= images.shape[-1]:
            # One larger square holds the glimpses at all shifts.
            wide = replace(self.grid, glimpse_px=wide_px)
            straight = (top_left_px - s).expand(len(rows), -1, -1)
            last = images.shape[-1] - wide.glimpse_px
            reflected = torch.stack((straight[..., 0], last - straight[..., 1]), dim=-1)
            squares = fovea(images, wide, torch.where(mirrored[:, None, None], reflected, straight), rows)
            squares = _mirror(squares, mirrored)
            distance = _sliding(squares.flatten(1, 2), seen.patches.flatten(0, 1), step=max(1, s)).flatten()
        else:
            # A glimpse at l of a shifted image is the glimpse at l - shift of the image, so no image is shifted here.
            places = (top_left_px[None] - shifts[:, None]).flatten(0, 1).expand(len(rows), -1, -1)
            views = fovea(pictures(torch.arange(len(rows))), self.grid, places).unflatten(1, (len(shifts), -1))
            distance = (views.float() - seen.patches.float()).square().flatten(2).sum(-1).flatten()
        weights = temper(distance, self.options.effective * self.options.completions)
        chosen, counts = _resample(weights, self.options.completions, generator).unique(return_counts=True)
        moved = _shift(pictures(chosen // len(shifts)), shifts[chosen % len(shifts)])
        effective = 1 / weights.square().sum()
        return Completions(moved, torch.zeros_like(chosen), counts / self.options.completions, effective[None])


def _mirror(squares: UInt8[Tensor, "*batch g g"], mirrored: Bool[Tensor, " n"]) -> UInt8[Tensor, "*batch g g"]:
    """Mirror left to right, in place, the squares where ``mirrored`` is true; return all."""
    rows = mirrored.nonzero()[:, 0]
    return squares.index_copy_(0, rows, squares.index_select(0, rows).flip(-1))


def _sliding(squares: UInt8[Tensor, "M d w w"], patch: UInt8[Tensor, "d g g"], *, step: int) -> Float[Tensor, "M n n"]:
    """Return the squared distance ‖v‖² - 2 v·y + ‖y‖² of a patch y to each part v of each square.

    Parts are ``step`` pixels apart. Pixels are taken relative to grey, so that the three terms are small and their
    rounding errors too.
    """
    v, y = squares.float() - GREY, patch.float() - GREY
    g = patch.shape[-1]
    norms = F.avg_pool2d(v.square().sum(1, keepdim=True), g, step) * g**2
    return (norms - 2 * F.conv2d(v, y[None], stride=step) + y.square().sum())[:, 0].clamp_min(0)


def temper(distance: Float[Tensor, " M"], effective: float) -> Float[Tensor, " M"]:
    """Return normalised weights w ∝ exp(-distance / 2σ²), with the smallest σ² that reaches a sample size.

    ``distance``: sums of squares in pixel units. ``effective``: the effective sample size 1 / Σ w² to reach. It grows
    with σ², which is found by bisection.
    """
    excess = distance - distance.min()
    low, high = torch.tensor(-12.0), torch.tensor(24.0)  # log 2σ²: only exact matches count, to equal weights
    for _ in range(24):  # 24 halvings leave an interval of two millionths in log 2σ²
        middle = (low + high) / 2
        weights = torch.softmax(-excess / middle.exp(), 0)
        if 1 / weights.square().sum() < effective:
            low = middle
        else:
            high = middle
    return torch.softmax(-excess / high.exp(), 0)


def _resample(weights: Float[Tensor, " M"], count: int, generator: Generator) -> Int[Tensor, " n"]:
    """Return ``count`` indices by systematic resampling: evenly spaced draws with one random offset."""
    positions = (torch.arange(count) + torch.rand(1, generator=generator)) / count
    return torch.searchsorted(weights.cumsum(0), positions).clamp_max(len(weights) - 1)


def _shift(images: UInt8[Tensor, "n c H H"], shifts: Int[Tensor, "n 2"]) -> UInt8[Tensor, "n c H H"]:
    """Move each image by its shift (rows, columns) in pixels; border pixels are repeated."""
    whole = Grid(image_px=images.shape[-1], glimpse_px=images.shape[-1], stride_px=1)
    edge = int(shifts[:, 1].abs().max())
    left, right = (column.expand(-1, -1, -1, edge) for column in (images[..., :1], images[..., -1:]))
    return fovea(torch.cat((left, images, right), dim=-1), whole, (torch.tensor([0, edge]) - shifts)[:, None])[:, 0]
