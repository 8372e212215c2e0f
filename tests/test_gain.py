"""Learned gain maps against the exact conditional mutual information of a world that can be enumerated."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from gradients import only_the_location_head_learns
from nogs.attention import gain
from nogs.attention.choosers import greedy
from nogs.attention.classify import classify
from nogs.attention.gain import (
    after_candidates,
    best_gain,
    candidate_cells,
    exploring,
    gain_step,
    learned_gain,
    predicted_gain,
    stop_by_gain_map,
)
from nogs.attention.network import HardAttention
from nogs.attention.train_step import Training
from nogs.config.groups import GainOptions, Geometry, Machine
from nogs.config.stages import Train
from nogs.errors import UserError
from nogs.glimpses.fovea import look
from nogs.glimpses.grid import Grid
from nogs.training.adam import Adam
from world import TILES, Seen, World, random_world

T = 2
ITERATIONS = 600


def training(world: World, *, overview_px: int = 0, glimpses: int = T, foresight: float = 0.0) -> Training:
    """A network over the world's atoms, each as often as its weight in the prior."""
    torch.manual_seed(0)
    times = (torch.tensor(world.prior) / min(world.prior)).round().long()
    network = HardAttention(world.grid(), channels=1, classes=world.classes, hidden=32, overview_px=overview_px)
    return Training(
        Train(
            machine=Machine(Path("nowhere")),
            geometry=Geometry(glimpses=glimpses, overview=overview_px),
            gains=GainOptions(gain_candidates=len(world.cells), exploration=1.0, foresight=foresight),
        ),
        network,
        lambda generator: greedy,
        None,
        world.image_tensor().repeat_interleave(times, 0),
        torch.tensor(world.labels).repeat_interleave(times),
    )


def fit(known: Training) -> None:
    chance = Generator().manual_seed(1)
    adam = Adam(known.network.parameters(), learning_rate=1e-2)
    for iteration in range(ITERATIONS):
        images = torch.randint(len(known.labels), (64,), generator=chance)
        adam.zero_grad()
        gain_step(known, images, chance).backward()
        adam.learning_rate = 1e-2 * (1 - iteration / ITERATIONS)
        adam.step()


@pytest.mark.slow
def test_learned_gains_converge_to_the_conditional_mutual_information() -> None:
    """Before any glimpse and after one, at every cell and for every image."""
    known = training(TILES)
    fit(known)
    network = known.network
    images = TILES.image_tensor()
    atoms = torch.arange(len(images))
    with torch.inference_mode():
        state = network.begin(images, atoms)
        none = predicted_gain(network.location_logits(state.h), network.classifier(state.h))[0]
        expected = torch.tensor([TILES.mutual_information((), cell) for cell in TILES.cells])
        torch.testing.assert_close(none, expected, rtol=0, atol=0.03)
        assert none.argmax() == expected.argmax()
        errors = []
        for first in TILES.cells:
            step = network.step(images, atoms, state=state, t=0, choose=lambda logits, t, at=first: atoms * 0 + at)
            found = predicted_gain(network.location_logits(step.states), network.classifier(step.states))
            exact = [[TILES.mutual_information(TILES.look(atom, [first]), c) for c in TILES.cells] for atom in atoms]
            errors.append((found - torch.tensor(exact)).abs())
        assert torch.stack(errors).mean() < 0.05
        assert errors[int(expected.argmax())].max() < 0.12


def test_a_predicted_gain_is_between_zero_and_the_entropy_that_is_left() -> None:
    logits = torch.tensor([[-50.0, 0.0, 50.0]])
    answer = torch.tensor([[0.25, 0.25, 0.5]]).log()
    entropy = -(answer.exp() * answer).sum()
    torch.testing.assert_close(predicted_gain(logits, answer), torch.stack((entropy * 0, entropy / 2, entropy))[None])


@pytest.mark.parametrize("overview_px", [0, 3])
def test_the_state_after_a_candidate_is_that_of_looking_there_next(overview_px: int) -> None:
    known = training(TILES, overview_px=overview_px)
    images, cells = torch.tensor([3, 0]), torch.tensor([[4, 1], [2, 2]])
    network = known.network
    state = network.begin(known.pixels, images)
    embedded = network.embedding(look(known.pixels, network.grid, cells, images).patches, cells)
    found = after_candidates(network, state, embedded, cells, scene=True)
    for k in range(2):
        step = network.step(known.pixels, images, state=state, t=0, choose=lambda logits, t, k=k: cells[:, k])
        torch.testing.assert_close(found.h.view(2, 2, -1)[:, k], step.states)
        logits = network.location_logits(step.states, step.state.scene)
        best = predicted_gain(logits, network.classifier(step.states)).amax(-1)
        torch.testing.assert_close(best_gain(network, found).view(2, 2)[:, k], best)


