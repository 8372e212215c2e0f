"""Where to look next, against brute force over worlds small enough to enumerate: exact posterior, exact completion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Bernoulli, Categorical

from nogs.completion.protocol import Completions
from nogs.design.gain_maps import CompletionGainMap, Criterion, Maps, exhaustive
from nogs.design.greedy import DesignedSequences, choose, design_sequences, regret
from nogs.glimpses.fovea import Glimpses, look, nothing_seen
from nogs.posterior.protocol import Candidates, LabelDistribution, OneLabel
from world import TILES, ExactPosterior, Seen, World, random_world, seen_in

CROWDED = random_world(5, atoms=32, image_px=5, offsets_px=(0, 2, 3))
"""More to tell apart, with glimpses that overlap: two of them seldom do."""
WORLDS = pytest.mark.parametrize("world", [TILES, CROWDED], ids=["tiles", "crowded"])
CRITERIA = pytest.mark.parametrize("criterion", ["epe", "eig"])
SO_FAR = [[], [4], [0, 5], [8, 2, 3]]
ATOMS = [0, 5, 11, -1]
"""The last shares its image with another label."""


class ExactCompletion:
    """Every atom that agrees with what was seen, with its posterior weight. Records its calls."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.requests: list[tuple[Glimpses, list[int], int]] = []

    def unconditional(self, count: int, *, generator: Generator) -> Completions:
        """Every atom with its prior weight, whatever the count."""
        return anything(self.world)

    def __call__(self, seen: Glimpses, *, groups: Tensor, generator: Generator) -> Completions:
        self.requests.append((seen, groups.tolist(), generator.initial_seed()))
        found = [self.world.completions(seen_in(seen, row)) for row in range(len(seen.cells))]
        images, weights, owners, effective = [], [], [], []
        for row, completions in enumerate(found):
            for atom, weight in completions:
                images.append(self.world.image_tensor()[atom])
                weights.append(weight)
                owners.append(row)
            effective.append(1 / sum(weight**2 for _, weight in completions))
        return Completions(
            torch.stack(images),
            torch.tensor(owners),
            torch.tensor(weights, dtype=torch.float64),
            torch.tensor(effective),
        )


def chance(t: int) -> Generator:
    return Generator().manual_seed(1000 + t)


def situation(world: World, cells: list[int]) -> tuple[Glimpses, list[Seen], Completions]:
    """Four atoms seen at the same cells: as tensors, in the world's terms, and completed."""
    images = world.image_tensor()[ATOMS]
    if cells:
        seen = look(images, world.grid(), torch.tensor(cells).expand(len(ATOMS), -1))
    else:
        nothing = torch.empty(len(ATOMS), 0, dtype=torch.long)
        seen = Glimpses(torch.empty(len(ATOMS), 0, 1, 2, 2, dtype=torch.uint8), nothing)
    completions = ExactCompletion(world)(seen, groups=torch.tensor(ATOMS), generator=chance(0))
    return seen, [world.look(atom, cells) for atom in ATOMS], completions


def brute_force(entropy_after: Callable[[int], float], visited: list[int], cells: range) -> tuple[float, list[int]]:
    """The least expected posterior entropy among cells not yet looked at, and all cells that have it."""
    values = {cell: entropy_after(cell) for cell in cells if cell not in visited}
    least = min(values.values())
    return least, [cell for cell, value in values.items() if value < least + 1e-9]


def assert_same_maps(got: Maps, expected: Maps) -> None:
    torch.testing.assert_close(got.epe, expected.epe, rtol=0, atol=1e-9)
    torch.testing.assert_close(got.eig, expected.eig, rtol=0, atol=1e-9)


@WORLDS
@CRITERIA
@pytest.mark.parametrize("cells", SO_FAR, ids=len)
def test_maps_and_choice_are_the_brute_force_ones(world: World, criterion: Criterion, cells: list[int]) -> None:
    seen, histories, completions = situation(world, cells)
    design = maps_of(ExactPosterior(world), seen, completions)
    chosen = choose(design.gain(criterion), seen.cells)
    assert design.epe.dtype == design.eig.dtype == torch.float64
    for row, history in enumerate(histories):
        epe = [world.expected_posterior_entropy(history, cell) for cell in world.cells]
        eig = [world.mutual_information(history, cell) for cell in world.cells]
        torch.testing.assert_close(design.epe[row], torch.tensor(epe, dtype=torch.float64), rtol=0, atol=1e-6)
        torch.testing.assert_close(design.eig[row], torch.tensor(eig, dtype=torch.float64), rtol=0, atol=1e-6)
        _, best = brute_force(epe.__getitem__, cells, world.cells)
        assert int(chosen[row]) in best


