"""Completion by retrieval from a bank of images (*Near-Optimal Glimpse Sequences*, section 4.1).

Importance sampling with a Gaussian relaxation of the likelihood,

    log w(x') = - Σ_t ‖y_t - fovea(x', l_t)‖² / 2σ²,

in two stages: all images of the bank and their mirror images are compared through their PCA approximations,
where fovea(x', l) ≈ fovea(μ, l) + fovea(V, l) z because the fovea is linear; the best are then compared
pixel by pixel, shifted a little in every direction, and N are resampled by weight.

Where we differ: σ² is not a schedule in t, but tempered for each image to the smallest value that keeps a
given effective sample size, so that nothing needs tuning for new images; shifts enter in the exact stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

from nogs.completion.protocol import Completions
from nogs.config import RetrievalOptions
from nogs.errors import UserError
from nogs.glimpses import Glimpses, Grid, fovea

FIT_IMAGES = 3000
"""PCA is fitted on so many images of the bank; all are then projected."""


class Bank(NamedTuple):
    """Images to retrieve, and their PCA. ``latents[1]`` are those of the mirror images, if there are any."""

    images: UInt8[Tensor, "N c H H"]
    groups: Int[Tensor, " N"]
    mean: Float[Tensor, "c H H"]
    components: Float[Tensor, "k c H H"]
    latents: Float[Tensor, "mirrors N k"]


def principal_components(
    images: UInt8[Tensor, "N c H H"], *, components: int, generator: Generator
) -> tuple[Float[Tensor, "c H H"], Float[Tensor, "k c H H"]]:
    """Mean and leading principal components, in pixel units of [0, 255], by randomised SVD of a subset."""
    subset = torch.randperm(len(images), generator=generator)[:FIT_IMAGES].sort().values
    flat = images[subset].flatten(1).float()
    mean = flat.mean(0)
    rank = min(components, len(flat) - 1, flat.shape[1])
    # svd_lowrank draws from the global generator: lend it ours.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        _, _, V = torch.svd_lowrank(flat - mean, q=min(rank + 16, *flat.shape), niter=2)
    shape = images.shape[1:]
    return mean.reshape(shape), V[:, :rank].T.reshape(-1, *shape).contiguous()


def project(
    images: UInt8[Tensor, "N c H H"], mean: Float[Tensor, "c H H"], components: Float[Tensor, "k c H H"]
) -> Float[Tensor, "N k"]:
    """PCA latents of whole images."""
    return (images.float() - mean).flatten(1) @ components.flatten(1).T


@dataclass(frozen=True)
class Retrieval:
    """A completion that draws from ``bank``, for glimpses on ``grid``."""

    bank: Bank
    grid: Grid
    options: RetrievalOptions

    def unconditional(self, count: int, *, generator: Generator) -> Completions:
        """What an image may be before anything was seen: ``count`` draws from the bank, for one owner."""
        chosen = torch.randperm(len(self.bank.images), generator=generator)[:count].sort().values
        n = len(chosen)
        return Completions(
            self.bank.images[chosen],
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

    def _propose(self, seen: Glimpses, groups: Int[Tensor, " B"]) -> list[Int[Tensor, " _"]]:
        """Nearest bank entries (index + N for a mirror image) by squared distance in PCA approximation."""
        bank = self.bank
        z = bank.latents.flatten(0, 1).float()
        distance = torch.zeros(len(groups), len(z))
        for t in range(seen.cells.shape[1]):
            # Images looked at in one place share the reconstruction of that place.
            for cell in seen.cells[:, t].unique():
                rows = (seen.cells[:, t] == cell).nonzero()[:, 0]
                place = self.grid.top_left_px(cell[None])[None]
                centre = fovea(bank.mean[None], self.grid, place).flatten(1)
                basis = fovea(bank.components, self.grid, place.expand(len(bank.components), -1, -1)).flatten(1)
                guess = z @ basis
                y = seen.patches[rows, t].flatten(1).float() - centre
                distance[rows] += guess.square().sum(1) - 2 * y @ guess.T
        same = groups[:, None] == bank.groups[None]
        distance.masked_fill_(same.repeat(1, len(bank.latents)), torch.inf)
        if same.all(1).any():
            raise UserError(
                "--bank holds only images of the same group (person) as one to be completed, and these may not "
                "complete it: build the bank from more"
            )
        # A small bank may hold fewer images of others than proposals were asked for.
        return [
            row.topk(min(self.options.proposals, int(row.isfinite().sum())), largest=False).indices for row in distance
        ]

    def _exact(self, seen: Glimpses, candidates: Int[Tensor, " M"], generator: Generator) -> Completions:
        """Weigh one image's candidates at every shift by their pixels, and resample.

        With scales, a coarse square that reaches over the border is compared with what the image shows there
        before its shift, not with the border repeated after it: a difference of a few averaged pixels, for which
        making every candidate at every shift would be dear.
        """
        N, s = len(self.bank.images), self.options.shift
        pictures = self.bank.images[candidates % N]
        mirrored = candidates >= N
        pictures[mirrored] = pictures[mirrored].flip(-1)
        shifts = torch.tensor([(dy, dx) for dy in (-s, 0, s) for dx in (-s, 0, s)]) if s else torch.zeros(1, 2).long()
        top_left_px = self.grid.top_left_px(seen.cells)
        # A shifted image seen at l is the image seen at l - shift: no shifted image is made to compare.
        places = (top_left_px[None] - shifts[:, None]).flatten(0, 1).expand(len(pictures), -1, -1)
        views = fovea(pictures, self.grid, places).unflatten(1, (len(shifts), -1))
        distance = (views.float() - seen.patches.float()).square().flatten(2).sum(-1).flatten()
        weights = temper(distance, self.options.effective * self.options.completions)
        chosen, counts = _resample(weights, self.options.completions, generator).unique(return_counts=True)
        images = _shift(pictures[chosen // len(shifts)], shifts[chosen % len(shifts)])
        effective = 1 / weights.square().sum()
        return Completions(images, torch.zeros_like(chosen), counts / self.options.completions, effective[None])


def temper(distance: Float[Tensor, " M"], effective: float) -> Float[Tensor, " M"]:
    """Normalised weights exp(-distance / 2σ²) with the smallest σ² whose effective sample size is reached.

    ``distance`` is a sum of squares in pixel units. The size 1 / Σ w² grows with σ²: found by bisection.
    """
    excess = distance - distance.min()
    low, high = torch.tensor(-12.0), torch.tensor(24.0)  # log 2σ²: from exact match to indifference
    for _ in range(40):
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
    return fovea(images, whole, -shifts[:, None])[:, 0]
