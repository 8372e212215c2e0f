"""Where to look next, without trying every location on every completion: coarse to fine, then a race.

Maps are smooth, since neighbouring glimpses overlap, and most locations are soon out of the question:

1. *Coarse*: a grid of every s-th cell is tried on a pilot of the completions, and interpolated linearly.
2. *Fine*: around the best so far, the cells half as far away are tried on the same pilot, then half as far again,
   down to neighbours.
3. *Race* (Maron and Moore 1994; paired, Moore and Lee 1994): cells share their completions, so that the
   difference of two is known better than either. A cell leaves when, at the stated confidence, it cannot beat
   the leader by more than a tolerance; those left see twice as many completions, until one is left or none is
   unseen. Who left keeps the estimate that it left with, but none above the winner's: the leader led by what it
   had seen, which flatters it, and when it has seen more, those that it beat would seem the better ones.

What a completion says for a cell is -H[g_n] for the expected posterior entropy, and KL(g_n || mean g) for the
mixture gain: their weighted means over completions are those gains (`nogs.information`).

Where maps are pooled (`nogs.design.greedy.choose`), cells compete by their pooled scores: what an image adds of its
own counts for less, and races are shorter.
"""

from __future__ import annotations

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
from nogs.posterior.protocol import Posterior, class_log_probs

LEAST = 8
"""Completions of a pilot, however small its share: fewer say too little of their spread."""

HAIR = 1e-6
"""Nats by which the winner is ahead at least: less would be lost in rounding."""


class Entries(NamedTuple):
    """F cells of images that were tried, each on the first n completions of its image."""

    images: Int[Tensor, " F"]
    cells: Int[Tensor, " F"]
    log_probs: Float[Tensor, "F n C"]


def race_next(
    posterior: Posterior,
    seen: Glimpses,
    completions: Completions,
    *,
    options: RaceOptions,
    criterion: Criterion,
    pooling: float = 0.0,
    label: int | None = None,
    generator: Generator,
) -> Maps:
    """The maps of `map_next`, exact only where the best cell may be, which is where they are greatest.

    A cell that left the race has the estimate that it left with, and one never tried its coarse neighbours', or the
    winner's where that is less. All is done where the posterior is, and the maps come back to where the glimpses
    are. ``generator`` shuffles the completions.
    """
    home, device = seen.cells.device, posterior.focus.device
    seen, completions = seen.to(device), completions.to(device)
    grid, B = posterior.grid, len(seen.cells)
    rows, weights = _ordered(completions, B, generator)
    N = rows.shape[1]
    evaluations = 0

    def ask(images: Int[Tensor, " F"], cells: Int[Tensor, " F"], start: int, stop: int) -> Float[Tensor, "F n C"]:
        nonlocal evaluations
        real = weights[images, start:stop] > 0
        evaluations += int(real.sum())
        at = cells[:, None].expand_as(real)[real]
        logits = posterior.lookahead(
            seen, completions.images, completions.owners, rows=rows[images, start:stop][real], cells=at
        )
        told = class_log_probs(logits, multilabel=posterior.multilabel, label=label)
        return told.new_zeros(*real.shape, told.shape[-1]).masked_scatter(real[..., None], told)

    def enter(wanted: Bool[Tensor, "B L"], n: int) -> Entries:
        images, cells = wanted.nonzero(as_tuple=True)
        return Entries(images, cells, ask(images, cells, 0, n))

    n = min(N, max(LEAST, round(options.pilot * N)))
    nodes = _nodes(grid, options.coarse).to(device)
    tried = torch.zeros(B, len(grid), dtype=torch.bool, device=device)
    tried[:, nodes.flatten()] = True
    field = enter(tried, n)
    epe, eig = (_interpolate(value.unflatten(0, (B, -1)), grid, options.coarse) for value in _gains(field, weights))
    maps = Maps(epe, eig, completions.effective, 0)
    apart = options.coarse
    while apart > 1:
        apart = (apart + 1) // 2
        score = pooled(maps.gain(criterion), pooling=pooling).masked_fill(~tried, -torch.inf)
        best = score.topk(min(options.peaks, nodes.numel())).indices
        new = _neighbours(best, grid, apart) & ~tried
        if not new.any():  # a small grid: its coarse cells are as near
            continue
        tried |= new
        fine = enter(new, n)
        _note(maps, fine, weights)
        field = Entries(*(torch.cat(pair) for pair in zip(field, fine, strict=True)))
    population = maps.gain(criterion).mean(0)
    field = _only(field, ~(field.cells[:, None] == seen.cells[field.images]).any(1))
    racing = torch.zeros_like(tried)
    racing[field.images, field.cells] = True
    while n < N:
        left = _contenders(field, weights, population, criterion=criterion, pooling=pooling, options=options)
        racing[field.images[~left], field.cells[~left]] = False
        field = _only(field, left)
        field = _only(field, (field.images.bincount(minlength=B) > 1)[field.images])
        if not len(field.images):
            break
        stop = min(2 * n, N)
        more = ask(field.images, field.cells, n, stop)
        field, n = field._replace(log_probs=torch.cat((field.log_probs, more), dim=1)), stop
        _note(maps, field, weights)
    gain = _below_the_winner(maps.gain(criterion), racing, population, pooling=pooling)
    maps = maps._replace(eig=gain) if criterion == "eig" else maps._replace(epe=-gain)
    return maps._replace(evaluations=evaluations).to(home)