@WORLDS
def test_the_choice_is_worth_testing(world: World) -> None:
    """Somewhere the best cell is alone, and somewhere it is not the one that would be best elsewhere."""
    alone = []
    for cells in SO_FAR:
        for history in situation(world, cells)[1]:
            _, best = brute_force(
                lambda cell, history=history: world.expected_posterior_entropy(history, cell), cells, world.cells
            )
            alone += best if len(best) == 1 else []
    assert len(set(alone)) > 1


def anything(world: World) -> Completions:
    """All images of the world, as completions before the first glimpse."""
    return Completions(
        world.image_tensor(),
        torch.zeros(len(world.images), dtype=torch.long),
        torch.tensor(world.prior, dtype=torch.float64),
        torch.tensor([1.0]),
    )


def maps_of(posterior: ExactPosterior, seen: Glimpses, completions: Completions) -> Maps:
    return exhaustive(posterior, seen, completions, generator=chance(0))


def map_first(world: World) -> Maps:
    draws = anything(world)
    return maps_of(ExactPosterior(world), nothing_seen(draws.images[:1], world.grid()), draws)


@WORLDS
@CRITERIA
def test_the_first_cell_is_shared_by_all_images(world: World, criterion: Criterion) -> None:
    first = map_first(world)
    chosen = choose(first.gain(criterion), torch.empty(1, 0, dtype=torch.long))
    assert chosen.shape == (1,)
    epe = [world.expected_posterior_entropy((), cell) for cell in world.cells]
    torch.testing.assert_close(first.epe[0], torch.tensor(epe, dtype=torch.float64), rtol=0, atol=1e-6)
    assert int(chosen) in brute_force(epe.__getitem__, [], world.cells)[1]
    assert int(chosen) == world.greedy_cell(())


def sequences(
    world: World, criterion: Criterion, glimpses: int, completion: ExactCompletion, *, pooling: float = 0.0
) -> DesignedSequences:
    """Design for every atom of the world, each of a group of its own."""
    images, count = world.image_tensor(), len(world.images)
    gain_map = CompletionGainMap(ExactPosterior(world), completion, exhaustive, unconditional=1)

    def maps_at(cells: Tensor) -> Maps:
        if cells.shape[1] == 0:
            nothing = nothing_seen(images[:1], world.grid())
            return gain_map(nothing, groups=torch.tensor([0]), generator=chance(0)).expand(count)
        groups = torch.arange(count) + 100
        return gain_map(look(images, world.grid(), cells), groups=groups, generator=chance(cells.shape[1]))

    return design_sequences(maps_at, count, glimpses=glimpses, criterion=criterion, pooling=pooling)


@WORLDS
@CRITERIA
def test_sequences_are_the_greedy_ones(world: World, criterion: Criterion) -> None:
    completion = ExactCompletion(world)
    found = sequences(world, criterion, 3, completion)
    whole = 0
    for atom, cells in enumerate(found.cells.tolist()):
        ties = 0
        for t in range(3):
            history = world.look(atom, cells[:t])
            epe = [world.expected_posterior_entropy(history, cell) for cell in world.cells]
            torch.testing.assert_close(found.epe[atom, t], torch.tensor(epe, dtype=torch.float64), rtol=0, atol=1e-6)
            eig = [world.mutual_information(history, cell) for cell in world.cells]
            torch.testing.assert_close(found.eig[atom, t], torch.tensor(eig, dtype=torch.float64), rtol=0, atol=1e-6)
            _, best = brute_force(epe.__getitem__, cells[:t], world.cells)
            assert cells[t] in best
            ties += len(best) - 1
            weights = [weight for _, weight in world.completions(history)]
            size = 1 if t == 0 else 1 / sum(weight**2 for weight in weights)  # that of ``anything``
            assert found.effective[atom, t].item() == pytest.approx(size)
        if ties == 0:
            whole += 1
            assert cells == world.greedy_cells(atom, 3)
    assert whole > 0
    # What was looked at is the image itself; groups and chance are passed on.
    groups = list(range(100, 100 + len(world.images)))
    assert [(of, seed) for _, of, seed in completion.requests] == [
        (groups, 1001),
        (groups, 1002),
    ]
    for t, (seen, _, _) in enumerate(completion.requests, start=1):
        for atom, cells in enumerate(found.cells.tolist()):
            assert seen_in(seen, atom) == world.look(atom, cells[:t])


