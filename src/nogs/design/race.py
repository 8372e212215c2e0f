"""The best location without evaluating every location on every completion: coarse to fine, then a race.

Maps are smooth, since neighbouring glimpses overlap, and most locations can be excluded early:

1. *Coarse*: every s-th cell of the grid is evaluated on a pilot sample of the completions, and the map between them is
   interpolated linearly.
2. *Fine*: around the best cells so far, the cells half as far away are evaluated on the same pilot, then half as far
   again, down to neighbours.
3. *Race* (Maron and Moore 1994; paired, Moore and Lee 1994): cells share their completions, so the difference of two
   cells has less variance than either estimate. A cell is eliminated when, at the given confidence, it cannot beat the
   leader by more than a tolerance. The remaining cells are evaluated on twice as many completions, until one is left
   or no completion is. Eliminated cells keep their last estimate, lowered to the winner's where it is above: the
   leader led by an estimate that its selection biased upwards, and further completions remove that bias for it alone.

The value of a completion for a cell is -H[g_n] for the expected posterior entropy and KL(g_n || mean g) for the
mixture gain; their weighted means over completions are the two gains (`nogs.information`).

With pooled maps (`nogs.design.greedy.choose`) cells compete by their pooled scores.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from scipy.special import stdtrit
from torch import Generator, Tensor

from nogs.completion.protocol import Completions
from nogs.config.groups import RaceOptions
from nogs.design.gain_maps import Criterion, Maps, pooled
from nogs.glimpses.fovea import Glimpses
from nogs.glimpses.grid import Grid
from nogs.information import (
    entropy,
    expected_posterior_entropy,
    information_gain_by_completion,
    mixture_information_gain,
)
from nogs.posterior.protocol import Candidates, Posterior

MIN_PILOT = 8
"""Completions of a pilot at least: fewer do not estimate a spread."""

MARGIN_NATS = 1e-6
"""By which the winner's score exceeds all others: a smaller margin could be lost in rounding."""


class Entries(NamedTuple):
    """F pairs of image and cell in the race, with the posterior on the first n completions of the image."""

    images: Int[Tensor, " F"]
    cells: Int[Tensor, " F"]
    log_probs: Float[Tensor, "F n C"]

    def where(self, kept: Bool[Tensor, " F"]) -> Entries:
        """Return the entries of a mask."""
        return Entries(*(column[kept] for column in self))


