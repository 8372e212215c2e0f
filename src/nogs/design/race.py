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

The confidence 1 - α holds for a whole race: with probability 1 - α no round eliminates the best of its m cells in
favour of one that it beats by more than the tolerance. The leader of a round may be any of the m - 1 other cells, and
there are R rounds, so each comparison has the level α / (R (m - 1)) (Bonferroni). m counts the cells at the start of
the race, because those that are left later were selected by the same completions. The bound takes differences as
normally distributed. It does not cover steps 1 and 2, in which the best cell may be missed.

The value of a completion for a cell is -H[g_n] for the expected posterior entropy and KL(g_n || mean g) for the
mixture gain; their weighted means over completions are the two gains (`nogs.information`).

With pooled maps (`nogs.design.greedy.choose`) cells compete by their pooled scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy.special import stdtrit
from torch import Generator, Tensor

from nogs.completion.protocol import Completions
from nogs.config.groups import RaceOptions
from nogs.design.coarse_to_fine import coarse_cells, interpolate, neighbours
from nogs.design.gain_maps import Criterion, Maps, pooled
from nogs.design.samples import Entries, Samples, estimation_weights, gains, ordered
from nogs.glimpses.fovea import Glimpses
from nogs.information import entropy, information_gain_by_completion
from nogs.posterior.protocol import Posterior

MIN_PILOT = 8
"""Smallest number of completions in a pilot, below which their spread cannot be estimated."""

MARGIN_NATS = 1e-6
"""Difference by which the winner's score exceeds all others; a smaller one could be lost in rounding."""


@dataclass(frozen=True)
class Race:
    """The estimator of `nogs.design.gain_maps` that finds the best pooled score with few evaluations."""

    options: RaceOptions
    criterion: Criterion
    pooling: float = 0.0

    def __call__(self, posterior: Posterior, seen: Glimpses, completions: Completions, *, generator: Generator) -> Maps:
        """Return maps whose pooled score is greatest at the winner of the race.

        Eliminated cells have their last estimate, and cells that were not evaluated one interpolated from coarse cells.
        Both are lowered below the winner's where they exceed it. ``generator`` orders the completions. The posterior
        is evaluated on its own device, and the maps are on the device of ``seen``.
        """
        home, device = seen.cells.device, posterior.device
        completions = completions.to(device)
        rows, weights = ordered(completions, len(seen.cells), generator=generator)
        samples = Samples(posterior, seen.to(device), completions, rows, weights)
        n = min(samples.count, max(MIN_PILOT, round(self.options.pilot * samples.count)))
        maps, entries = self._coarse_to_fine(samples, n)
        population = maps.gain(self.criterion).mean(0)
        racing = self._race(samples, entries, maps, population, n)
        gain = _below_the_winner(maps.gain(self.criterion), racing, population, pooling=self.pooling)
        maps = maps._replace(eig=gain) if self.criterion == "eig" else maps._replace(epe=-gain)
        return maps._replace(evaluations=samples.evaluations).to(home)

    def _coarse_to_fine(self, samples: Samples, n: int) -> tuple[Maps, Entries]:
        """Do steps 1 and 2 on n completions of each image; return the maps and the evaluated entries."""
        grid, weights, coarse = samples.posterior.grid, samples.weights, self.options.coarse
        B, device = len(weights), weights.device
        nodes = coarse_cells(grid, coarse).to(device)
        evaluated = torch.zeros(B, len(grid), dtype=torch.bool, device=device)
        evaluated[:, nodes.flatten()] = True
        entries = samples.enter(evaluated, n)
        epe, eig = (interpolate(value.unflatten(0, (B, -1)), grid, coarse) for value in gains(entries, weights))
        maps = Maps(epe, eig, samples.completions.effective, 0)
        apart = coarse
        while apart > 1:
            apart = (apart + 1) // 2
            score = pooled(maps.gain(self.criterion), pooling=self.pooling).masked_fill(~evaluated, -torch.inf)
            best = score.topk(min(self.options.peaks, nodes.numel())).indices
            new = neighbours(best, grid, apart) & ~evaluated
            if not new.any():  # on a small grid every cell is a coarse one
                continue
            evaluated |= new
            fine = samples.enter(new, n)
            _write(maps, fine, weights)
            entries = Entries(*(torch.cat(pair) for pair in zip(entries, fine, strict=True)))
        return maps, entries

    def _race(
        self, samples: Samples, entries: Entries, maps: Maps, population: Float[Tensor, " L"], n: int
    ) -> Bool[Tensor, "B L"]:
        """Do step 3, writing new estimates into ``maps``; return the mask of cells that were not eliminated.

        ``n``: number of completions that ``entries`` were evaluated on. ``population``: mean gain of all images.
        """
        weights, B = samples.weights, len(samples.weights)
        visited = (entries.cells[:, None] == samples.seen.cells[entries.images]).any(1)
        entries = entries.where(~visited)
        racing = torch.zeros_like(maps.eig, dtype=torch.bool)
        racing[entries.images, entries.cells] = True
        comparisons = (rounds(n, samples.count) * (racing.sum(1) - 1)).clamp_min(1)
        confidence = 1 - (1 - self.options.confidence) / comparisons.double()
        while n < samples.count:
            left = self._contenders(entries, weights, population, confidence)
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
        self,
        entries: Entries,
        weights: Float[Tensor, "B N"],
        population: Float[Tensor, " L"],
        confidence: Float[Tensor, " B"],
    ) -> Bool[Tensor, " F"]:
        """Return the mask of entries that may still beat their image's leader by the tolerance, and of the leaders.

        A Student t bound on weighted paired differences, with the correction for a sample without replacement from a
        finite number of completions. ``confidence``: that of each comparison of an image.
        """
        n = entries.log_probs.shape[1]
        shares = estimation_weights(weights, n)[entries.images]
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
        quantile = torch.as_tensor(stdtrit(n - 1, confidence.cpu().numpy())).to(score)[entries.images]
        reach = score - score[leader] + (1 - self.pooling) * quantile * error
        return (reach > self.options.tolerance) | (leader == torch.arange(len(leader), device=leader.device))


def rounds(n: int, completions: int) -> int:
    """Return how often n doubles until it reaches the number of completions: the rounds of a race."""
    return math.ceil(math.log2(completions / n))


def _write(maps: Maps, entries: Entries, weights: Float[Tensor, "B N"]) -> None:
    """Write the entries' estimates into the maps, in place."""
    for values, estimates in zip((maps.epe, maps.eig), gains(entries, weights), strict=True):
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