@CRITERIA
def test_no_cell_is_looked_at_twice(criterion: Criterion) -> None:
    found = sequences(TILES, criterion, 9, ExactCompletion(TILES))
    assert all(sorted(cells) == list(TILES.cells) for cells in found.cells.tolist())


@WORLDS
@CRITERIA
@pytest.mark.parametrize("cells", SO_FAR, ids=len)
def test_the_order_of_completions_does_not_matter(world: World, criterion: Criterion, cells: list[int]) -> None:
    seen, _, completions = situation(world, cells)
    order = torch.randperm(len(completions.owners), generator=chance(0))
    order = order[completions.owners[order].argsort(stable=True)]
    assert not torch.equal(order, torch.arange(len(order)))
    shuffled = Completions(
        completions.images[order], completions.owners[order], completions.weights[order], completions.effective
    )
    expected = maps_of(ExactPosterior(world), seen, completions)
    got = maps_of(ExactPosterior(world), seen, shuffled)
    # Cells that tie may change places with the order of summation.
    torch.testing.assert_close(got.epe, expected.epe, rtol=0, atol=1e-12)
    torch.testing.assert_close(got.eig, expected.eig, rtol=0, atol=1e-12)
    rows, looked_at = torch.arange(len(ATOMS)), seen.cells
    one, other = (choose(maps.gain(criterion), looked_at) for maps in (expected, got))
    torch.testing.assert_close(expected.eig[rows, other], expected.eig[rows, one], rtol=0, atol=1e-12)


@WORLDS
@CRITERIA
@pytest.mark.parametrize("cells", SO_FAR, ids=len)
def test_a_completion_counts_as_much_as_its_weight(world: World, criterion: Criterion, cells: list[int]) -> None:
    """Each completion twice, with a third and two thirds of its weight."""
    seen, _, completions = situation(world, cells)
    share = torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)
    doubled = Completions(
        completions.images.repeat_interleave(2, 0),
        completions.owners.repeat_interleave(2),
        (completions.weights[:, None] * share).flatten(),
        completions.effective,
    )
    expected = maps_of(ExactPosterior(world), seen, completions)
    got = maps_of(ExactPosterior(world), seen, doubled)
    torch.testing.assert_close(got.epe, expected.epe, rtol=0, atol=1e-12)
    torch.testing.assert_close(got.eig, expected.eig, rtol=0, atol=1e-12)


@WORLDS
def test_an_image_does_not_depend_on_the_others(world: World) -> None:
    seen, _, completions = situation(world, [4])
    together = maps_of(ExactPosterior(world), seen, completions)
    chosen = choose(together.eig, seen.cells)
    for row in range(len(ATOMS)):
        selected = completions.owners == row
        alone = Completions(
            completions.images[selected],
            torch.zeros(int(selected.sum()), dtype=torch.long),
            completions.weights[selected],
            completions.effective[row : row + 1],
        )
        one = maps_of(ExactPosterior(world), Glimpses(seen.patches[[row]], seen.cells[[row]]), alone)
        assert_same_maps(one, Maps(*(column[[row]] for column in together[:3]), together.evaluations))
        assert torch.equal(choose(one.eig, seen.cells[[row]]), chosen[[row]])


class OneAgainstTheRest(ExactPosterior):
    """The world's posterior as that of a multi-label set: label k is whether the class is k."""

    def lookahead(self, seen: Glimpses, candidates: Candidates) -> Bernoulli:
        probs = super().lookahead(seen, candidates).probs
        return Bernoulli(logits=probs.clamp(1e-15, 1 - 1e-15).logit())


@pytest.mark.parametrize("label", [0, 1, 2])
def test_one_label_of_a_multi_label_posterior(label: int) -> None:
    seen, histories, completions = situation(TILES, [0, 5])
    design = maps_of(OneLabel(OneAgainstTheRest(TILES), label), seen, completions)
    chosen = choose(design.gain("epe"), seen.cells)
    binary = replace(TILES, labels=tuple(int(other == label) for other in TILES.labels))
    for row, history in enumerate(histories):
        epe = [binary.expected_posterior_entropy(history, cell) for cell in TILES.cells]
        torch.testing.assert_close(design.epe[row], torch.tensor(epe, dtype=torch.float64), rtol=0, atol=1e-6)
        assert int(chosen[row]) in brute_force(epe.__getitem__, [0, 5], TILES.cells)[1]