@pytest.mark.slow
def test_with_foresight_gains_include_what_a_glimpse_leads_to() -> None:
    """Against the value of every first glimpse by recursion over all that can follow, in a world of four tiles."""
    world, foresight = random_world(6, atoms=12, image_px=4, offsets_px=(0, 2)), 0.5

    def value(seen: Seen, cell: int) -> float:
        """I(θ; y | l, seen) + γ E_y max_l' value(seen, y, l'); a tile seen before has no gain, and ends nothing."""
        later = 0.0
        for atom, weight in world.completions(seen):
            now = (*seen, *world.look(atom, [cell]))
            unseen = [c for c in world.cells if c not in [other for other, _ in now]]
            later += weight * max((value(now, c) for c in unseen), default=0.0)
        return world.mutual_information(seen, cell) + foresight * later

    known = training(world, glimpses=4, foresight=foresight)
    fit(known)
    network = known.network
    with torch.inference_mode():
        state = network.begin(known.pixels, torch.tensor([0]))
        found = predicted_gain(network.location_logits(state.h), network.classifier(state.h))[0]
    expected = torch.tensor([value((), cell) for cell in world.cells])
    torch.testing.assert_close(found, expected, rtol=0, atol=0.06)
    one_step = torch.tensor([world.mutual_information((), cell) for cell in world.cells])
    assert (expected - one_step).min() > 0.06  # or the test would not tell foresight from none


