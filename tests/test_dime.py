"""DIME against the exact conditional mutual information of a world that can be enumerated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from gradients import only_the_location_head_learns
from nogs.attention import dime as module
from nogs.attention.annealed import Annealed, random_places_loss, staged
from nogs.attention.choosers import greedy
from nogs.attention.dime import dime, dime_step, epsilon_greedy
from nogs.attention.gain import predicted_gain
from nogs.attention.network import HardAttention
from nogs.attention.train_step import Objective, Training
from nogs.config.groups import GainOptions, Geometry, Machine, Optimisation
from nogs.config.stages import Train
from nogs.training.adam import Adam
from world import TILES, World

T = 2
ITERATIONS = 800


def training(
    world: World,
    *,
    overview_px: int = 0,
    iterations: int = ITERATIONS,
    exploration: float = 1.0,
    pretraining: float = 0.2,
) -> Training:
    """A network over the world's atoms, each as often as its weight in the prior."""
    torch.manual_seed(0)
    times = (torch.tensor(world.prior) / min(world.prior)).round().long()
    network = HardAttention(world.grid(), channels=1, classes=world.classes, hidden=32, overview_px=overview_px)
    config = Train(
        machine=Machine(Path("nowhere")),
        geometry=Geometry(glimpses=T, overview=overview_px),
        optimisation=Optimisation(iterations=iterations),
        gains=GainOptions(exploration=exploration, pretraining=pretraining),
    )
    pixels = world.image_tensor().repeat_interleave(times, 0)
    return Training(
        config, network, lambda _: greedy, None, pixels, torch.tensor(world.labels).repeat_interleave(times)
    )


def fit(known: Training, objective: Objective) -> None:
    chance, iterations = Generator().manual_seed(1), known.config.optimisation.iterations
    adam = Adam(objective.trained.parameters(), learning_rate=1e-2)
    for iteration in range(iterations):
        images = torch.randint(len(known.labels), (64,), generator=chance)
        adam.zero_grad()
        objective.loss(images, chance).backward()
        adam.learning_rate = 1e-2 * (1 - iteration / iterations)
        adam.step()


@pytest.mark.slow
def test_predicted_gains_converge_to_the_conditional_mutual_information_along_the_policy() -> None:
    """Before any glimpse at every cell, and after the first glimpse of the policy at its next cell, for every image."""
    known = training(TILES)
    fit(known, dime(known))
    network, images = known.network.eval(), TILES.image_tensor()
    atoms = torch.arange(len(images))
    with torch.inference_mode():
        state = network.begin(images, atoms)
        found = predicted_gain(network.location_logits(state.h), network.classifier(state.h))[0]
        expected = torch.tensor([TILES.mutual_information((), cell) for cell in TILES.cells])
        torch.testing.assert_close(found, expected, rtol=0, atol=0.05)
        first = int(found.argmax())
        assert first == expected.argmax()
        step = network.step(images, atoms, state=state, t=0, choose=greedy)
        after = predicted_gain(network.location_logits(step.states), network.classifier(step.states))
        gains = [[TILES.mutual_information(TILES.look(atom, [first]), c) for c in TILES.cells] for atom in atoms]
        exact = torch.tensor(gains)
        assert (after - exact).abs().mean() < 0.06
        assert (exact.amax(1) - exact.gather(1, after.argmax(1, keepdim=True))[:, 0]).max() < 0.05


def test_one_location_of_an_image_is_evaluated_and_regressed_in_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a loop over images: the label's loss at t = 0..T, and the squared error at the cells of a rollout."""
    known = training(TILES, exploration=0.0, pretraining=0.0)
    network, rows = known.network, torch.tensor([5, 0, 9])
    got = dime_step(known, Annealed(network, iterations=ITERATIONS), rows, Generator().manual_seed(3))
    expected = torch.zeros(())
    for row in rows.tolist():
        begin = network.begin(known.pixels, torch.tensor([row]))
        steps = list(network.unroll(known.pixels, torch.tensor([row]), glimpses=T, choose=greedy))
        states = [begin.h, *(step.states for step in steps)]
        answers = [network.classifier(h).log_softmax(-1)[0] for h in states]
        for t, step in enumerate(steps):
            entropy = -(answers[t].exp() * answers[t]).sum().detach()
            value = network.location_logits(states[t])[0, step.cells[0]].sigmoid() * entropy
            gain = (answers[t + 1] - answers[t])[known.labels[row]].detach()
            expected = expected + (value - gain) ** 2
        expected = expected - sum(answer[known.labels[row]] for answer in answers)
    torch.testing.assert_close(got, expected / len(rows) / (T + 1))


@pytest.mark.parametrize("overview_px", [0, 3])
def test_the_regression_trains_the_location_head_alone(overview_px: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of all else are equal with the regression and without."""
    known = training(TILES, overview_px=overview_px, pretraining=0.0)

    def gradients() -> dict[str, Tensor | None]:
        known.network.zero_grad()
        annealed = Annealed(known.network, iterations=ITERATIONS)
        dime_step(known, annealed, torch.arange(8), Generator().manual_seed(3)).backward()
        return {name: parameter.grad for name, parameter in known.network.named_parameters()}

    whole = gradients()
    monkeypatch.setattr(module, "predicted_gain", lambda location_logits, class_logits: location_logits * 0)
    label = gradients()
    only_the_location_head_learns(whole, label)


def test_random_places_come_first_and_train_no_location_head() -> None:
    known = training(TILES, iterations=10, pretraining=0.3)
    annealed = Annealed(known.network, iterations=10)
    for step in range(5):
        known.network.zero_grad()
        dime_step(known, annealed, torch.arange(8), Generator().manual_seed(step)).backward()
        trained = known.network.location_logits(torch.zeros(1, 32)).requires_grad
        assert trained
        located = [p.grad is not None for name, p in known.network.named_parameters() if name.startswith("locator")]
        assert all(located) == any(located) == (step >= 3)
    places = random_places_loss(known, torch.arange(8), Generator().manual_seed(0))
    assert places.item() == pytest.approx(torch.tensor(TILES.classes).log().item(), abs=0.3)


def test_what_falls_is_constant_in_each_fifth_after_the_random_places() -> None:
    found = [staged((iteration + 0.5) / 100, after=0.5, first=2.0, ratio=0.5) for iteration in range(50, 100)]
    assert found == [2.0] * 10 + [1.0] * 10 + [0.5] * 10 + [0.25] * 10 + [0.125] * 10


def test_exploration_is_a_share_of_uniform_draws() -> None:
    """Of 20,000, half are drawn from four cells: five standard deviations are 0.018."""
    logits = torch.zeros(20_000, 4)
    logits[:, 2] = 3.0
    cells = epsilon_greedy(0.5, 4, Generator().manual_seed(0))(logits, 0)
    shares = torch.bincount(cells, minlength=4) / len(cells)
    torch.testing.assert_close(shares, torch.tensor([0.125, 0.125, 0.625, 0.125]), rtol=0, atol=0.018)
    assert (epsilon_greedy(0.0, 4, Generator())(logits, 0) == 2).all()
