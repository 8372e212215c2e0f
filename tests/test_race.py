"""The race against exhaustive search: the same where nothing is saved, and what it loses where much is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Categorical

from nogs.completion.protocol import Completions
from nogs.config.groups import RaceOptions
from nogs.design.gain_maps import Criterion, Maps, exhaustive
from nogs.design.greedy import choose, regret
from nogs.design.race import Race, rounds
from nogs.design.samples import Entries, gains
from nogs.glimpses.fovea import Glimpses, nothing_seen
from nogs.glimpses.grid import Grid
from nogs.posterior.protocol import Candidates, distribution

CRITERIA = pytest.mark.parametrize("criterion", ["epe", "eig"])
GRID = Grid(image_px=44, glimpse_px=4, stride_px=4)
"""11 x 11 cells."""
EVERYTHING = RaceOptions(coarse=1, pilot=1.0)
IMAGES, COMPLETIONS = 40, 48


class Smooth:
    """Two classes. The certainty after a completion is a smooth bump around its own place, which is near its image's.

    A posterior of closed form, evaluated on one candidate at a time; ``evaluated`` counts them.
    """

    device = torch.device("cpu")

    def __init__(self, seed: int = 0) -> None:
        self.grid = GRID
        generator = Generator().manual_seed(seed)
        centre = 1 + 8 * torch.rand(IMAGES, 1, 2, generator=generator)
        self.places = (centre + 0.7 * torch.randn(IMAGES, COMPLETIONS, 2, generator=generator)).flatten(0, 1)
        self.sides = torch.where(torch.rand(IMAGES * COMPLETIONS, generator=generator) < 0.5, -1.0, 1.0)
        self.evaluated = 0

    def __call__(self, glimpses: Glimpses) -> Categorical:
        return distribution(torch.zeros(len(glimpses.cells), 2), multilabel=False)

    def by_glimpse(self, glimpses: Glimpses) -> Categorical:
        return distribution(torch.zeros(*glimpses.cells.shape, 2), multilabel=False)

    def lookahead(self, seen: Glimpses, candidates: Candidates) -> Categorical:
        rows, cells = candidates.rows, candidates.cells
        self.evaluated += len(rows)
        at = torch.stack((cells // 11, cells % 11), dim=-1)
        bump = 3 * torch.exp(-(at - self.places[rows]).square().sum(-1) / (2 * 1.5**2))
        return distribution(torch.stack((-bump, bump), dim=-1) * self.sides[rows, None], multilabel=False)


def completed(*, fewer: bool = False) -> tuple[Glimpses, Completions]:
    """Weighted completions of images that were never looked at; with ``fewer``, of every other image just 30."""
    weights = torch.rand(IMAGES, COMPLETIONS, generator=Generator().manual_seed(1)).square() + 0.05
    if fewer:
        weights[::2, 30:] = 0
    weights /= weights.sum(-1, keepdim=True)
    owners = torch.arange(IMAGES).repeat_interleave(COMPLETIONS)
    images = torch.zeros(IMAGES * COMPLETIONS, 1, 44, 44, dtype=torch.uint8)
    return nothing_seen(images[:IMAGES], GRID), Completions(
        images, owners, weights.flatten().clamp_min(1e-9), 1 / weights.square().sum(-1)
    )


def race(posterior: Smooth, options: RaceOptions, criterion: Criterion = "eig", **how: float) -> Maps:
    seen, completions = completed()
    return Race(options, criterion, **how)(posterior, seen, completions, generator=Generator().manual_seed(3))


def everywhere(posterior: Smooth, seen: Glimpses, completions: Completions) -> Maps:
    return exhaustive(posterior, seen, completions, generator=Generator())


@CRITERIA
def test_a_race_that_saves_nothing_is_exhaustive_search(criterion: Criterion) -> None:
    seen, completions = completed()
    complete, raced = everywhere(Smooth(), seen, completions), race(Smooth(), EVERYTHING, criterion)
    torch.testing.assert_close(raced.epe, complete.epe, rtol=0, atol=1e-6)
    torch.testing.assert_close(raced.eig, complete.eig, rtol=0, atol=1e-6)
    assert raced.evaluations == complete.evaluations == IMAGES * COMPLETIONS * 121
    assert torch.equal(raced.effective, completions.effective)


@CRITERIA
@pytest.mark.parametrize("pooling", [0.0, 0.5])
def test_a_race_needs_a_fraction_of_the_evaluations_and_loses_little(criterion: Criterion, pooling: float) -> None:
    seen, completions = completed()
    posterior = Smooth()
    raced = race(posterior, RaceOptions(), criterion, pooling=pooling)
    assert raced.evaluations == posterior.evaluated
    complete = everywhere(Smooth(), seen, completions)
    gain, whole = raced.gain(criterion), complete.gain(criterion)
    lost = regret(
        whole,
        choose(gain, seen.cells, pooling=pooling),
        visited=seen.cells,
        population=gain.mean(0),
        pooling=pooling,
    )
    assert complete.evaluations > 7 * raced.evaluations
    at_stake = (whole.max(-1).values - whole.mean(-1)).mean()
    assert lost.mean() < 0.002 * at_stake
    assert lost.quantile(0.95) < 0.002 * at_stake


def test_the_winners_estimate_is_close_and_exact_without_elimination() -> None:
    seen, completions = completed()
    complete = everywhere(Smooth(), seen, completions).eig
    for confidence, typical, exact in ((0.95, 0.02, 0.0), (1 - 1e-9, 0.001, 0.9)):
        raced = race(Smooth(), RaceOptions(tolerance=0.0, confidence=confidence)).eig
        best = choose(raced, seen.cells)[:, None]
        error = (raced - complete).gather(1, best).abs()
        assert error.mean() < typical
        assert (error < 1e-6).float().mean() >= exact


@CRITERIA
def test_the_chosen_cell_was_never_eliminated(criterion: Criterion) -> None:
    """A cell that left with a flattering estimate is not chosen after all: of its image, the chosen saw the most."""

    class Counting(Smooth):
        def lookahead(self, seen: Glimpses, candidates: Candidates) -> Categorical:
            rows, cells = candidates.rows, candidates.cells
            counts.index_put_((rows // COMPLETIONS, cells), torch.ones_like(rows), accumulate=True)
            return super().lookahead(seen, candidates)

    counts = torch.zeros(IMAGES, 121, dtype=torch.long)
    maps = race(Counting(), RaceOptions(confidence=0.6, tolerance=0.0), criterion)
    chosen = choose(maps.gain(criterion), torch.empty(IMAGES, 0, dtype=torch.long))
    assert torch.equal(counts.gather(1, chosen[:, None])[:, 0], counts.max(1).values)


def test_more_confidence_needs_more_evaluations() -> None:
    counts = [race(Smooth(), RaceOptions(confidence=p)).evaluations for p in (0.6, 0.9, 0.99)]
    assert counts == sorted(set(counts))


def test_cells_already_looked_at_do_not_race() -> None:
    """They may be tried in the pilot, since they are part of the map, and are left out of what comes after."""
    posterior, (_, completions) = Smooth(), completed()
    best = choose(everywhere(posterior, *completed()).eig, torch.empty(IMAGES, 0, dtype=torch.long))[:, None]
    seen = Glimpses(torch.zeros(IMAGES, 1, 1, 4, 4, dtype=torch.uint8), best)
    raced = Race(RaceOptions(), "eig")(posterior, seen, completions, generator=Generator().manual_seed(3))
    exact = everywhere(posterior, seen, completions)
    lost = regret(exact.eig, choose(raced.eig, best), visited=best, population=exact.eig.mean(0), pooling=0.0)
    assert lost.mean() < 0.02


def test_images_with_fewer_completions() -> None:
    posterior = Smooth()
    seen, completions = completed(fewer=True)
    kept = completions.weights > 1e-8
    fewer = Completions(
        completions.images[kept], completions.owners[kept], completions.weights[kept], completions.effective
    )
    # The made-up posterior goes by row: move its bumps to where the rows now are.
    posterior.places, posterior.sides = posterior.places[kept], posterior.sides[kept]
    complete = everywhere(posterior, seen, fewer)
    raced = Race(EVERYTHING, "eig")(posterior, seen, fewer, generator=Generator().manual_seed(3))
    torch.testing.assert_close(raced.eig, complete.eig, rtol=0, atol=1e-6)
    assert raced.evaluations == complete.evaluations < IMAGES * COMPLETIONS * 121


@CRITERIA
def test_a_better_contender_is_seldom_eliminated(criterion: Criterion) -> None:
    """At 95 % confidence of a comparison, of 400 fields whose second cell is better by 0.05 nats, 8 % at most lose it.

    5 % are expected; the rest is noise.
    """
    fields, n, N = 400, 12, 200
    generator = Generator().manual_seed(7)
    weights = torch.full((fields, N), 1 / N)

    def posteriors(mean: float) -> Tensor:
        logits = mean + 0.8 * torch.randn(fields, n, generator=generator)
        sides = torch.where(torch.rand(fields, n, generator=generator) < 0.5, -1.0, 1.0)
        return torch.stack((logits * sides, -logits * sides), dim=-1).log_softmax(-1)

    worse, better = posteriors(0.5), posteriors(0.6)
    field = Entries(
        torch.arange(fields).repeat(2), torch.tensor([0, 1]).repeat_interleave(fields), torch.cat((worse, better))
    )
    left = Race(RaceOptions(tolerance=0.0), criterion)._contenders(
        field, weights, torch.zeros(2), torch.full((fields,), 0.95)
    )
    assert (~left[fields:]).float().mean() <= 0.08
    epe, eig = gains(field, weights)
    leads = (-epe if criterion == "epe" else eig).unflatten(0, (2, fields)).argmax(0)
    assert left.unflatten(0, (2, fields)).gather(0, leads[None]).all()  # the leader never leaves


class Independent:
    """Two classes; how sure they are is drawn for each completion and cell by itself, from the same distribution.

    So all cells are nearly equal, which is the hardest race: many may lead by chance.
    """

    device = torch.device("cpu")
    grid = Grid(image_px=16, glimpse_px=4, stride_px=3)
    """5 x 5 cells."""

    def __init__(self, completions: int) -> None:
        generator = Generator().manual_seed(8)
        self.logits = 0.8 + 0.5 * torch.randn(completions, len(self.grid), generator=generator)

    def __call__(self, glimpses: Glimpses) -> Categorical:
        return distribution(torch.zeros(len(glimpses.cells), 2), multilabel=False)

    def by_glimpse(self, glimpses: Glimpses) -> Categorical:
        return distribution(torch.zeros(*glimpses.cells.shape, 2), multilabel=False)

    def lookahead(self, seen: Glimpses, candidates: Candidates) -> Categorical:
        logits = self.logits[candidates.rows, candidates.cells]
        signs = 1 - 2 * (candidates.rows % 2)
        return distribution(torch.stack((-logits, logits), dim=-1) * signs[:, None], multilabel=False)


@CRITERIA
@pytest.mark.parametrize("confidence", [0.95, 0.6])
def test_the_confidence_holds_for_a_whole_race(criterion: Criterion, confidence: float) -> None:
    """Of 1,000 races of 25 nearly equal cells, at most 5 % (40 %) eliminate the best.

    Allowed are 3.1 binomial standard deviations more: a false alarm once in 1,000 at the stated confidence.
    """
    images, n = 1000, 32
    owners = torch.arange(images).repeat_interleave(n)
    pixels = torch.zeros(images * n, 1, 16, 16, dtype=torch.uint8)
    completions = Completions(pixels, owners, torch.full((images * n,), 1 / n), torch.full((images,), float(n)))
    posterior, seen = Independent(images * n), nothing_seen(pixels[:images], Independent.grid)
    options = RaceOptions(coarse=1, tolerance=0.0, confidence=confidence)
    raced = Race(options, criterion)(posterior, seen, completions, generator=Generator().manual_seed(9))
    complete = exhaustive(posterior, seen, completions, generator=Generator())
    chosen, best = (choose(maps.gain(criterion), seen.cells) for maps in (raced, complete))
    allowed = 1 - confidence
    assert (chosen != best).float().mean() <= allowed + 3.1 * math.sqrt(allowed * (1 - allowed) / images)
    assert raced.evaluations < complete.evaluations


@pytest.mark.parametrize(("n", "completions", "expected"), [(8, 64, 3), (8, 65, 4), (8, 9, 1), (8, 8, 0), (25, 200, 3)])
def test_rounds_are_the_doublings(n: int, completions: int, expected: int) -> None:
    assert rounds(n, completions) == expected
