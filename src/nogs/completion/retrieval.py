"""Completion by retrieval from a bank of images (*Near-Optimal Glimpse Sequences*, section 4.1).

Importance sampling with a Gaussian relaxation of the likelihood,

    log w(x') = - Σ_t ‖y_t - fovea(x', l_t)‖² / 2σ²,

in two stages: all images of the bank and their mirror images are compared through their PCA approximations
(`nogs.completion.proposals`); the best are then compared pixel by pixel, shifted a little in every direction, and N
are resampled by weight. Only these best are ever decoded, so that a bank may be far larger than memory.

Where we differ: σ² is not a schedule in t, but tempered for each image to the smallest value that keeps a
given effective sample size, so that nothing needs tuning for new images; shifts enter in the exact stage.
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


@dataclass(frozen=True)
class Retrieval:
    """A completion that draws from ``bank``, for glimpses on ``grid``."""

    bank: Bank
    grid: Grid
    options: RetrievalOptions

    def unconditional(self, count: int, *, generator: Generator) -> Completions:
        """What an image may be before anything was seen: ``count`` draws from the bank, for one owner."""
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
            found = self._exact(Glimpses(seen.patches[row], seen.cells[row]), candidates, generator)
            images.append(found.images)
            owners.append(torch.full((len(found.images),), row))
            weights.append(found.weights)
            effective.append(found.effective)
        return Completions(torch.cat(images), torch.cat(owners), torch.cat(weights), torch.cat(effective))

    @cached_property
    def _viewers(self) -> tuple[Viewer, ...]:
        """Of the images as they are, and of their mirror images."""
        straight = Viewer(self.bank.mean, self.bank.components, self.grid, self.options.rank)
        return (straight, straight.mirrored()) if self.bank.mirror else (straight,)

    def _propose(self, seen: Glimpses, groups: Int[Tensor, " B"]) -> list[Int[Tensor, " _"]]:
        """For each image the nearest of the bank in PCA approximation, as `nearest` numbers them."""
        found = nearest(
            self.bank.latents,
            [viewer.query(seen) for viewer in self._viewers],
            count=self.options.proposals,
            groups=groups,
            groups_of_bank=self.bank.groups,
        )
        usable = found.distances.isfinite()
        if not usable.any(1).all():
            raise UserError(
                "`bank` holds only images of the same group (person) as one to be completed, and these may not "
                "complete it: build the bank from more"
            )
        # A small bank may hold fewer images of others than proposals were asked for.
        return [indices[finite] for indices, finite in zip(found.indices, usable, strict=True)]

    def _exact(self, seen: Glimpses, candidates: Int[Tensor, " M"], generator: Generator) -> Completions:
        """Weigh one image's candidates at every shift by their pixels, and resample.

        With scales, a coarse square that reaches over the border is compared with what the image shows there
        before its shift, not with the border repeated after it: a difference of a few averaged pixels, for which
        making every candidate at every shift would be dear.
        """
        versions = 1 + self.bank.mirror
        images, rows = self.bank.find(candidates // versions)
        mirrored = candidates % versions == 1
        s = self.options.shift
        shifts = torch.tensor([(dy, dx) for dy in (s, 0, -s) for dx in (s, 0, -s)]) if s else torch.zeros(1, 2).long()
        top_left_px = self.grid.top_left_px(seen.cells)

        def versions_of(some: Int[Tensor, " n"]) -> UInt8[Tensor, "n c H H"]:
            return _mirror(images.index_select(0, rows[some]), mirrored[some])

        wide_px = self.grid.glimpse_px + 2 * s
        if self.grid.scales == 1 and wide_px <= images.shape[-1]:
            # What is seen at all shifts is cut out of one larger square.
            wide = replace(self.grid, glimpse_px=wide_px)
            straight = (top_left_px - s).expand(len(rows), -1, -1)
            last = images.shape[-1] - wide.glimpse_px
            reflected = torch.stack((straight[..., 0], last - straight[..., 1]), dim=-1)
            squares = fovea(images, wide, torch.where(mirrored[:, None, None], reflected, straight), rows)
            squares = _mirror(squares, mirrored)
            distance = _sliding(squares.flatten(1, 2), seen.patches.flatten(0, 1), step=max(1, s)).flatten()
        else:
            # A shifted image seen at l is the image seen at l - shift: no shifted image is made to compare.
            places = (top_left_px[None] - shifts[:, None]).flatten(0, 1).expand(len(rows), -1, -1)
            views = fovea(versions_of(torch.arange(len(rows))), self.grid, places).unflatten(1, (len(shifts), -1))
            distance = (views.float() - seen.patches.float()).square().flatten(2).sum(-1).flatten()
        weights = temper(distance, self.options.effective * self.options.completions)
        chosen, counts = _resample(weights, self.options.completions, generator).unique(return_counts=True)
        moved = _shift(versions_of(chosen // len(shifts)), shifts[chosen % len(shifts)])
        effective = 1 / weights.square().sum()
        return Completions(moved, torch.zeros_like(chosen), counts / self.options.completions, effective[None])


def _mirror(squares: UInt8[Tensor, "*batch g g"], mirrored: Bool[Tensor, " n"]) -> UInt8[Tensor, "*batch g g"]:
    """Those that are ``mirrored`` left to right; in place."""
    some = mirrored.nonzero()[:, 0]
    return squares.index_copy_(0, some, squares.index_select(0, some).flip(-1))


def _sliding(squares: UInt8[Tensor, "M d w w"], patch: UInt8[Tensor, "d g g"], *, step: int) -> Float[Tensor, "M n n"]:
    """Squared distance of a patch to every part of each square, ``step`` pixels apart: ‖v‖² - 2 v·y + ‖y‖².

    Pixels are counted from grey, which keeps the three terms small beside their difference.
    """
    v, y = squares.float() - GREY, patch.float() - GREY
    g = patch.shape[-1]
    norms = F.avg_pool2d(v.square().sum(1, keepdim=True), g, step) * g**2
    return (norms - 2 * F.conv2d(v, y[None], stride=step) + y.square().sum())[:, 0].clamp_min(0)


def temper(distance: Float[Tensor, " M"], effective: float) -> Float[Tensor, " M"]:
    """Normalised weights exp(-distance / 2σ²) with the smallest σ² whose effective sample size is reached.

    ``distance`` is a sum of squares in pixel units. The size 1 / Σ w² grows with σ²: found by bisection.
    """
    excess = distance - distance.min()
    low, high = torch.tensor(-12.0), torch.tensor(24.0)  # log 2σ²: from exact match to indifference
    for _ in range(24):  # to two millionths of log 2σ²
        middle = (low + high) / 2
        weights = torch.softmax(-excess / middle.exp(), 0)
        if 1 / weights.square().sum() < effective:
            low = middle
        else:
            high = middle
    return torch.softmax(-excess / high.exp(), 0)


def _resample(weights: Float[Tensor, " M"], count: int, generator: Generator) -> Int[Tensor, " n"]:
    """Systematic resampling: ``count`` draws with one random number, the least variance of its kind."""
    ticks = (torch.arange(count) + torch.rand(1, generator=generator)) / count
    return torch.searchsorted(weights.cumsum(0), ticks).clamp_max(len(weights) - 1)


def _shift(images: UInt8[Tensor, "n c H H"], shifts: Int[Tensor, "n 2"]) -> UInt8[Tensor, "n c H H"]:
    """Move each image by its (rows, columns); the border pixel repeats."""
    whole = Grid(image_px=images.shape[-1], glimpse_px=images.shape[-1], stride_px=1)
    edge = int(shifts[:, 1].abs().max())
    left, right = (column.expand(-1, -1, -1, edge) for column in (images[..., :1], images[..., -1:]))
    return fovea(torch.cat((left, images, right), dim=-1), whole, (torch.tensor([0, edge]) - shifts)[:, None])[:, 0]