def _ordered(
    completions: Completions, owners: int, generator: Generator
) -> tuple[Int[Tensor, "B N"], Float[Tensor, "B N"]]:
    """Each owner's completions, the heavier the likelier to come first, and their weights.

    Sequential Poisson sampling (Ohlsson 1998): the first n of the order u / w hold completion i with a chance
    that is nearly in proportion to its weight. Who has fewer than N is filled up with weights of 0, which are
    never asked about.
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
    """What the first n completions count for: w over the chance to be among them, to sum to 1 (Hájek's estimator).

    That chance is min(1, c w), with c such that n are expected.
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


def _gains(field: Entries, weights: Float[Tensor, "B N"]) -> tuple[Float[Tensor, " F"], Float[Tensor, " F"]]:
    """EPE and mixture EIG of each entry, as estimated from what it saw."""
    told = field.log_probs[:, :, None]
    shares = _shares(weights, told.shape[1])[field.images]
    return expected_posterior_entropy(told, shares)[:, 0], mixture_information_gain(told, shares)[:, 0]


def _note(maps: Maps, field: Entries, weights: Float[Tensor, "B N"]) -> None:
    """Write the entries' estimates into the maps."""
    for values, told in zip((maps.epe, maps.eig), _gains(field, weights), strict=True):
        values[field.images, field.cells] = told


def _below_the_winner(
    gain: Float[Tensor, "B L"], racing: Bool[Tensor, "B L"], population: Float[Tensor, " L"], *, pooling: float
) -> Float[Tensor, "B L"]:
    """The gains, those of cells not ``racing`` to the end lowered to less pooled score than the best that did."""
    if pooling == 1:  # an image's own gain counts for nothing
        return gain
    score = pooled(gain, population=population, pooling=pooling).masked_fill(~racing, -torch.inf)
    winner = score.argmax(-1, keepdim=True)
    ahead = pooling / (1 - pooling) * (population[winner] - population)
    return torch.where(racing, gain, gain.minimum(gain.gather(1, winner) + ahead - HAIR))


def _only(field: Entries, kept: Bool[Tensor, " F"]) -> Entries:
    return Entries(*(column[kept] for column in field))


def _contenders(
    field: Entries,
    weights: Float[Tensor, "B N"],
    population: Float[Tensor, " L"],
    *,
    criterion: Criterion,
    pooling: float,
    options: RaceOptions,
) -> Bool[Tensor, " F"]:
    """Which entries may still beat their image's leader by more than the tolerance, and the leaders themselves.

    Student's t on weighted paired differences; drawn from a finite number of completions, without replacement.
    """
    n = field.log_probs.shape[1]
    shares = _shares(weights, n)[field.images]
    told = field.log_probs[:, :, None]
    each = information_gain_by_completion(told, shares)[..., 0] if criterion == "eig" else -entropy(field.log_probs)
    score = (1 - pooling) * (shares * each).sum(-1) + pooling * population[field.cells]
    greatest = score.new_full((len(weights),), -torch.inf).scatter_reduce(0, field.images, score, "amax")
    leading = (score == greatest[field.images]).nonzero()[:, 0]
    none = torch.zeros(len(weights), dtype=torch.long, device=leading.device)
    leader = none.scatter(0, field.images[leading], leading)[field.images]
    difference = each - each[leader]
    spread = difference - (shares * difference).sum(-1, keepdim=True)
    unseen = (1 - weights[:, :n].sum(-1)).clamp_min(0)[field.images]
    error = ((shares * spread).square().sum(-1) * unseen * n / (n - 1)).sqrt()
    reach = score - score[leader] + (1 - pooling) * stdtrit(n - 1, options.confidence) * error
    return (reach > options.tolerance) | (leader == torch.arange(len(leader), device=leader.device))


def _nodes(grid: Grid, step: int) -> Int[Tensor, "m m"]:
    """Every step-th cell of the grid, and the last, along both sides."""
    along = torch.tensor(sorted({*range(0, grid.side, step), grid.side - 1}))
    return along[:, None] * grid.side + along


def _interpolate(values: Float[Tensor, "B nodes"], grid: Grid, step: int) -> Float[Tensor, "B L"]:
    """Linearly, along both sides, from `_nodes` to all cells."""
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
    """The eight cells (and itself) that are ``apart`` rows, columns or both away from each of ``cells``."""
    every = torch.arange(len(grid), device=cells.device)
    rows = (every // grid.side - (cells // grid.side)[..., None]).abs()
    columns = (every % grid.side - (cells % grid.side)[..., None]).abs()
    return (((rows == 0) | (rows == apart)) & ((columns == 0) | (columns == apart))).any(1)