@dataclass(frozen=True)
class Race:
    """The estimator of `nogs.design.gain_maps` that finds the best pooled score with few evaluations."""

    options: RaceOptions
    criterion: Criterion
    pooling: float = 0.0

    def __call__(self, posterior: Posterior, seen: Glimpses, completions: Completions, *, generator: Generator) -> Maps:
        """Return maps that are exact where the best cell may be, which is where they are greatest.

        Eliminated cells have their last estimate, and cells that were not evaluated one interpolated from coarse
        cells, neither above the winner's. ``generator`` orders the completions. The posterior is evaluated on its own
        device; the maps are on the device of ``seen``.
        """
        home, device = seen.cells.device, posterior.device
        completions = completions.to(device)
        samples = _Samples(posterior, seen.to(device), completions, *_ordered(completions, len(seen.cells), generator))
        n = min(samples.count, max(MIN_PILOT, round(self.options.pilot * samples.count)))
        maps, entries = self._coarse_to_fine(samples, n)
        population = maps.gain(self.criterion).mean(0)
        racing = self._race(samples, entries, maps, population, n)
        gain = _below_the_winner(maps.gain(self.criterion), racing, population, pooling=self.pooling)
        maps = maps._replace(eig=gain) if self.criterion == "eig" else maps._replace(epe=-gain)
        return maps._replace(evaluations=samples.evaluations).to(home)

    def _coarse_to_fine(self, samples: _Samples, n: int) -> tuple[Maps, Entries]:
        """Steps 1 and 2: maps after the pilot, and the entries evaluated on it."""
        grid, weights, coarse = samples.posterior.grid, samples.weights, self.options.coarse
        B, device = len(weights), weights.device
        nodes = _nodes(grid, coarse).to(device)
        evaluated = torch.zeros(B, len(grid), dtype=torch.bool, device=device)
        evaluated[:, nodes.flatten()] = True
        entries = samples.enter(evaluated, n)
        epe, eig = (_interpolate(value.unflatten(0, (B, -1)), grid, coarse) for value in _gains(entries, weights))
        maps = Maps(epe, eig, samples.completions.effective, 0)
        apart = coarse
        while apart > 1:
            apart = (apart + 1) // 2
            score = pooled(maps.gain(self.criterion), pooling=self.pooling).masked_fill(~evaluated, -torch.inf)
            best = score.topk(min(self.options.peaks, nodes.numel())).indices
            new = _neighbours(best, grid, apart) & ~evaluated
            if not new.any():  # on a small grid every cell is a coarse one
                continue
            evaluated |= new
            fine = samples.enter(new, n)
            _write(maps, fine, weights)
            entries = Entries(*(torch.cat(pair) for pair in zip(entries, fine, strict=True)))
        return maps, entries

    def _race(
        self, samples: _Samples, entries: Entries, maps: Maps, population: Float[Tensor, " L"], n: int
    ) -> Bool[Tensor, "B L"]:
        """Step 3: improve ``maps`` in place where the race goes on; return the cells that were not eliminated."""
        weights, B = samples.weights, len(samples.weights)
        visited = (entries.cells[:, None] == samples.seen.cells[entries.images]).any(1)
        entries = entries.where(~visited)
        racing = torch.zeros_like(maps.eig, dtype=torch.bool)
        racing[entries.images, entries.cells] = True
        while n < samples.count:
            left = self._contenders(entries, weights, population)
            racing[entries.images[~left], entries.cells[~left]] = False
            entries = entries.where(left)
            entries = entries.where((entries.images.bincount(minlength=B) > 1)[entries.images])
            if not len(entries.images):
                break
            stop = min(2 * n, samples.count)
            more = samples.evaluate(entries.images, entries.cells, n, stop)
            entries, n = entries._replace(log_probs=torch.cat((entries.log_probs, more), dim=1)), stop
            _write(maps, entries, weights)
        return racing

    def _contenders(
        self, entries: Entries, weights: Float[Tensor, "B N"], population: Float[Tensor, " L"]
    ) -> Bool[Tensor, " F"]:
        """Return the mask of entries that may still beat their image's leader by the tolerance, and of the leaders.

        A Student t bound on weighted paired differences, with the correction for a sample without replacement from a
        finite number of completions.
        """
        n = entries.log_probs.shape[1]
        shares = _shares(weights, n)[entries.images]
        value = (
            information_gain_by_completion(entries.log_probs[:, :, None], shares)[..., 0]
            if self.criterion == "eig"
            else -entropy(entries.log_probs)
        )
        score = (1 - self.pooling) * (shares * value).sum(-1) + self.pooling * population[entries.cells]
        greatest = score.new_full((len(weights),), -torch.inf).scatter_reduce(0, entries.images, score, "amax")
        leading = (score == greatest[entries.images]).nonzero()[:, 0]
        none = torch.zeros(len(weights), dtype=torch.long, device=leading.device)
        leader = none.scatter(0, entries.images[leading], leading)[entries.images]
        difference = value - value[leader]
        spread = difference - (shares * difference).sum(-1, keepdim=True)
        unseen = (1 - weights[:, :n].sum(-1)).clamp_min(0)[entries.images]
        error = ((shares * spread).square().sum(-1) * unseen * n / (n - 1)).sqrt()
        reach = score - score[leader] + (1 - self.pooling) * stdtrit(n - 1, self.options.confidence) * error
        return (reach > self.options.tolerance) | (leader == torch.arange(len(leader), device=leader.device))


@dataclass
class _Samples:
    """The posterior on completions in random order: the first n of ``rows`` are each image's sample of size n.

    ``weights`` are those of ``rows``, 0 where an image has fewer completions than others. ``evaluations`` counts.
    """

    posterior: Posterior
    seen: Glimpses
    completions: Completions
    rows: Int[Tensor, "B N"]
    weights: Float[Tensor, "B N"]
    evaluations: int = field(default=0, init=False)

    @property
    def count(self) -> int:
        return self.rows.shape[1]

    def evaluate(
        self, images: Int[Tensor, " F"], cells: Int[Tensor, " F"], start: int, stop: int
    ) -> Float[Tensor, "F n C"]:
        """Return the log-probabilities on completions ``start`` to ``stop`` of each image, one more glimpse at a cell.

        They are 0 where an image has no such completion.
        """
        real = self.weights[images, start:stop] > 0
        self.evaluations += int(real.sum())
        candidates = Candidates(
            self.completions.images,
            self.completions.owners,
            rows=self.rows[images, start:stop][real],
            cells=cells[:, None].expand_as(real)[real],
        )
        log_probs = self.posterior.lookahead(self.seen, candidates).logits
        return log_probs.new_zeros(*real.shape, log_probs.shape[-1]).masked_scatter(real[..., None], log_probs)

    def enter(self, cells: Bool[Tensor, "B L"], n: int) -> Entries:
        """Return the entries of a mask, evaluated on the first n completions."""
        images, numbers = cells.nonzero(as_tuple=True)
        return Entries(images, numbers, self.evaluate(images, numbers, 0, n))