def pointer_world() -> World:
    """Four tiles: the first shows which of the next two holds the label, and the last is the same in all images."""
    bits = list(product((0, 1), repeat=3))
    images = tuple(
        tuple(tuple(255 * (pointer, *places, 0)[row // 2 * 2 + column // 2] for column in range(4)) for row in range(4))
        for pointer, *places in bits
    )
    labels = tuple(places[pointer] for pointer, *places in bits)
    return World(images, labels, (1 / 8,) * 8, glimpse_px=2, stride_px=2, offsets_px=(0, 2))


@pytest.mark.slow
def test_with_foresight_the_pointer_is_looked_at_first_and_then_the_place_that_it_names() -> None:
    """Alone, the pointer has no gain. Two glimpses are enough, and all eight images are classified."""
    world = pointer_world()
    gains = [world.mutual_information((), cell) for cell in world.cells]
    assert gains[0] == gains[3] == 0 < gains[1]  # one step of gain does not see the pointer
    known = training(world, foresight=0.9)
    learned_gain(known)
    fit(known)
    network = known.network
    with torch.inference_mode():
        rollout = network(world.image_tensor(), glimpses=T, choose=greedy)
    named = [1 + int(image[0][0] == 255) for image in world.images]
    assert rollout.cells.tolist() == [[0, cell] for cell in named]
    assert rollout.class_logits[:, -1].argmax(-1).tolist() == list(world.labels)


def test_candidates_are_drawn_anywhere_and_all_locations_once_where_they_suffice() -> None:
    assert torch.equal(candidate_cells(2, 5, 5, Generator()), torch.arange(5).expand(2, 5))
    drawn = candidate_cells(1000, 4, 5, Generator().manual_seed(0))
    assert drawn.shape == (1000, 4)
    shares = torch.bincount(drawn.flatten(), minlength=5) / drawn.numel()
    torch.testing.assert_close(shares, torch.full((5,), 0.2), rtol=0, atol=5 * (0.16 / 4000) ** 0.5)


@pytest.mark.parametrize("overview_px", [0, 3])
def test_the_regression_trains_the_location_head_alone(overview_px: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of all else are equal with the regression and without."""
    known = training(TILES, overview_px=overview_px)

    def gradients() -> dict[str, Tensor | None]:
        known.network.zero_grad()
        gain_step(known, torch.arange(8), Generator().manual_seed(3)).backward()
        return {name: parameter.grad for name, parameter in known.network.named_parameters()}

    whole = gradients()
    monkeypatch.setattr(gain, "predicted_gain", lambda location_logits, class_logits: location_logits * 0)
    label = gradients()
    only_the_location_head_learns(whole, label)


@pytest.mark.parametrize(("foresight", "lowered"), [(0.9, True), (0.0, False)])
def test_with_foresight_predicted_gains_begin_near_zero(foresight: float, lowered: bool) -> None:
    known = training(TILES, foresight=foresight)
    learned_gain(known)
    gains = predicted_gain(known.network.location_logits(torch.zeros(1, 32)), torch.zeros(1, TILES.classes))
    assert (gains.max() < 0.1) == lowered


def test_with_foresight_the_regression_trains_the_state_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of the core differ from those without the regression, and those of the classifier do not."""
    known = training(TILES, foresight=0.9)
    network = known.network

    def gradients() -> dict[str, Tensor | None]:
        network.zero_grad()
        gain_step(known, torch.arange(8), Generator().manual_seed(3)).backward()
        return {name: parameter.grad for name, parameter in network.named_parameters()}

    whole = gradients()
    monkeypatch.setattr(gain, "predicted_gain", lambda location_logits, class_logits: location_logits * 0)
    label = gradients()
    for name in ("core.weight_ih", "embedding.where.0.weight", "classifier.weight"):
        found, without = whole[name], label[name]
        assert found is not None
        assert without is not None
        assert torch.equal(found, without) == name.startswith("classifier"), name


def test_exploration_is_a_share_of_draws() -> None:
    """Of 20,000, half are drawn, by the softmax of equal logits but one: five standard deviations are 0.018."""
    logits = torch.zeros(20_000, 4)
    logits[:, 2] = 1e-4
    chance = Generator().manual_seed(0)
    cells = exploring(0.5, chance)(logits, 0)
    shares = torch.bincount(cells, minlength=4) / len(cells)
    torch.testing.assert_close(shares, torch.tensor([0.125, 0.125, 0.625, 0.125]), rtol=0, atol=0.018)
    assert (exploring(0.0, chance)(logits, 0) == 2).all()


def test_an_image_stops_where_no_location_promises_enough() -> None:
    """The threshold lies between the greatest predicted gains, which are computed from a whole rollout."""
    known = training(TILES)
    network, images = known.network.eval(), TILES.image_tensor()
    with torch.inference_mode():
        for layer in (network.locator[0], network.locator[2]):  # so that predicted gains differ from image to image
            layer.weight.mul_(20)
        steps = list(network.unroll(images, torch.arange(len(images)), glimpses=3, choose=greedy))
        greatest = torch.stack(
            [
                predicted_gain(network.location_logits(step.states), network.classifier(step.states)).amax(-1)
                for step in steps[:2]
            ],
            dim=1,
        )
        threshold = (greatest[:, 0].min() + greatest[:, 0].max()).item() / 2
        answers = classify(network, images, glimpses=3, choose=greedy, stop=stop_by_gain_map(threshold))
    below = torch.cat((greatest < threshold, torch.ones(len(images), 1, dtype=torch.bool)), dim=1)
    assert torch.equal(answers.steps, below.int().argmax(1) + 1)
    assert len(answers.steps.unique()) > 1


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_candidates_is_drawn_where_the_overview_has_detail(share: float) -> None:
    """One bright square on black: candidates of detail show it, all others are those of ``detail=0``."""
    torch.manual_seed(0)
    network = HardAttention(Grid(60, 10, 1), channels=1, classes=2, hidden=4, overview_px=12)
    images = torch.zeros(3, 1, 60, 60, dtype=torch.uint8)
    images[:, :, 20:25, 40:45] = 255
    config = Train(Machine(Path("nowhere")), gains=GainOptions(gain_candidates=8, detail=share))
    known = Training(config, network, lambda generator: greedy, None, images, torch.tensor([0, 1, 0]))
    cells = gain.candidates(known, torch.arange(3), Generator().manual_seed(0))
    assert cells.shape == (3, 8)
    of_detail = round(8 * share)
    shown = look(images, network.grid, cells).patches.flatten(2).amax(-1) == 255
    # 143 black pixels with a deviation of 255 / 144 each against one of 255: one draw in 140 falls elsewhere.
    assert shown[:, :of_detail].float().mean() > 0.8 or not of_detail
    anywhere = torch.randint(len(network.grid), (3, 8), generator=Generator().manual_seed(0))
    assert torch.equal(cells[:, of_detail:], anywhere[:, of_detail:])


def test_detail_needs_an_overview() -> None:
    known = training(TILES)
    config = replace(known.config, gains=GainOptions(detail=0.5))
    with pytest.raises(UserError, match=r"detail=0.5 needs an overview: give `overview`, or detail=0"):
        learned_gain(known._replace(config=config))
