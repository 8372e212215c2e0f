"""GDFS against the greatest one-step gain of a world that can be enumerated."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from nogs.attention import gdfs as module
from nogs.attention.annealed import Annealed
from nogs.attention.choosers import greedy
from nogs.attention.gdfs import COLDEST, COOLING, HOTTEST, concrete, gdfs, gdfs_step, soft_glimpse
from nogs.glimpses.fovea import look
from test_dime import fit, training
from world import TILES

ITERATIONS = 800


@pytest.mark.slow
def test_the_policy_picks_the_location_of_the_greatest_gain() -> None:
    """Before any glimpse, and for every image after the first: within 0.05 nats of the greatest mutual information."""
    known = training(TILES, iterations=ITERATIONS)
    fit(known, gdfs(known))
    network, images = known.network.eval(), TILES.image_tensor()
    with torch.inference_mode():
        rollout = network(images, glimpses=2, choose=greedy)
    for atom, (first, second) in enumerate(rollout.cells.tolist()):
        for seen, cell in (((), first), (TILES.look(atom, [first]), second)):
            gains = [TILES.mutual_information(seen, other) for other in TILES.cells]
            assert max(gains) - gains[cell] < 0.05
    gains = [TILES.mutual_information((), cell) for cell in TILES.cells]
    assert max(gains) - sorted(gains)[-2] > 0.05  # otherwise any first cell would pass the test above


def test_a_soft_glimpse_is_the_mean_of_the_heaviest_glimpses() -> None:
    """Against a loop: nine cells, of which the lightest is left out and the others renormalised."""
    known = training(TILES)
    network, images = known.network, torch.tensor([4, 0])
    weights = torch.rand(2, 9, generator=Generator().manual_seed(0))
    found = soft_glimpse(network, known.pixels, images, weights / weights.sum(1, keepdim=True))
    for place, image in enumerate(images.tolist()):
        heaviest = sorted(range(9), key=lambda cell, place=place: -weights[place, cell].item())[:8]
        total = torch.zeros(64)
        for cell in heaviest:
            at = torch.tensor([[cell]])
            patches = look(known.pixels, network.grid, at, torch.tensor([image])).patches
            total += weights[place, cell] * network.embedding(patches, at)[0, 0]
        torch.testing.assert_close(found[place], total / weights[place, heaviest].sum())


def test_concrete_weights_peak_at_draws_of_the_policy() -> None:
    """The greatest weight is at a draw of softmax(logits), whatever the temperature: of 20,000, six sigma are 0.022."""
    logits = torch.tensor([0.0, 1.0, 2.0]).expand(20_000, 3)
    for temperature in (HOTTEST, COLDEST):
        weights = concrete(logits, temperature=temperature, generator=Generator().manual_seed(0))
        torch.testing.assert_close(weights.sum(1), torch.ones(len(logits)))
        shares = torch.bincount(weights.argmax(1), minlength=3) / len(logits)
        torch.testing.assert_close(shares, logits[0].softmax(-1), rtol=0, atol=0.022)
    assert weights.amax(1).mean() > 0.95
    assert pytest.approx(COLDEST) == COOLING**4 * HOTTEST


def test_the_location_head_learns_by_the_weights_alone_and_no_other_part_by_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With constant weights the location head has no gradient, and all others have the same."""
    known = training(TILES, pretraining=0.0)

    def gradients() -> dict[str, Tensor | None]:
        known.network.zero_grad()
        annealed = Annealed(known.network, iterations=ITERATIONS)
        gdfs_step(known, annealed, torch.arange(8), Generator().manual_seed(3)).backward()
        return {name: parameter.grad for name, parameter in known.network.named_parameters()}

    whole = gradients()

    def constant(logits: Tensor, *, temperature: float, generator: Generator) -> Tensor:
        return concrete(logits, temperature=temperature, generator=generator).detach()

    monkeypatch.setattr(module, "concrete", constant)
    for name, without in gradients().items():
        found = whole[name]
        if name.startswith("baseline"):
            assert found is None
        elif name.startswith("locator"):
            assert without is None
            assert found is not None
            assert found.abs().sum() > 0
        else:
            assert found is not None
            assert without is not None
            torch.testing.assert_close(found, without, msg=name)


def test_a_later_glimpse_does_not_train_the_choice_of_an_earlier_one() -> None:
    """The loss after the first of two glimpses gives the location head the gradient of one glimpse alone."""
    known = training(TILES, pretraining=0.0)
    network, images = known.network, torch.arange(8)
    state = network.begin(known.pixels, images)
    chance = Generator().manual_seed(3)
    step = network.step(known.pixels, images, state=state, t=0, choose=greedy)
    assert not step.cells.requires_grad
    head = [parameter for name, parameter in network.named_parameters() if name.startswith("locator")]
    later = concrete(step.location_logits.detach(), temperature=1.0, generator=chance)
    softly = network.core(soft_glimpse(network, known.pixels, images, later), step.states)
    assert torch.autograd.grad(network.classifier(softly).sum(), head, allow_unused=True) == (None,) * len(head)


def test_temperatures_fall_with_the_training() -> None:
    """The weights of the last step are colder than those of the first: the greatest of them is larger."""
    known = training(TILES, pretraining=0.0)
    greatest: list[float] = []

    def recorded(logits: Tensor, *, temperature: float, generator: Generator) -> Tensor:
        greatest.append(temperature)
        return concrete(logits, temperature=temperature, generator=generator)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "concrete", recorded)
        config = replace(known.config, geometry=replace(known.config.geometry, glimpses=1))
        annealed = Annealed(known.network, iterations=5)
        for step in range(5):
            gdfs_step(known._replace(config=config), annealed, torch.arange(4), Generator().manual_seed(step))
    assert greatest == pytest.approx([2.0, 2.0 * 20**-0.25, 2.0 * 20**-0.5, 2.0 * 20**-0.75, 0.1])