def _ordered(
    completions: Completions, owners: int, generator: Generator
) -> tuple[Int[Tensor, "B N"], Float[Tensor, "B N"]]:
    """Return each owner's completions in a random order in which heavy ones tend to come first, and their weights.

    Sequential Poisson sampling (Ohlsson 1998): in the order of u / w, u uniform, the first n contain completion i with
    a probability nearly proportional to its weight. Owners with fewer than N completions are padded with weights of 0.
    """
    device = completions.owners.device
    keys = torch.rand(len(completions.owners), generator=generator).to(device) / completions.weights
    order = keys.argsort()
    order = order[completions.owners[order].argsort(stable=True)]
    counts = completions.owners.bincount(minlength=owners)
    slot = torch.arange(len(order), device=device) - (counts.cumsum(0) - counts)[completions.owners]
    shape = owners, int(counts.max())
    rows = torch.zeros(shape, dtype=torch.long, device=device)
    weights = completions.weights.new_zeros(shape)
    rows[completions.owners, slot] = order
    weights[completions.owners, slot] = completions.weights[order]
    return rows, weights


def _shares(weights: Float[Tensor, "B N"], n: int) -> Float[Tensor, "B n"]:
    """Return the estimation weights of the first n completions: w over their inclusion probability, normalised.

    This is Hájek's estimator. The inclusion probability is min(1, c w), with c such that n are expected.
    """
    capped = torch.zeros_like(weights, dtype=torch.bool)
    for _ in range(n):
        rest = weights.masked_fill(capped, 0).sum(-1, keepdim=True)
        scale = (n - capped.sum(-1, keepdim=True)) / rest.clamp_min(1e-12)
        more = (scale * weights >= 1) & ~capped
        if not more.any():
            break
        capped |= more
    chance = (scale * weights).masked_fill(capped, 1)
    shares = torch.where(weights > 0, weights / chance, 0)[:, :n]
    return shares / shares.sum(-1, keepdim=True)


def _gains(entries: Entries, weights: Float[Tensor, "B N"]) -> tuple[Float[Tensor, " F"], Float[Tensor, " F"]]:
    """Return the estimates of EPE and mixture EIG of each entry."""
    log_probs = entries.log_probs[:, :, None]
    shares = _shares(weights, log_probs.shape[1])[entries.images]
    return expected_posterior_entropy(log_probs, shares)[:, 0], mixture_information_gain(log_probs, shares)[:, 0]


def _write(maps: Maps, entries: Entries, weights: Float[Tensor, "B N"]) -> None:
    """Write the entries' estimates into the maps, in place."""
    for values, estimates in zip((maps.epe, maps.eig), _gains(entries, weights), strict=True):
        values[entries.images, entries.cells] = estimates


def _below_the_winner(
    gain: Float[Tensor, "B L"], racing: Bool[Tensor, "B L"], population: Float[Tensor, " L"], *, pooling: float
) -> Float[Tensor, "B L"]:
    """Return the gains, with those of eliminated cells lowered below the pooled score of the best cell ``racing``."""
    if pooling == 1:  # an image's own gain does not enter its score
        return gain
    score = pooled(gain, population=population, pooling=pooling).masked_fill(~racing, -torch.inf)
    winner = score.argmax(-1, keepdim=True)
    ahead = pooling / (1 - pooling) * (population[winner] - population)
    return torch.where(racing, gain, gain.minimum(gain.gather(1, winner) + ahead - MARGIN_NATS))


def _nodes(grid: Grid, step: int) -> Int[Tensor, "m m"]:
    """Return every step-th cell of the grid, and the last, along both axes."""
    along = torch.tensor(sorted({*range(0, grid.side, step), grid.side - 1}))
    return along[:, None] * grid.side + along


def _interpolate(values: Float[Tensor, "B nodes"], grid: Grid, step: int) -> Float[Tensor, "B L"]:
    """Return values of all cells, interpolated linearly along both axes from those of `_nodes`."""
    along = _nodes(grid, step)[0].to(values.device)
    m = len(along)
    if m == 1:
        return values.expand(-1, len(grid)).clone()
    every = torch.arange(grid.side, device=values.device)
    after = torch.searchsorted(along, every).clamp(1, m - 1)
    share = (every - along[after - 1]).to(values.dtype) / (along[after] - along[after - 1])
    mix = values.new_zeros(grid.side, m)
    mix[every, after - 1], mix[every, after] = 1 - share, share
    return (mix @ values.unflatten(1, (m, m)) @ mix.T).flatten(1)


def _neighbours(cells: Int[Tensor, "B k"], grid: Grid, apart: int) -> Bool[Tensor, "B L"]:
    """Return the mask of each of ``cells`` and of the eight that are ``apart`` rows, columns or both away."""
    every = torch.arange(len(grid), device=cells.device)
    rows = (every // grid.side - (cells // grid.side)[..., None]).abs()
    columns = (every % grid.side - (cells % grid.side)[..., None]).abs()
    return (((rows == 0) | (rows == apart)) & ((columns == 0) | (columns == apart))).any(1)