@CRITERIA
def test_each_criterion_follows_its_own_map(criterion: Criterion) -> None:
    """A posterior of made-up numbers, for which the two forms of the gain disagree."""

    class MadeUp(ExactPosterior):
        def lookahead(self, seen: Glimpses, candidates: Candidates) -> Categorical:
            noise = torch.randn(len(candidates.owners), 9, 3, generator=Generator().manual_seed(2), dtype=torch.float64)
            # Sure of one class at cells 6 to 8, whatever is seen there.
            sure = torch.tensor([0.0] * 6 + [5.0] * 3)[:, None] * torch.eye(3)[0]
            return LabelDistribution((2 * noise + sure)[candidates.rows, candidates.cells].log_softmax(-1))

    seen, _, completions = situation(TILES, [4])
    design = maps_of(MadeUp(TILES), seen, completions)
    chosen = choose(design.gain(criterion), seen.cells)
    score = {"epe": -design.epe, "eig": design.eig}
    for row, cell in enumerate(chosen.tolist()):
        candidates = [c for c in TILES.cells if c != 4]
        assert cell == max(candidates, key=lambda c, row=row: score[criterion][row, c].item())
    other = choose(design.gain("eig" if criterion == "epe" else "epe"), seen.cells)
    assert not torch.equal(other, chosen)


@WORLDS
@CRITERIA
def test_every_evaluation_is_counted(world: World, criterion: Criterion) -> None:
    seen, histories, completions = situation(world, [4])
    pairs = sum(len(world.completions(history)) for history in histories) * len(world.cells)
    assert maps_of(ExactPosterior(world), seen, completions).evaluations == pairs


@CRITERIA
def test_fully_pooled_is_the_best_path_for_the_average_image(criterion: Criterion) -> None:
    """At c = 1 every atom takes the cell of the greatest expected gain over atoms: brute force over the world."""
    world = CROWDED
    found = sequences(world, criterion, 3, ExactCompletion(world), pooling=1.0)
    path = found.cells[0].tolist()
    assert (found.cells == found.cells[0]).all()
    for t in range(3):
        histories = [world.look(atom, path[:t]) for atom in range(len(world.images))]

        def mean_epe(cell: int, histories: list[Seen] = histories) -> float:
            return sum(world.expected_posterior_entropy(history, cell) for history in histories) / len(histories)

        # H[g] of an image does not depend on the cell, so least EPE and greatest EIG are one.
        assert path[t] in brute_force(mean_epe, path[:t], world.cells)[1]


def test_pooling_mixes_own_and_population() -> None:
    gain = torch.tensor([[0.0, 3.0, 2.0, 9.0], [4.0, 0.0, 3.0, 9.0]])
    looked_at = torch.tensor([[3], [3]])
    assert choose(gain, looked_at).tolist() == [1, 0]
    # Means 2, 1.5, 2.5: at c = 1 everybody's cell is 2; at 0.5 the scores are 1, 2.25, 2.25+ and 3, 0.75, 2.75.
    assert choose(gain, looked_at, pooling=1.0).tolist() == [2, 2]
    assert choose(gain + torch.tensor([0, 0, 0.1, 0]), looked_at, pooling=0.5).tolist() == [2, 0]
    elsewhere = torch.tensor([0.0, 50.0, 0.0, 0.0])
    assert choose(gain, looked_at, population=elsewhere, pooling=0.5).tolist() == [1, 1]


def test_regret_is_the_score_that_the_choice_misses() -> None:
    """By hand: pooled at 0.5 with (0, 2, 4, 0), the scores are (0.5, 3, 3.5, 5) and (2.5, 1, 2.5, 5); 3 was seen."""
    gain = torch.tensor([[1.0, 4.0, 3.0, 10.0], [5.0, 0.0, 1.0, 10.0]])
    lost = regret(
        gain,
        torch.tensor([1, 1, 0]),
        visited=torch.tensor([[3], [3], [0]]),
        population=torch.tensor([0.0, 2.0, 4.0, 0.0]),
        pooling=0.5,
    )
    assert lost.tolist() == [0.5, 1.5]
