"""Gain maps that start from designed sequences, in a world whose gains and designs can be enumerated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator, Tensor

import nogs
import tiny
from nogs.attention import gain_nogs as module
from nogs.attention.annealed import Annealed
from nogs.attention.choosers import greedy
from nogs.attention.gain import predicted_gain
from nogs.attention.gain_nogs import (
    designed_cells_loss,
    gain_loss,
    gain_nogs,
    gain_nogs_step,
    handing_over,
    with_designed,
)
from nogs.attention.train_step import Training
from nogs.information import entropy
from nogs.sequences.table import Sequences
from staged import Stages
from test_dime import T, fit, training
from tiny import pictures
from world import TILES

ITERATIONS = 800


def designed(*, overview_px: int = 0, exploration: float = 0.1) -> Training:
    """A training with the exact greedy design of every atom."""
    known = training(TILES, overview_px=overview_px, iterations=ITERATIONS, exploration=exploration)
    atoms = range(len(TILES.images))
    pictures = [TILES.image_tensor()[atom] for atom in atoms]
    places = [next(i for i, image in enumerate(known.pixels) if torch.equal(image, picture)) for picture in pictures]
    cells = torch.tensor([TILES.greedy_cells(atom, T) for atom in atoms])
    config = replace(known.config, gains=replace(known.config.gains, gain_candidates=len(TILES.cells)))
    return known._replace(config=config, sequences=Sequences(torch.tensor(places), cells))


@pytest.mark.slow
def test_it_looks_where_the_gain_is_greatest_and_predicts_it() -> None:
    """The regret of the policy's cells for every image, and V of the first, which imitation raises a little."""
    known = designed(exploration=0.5)
    fit(known, gain_nogs(known))
    network, images = known.network.eval(), TILES.image_tensor()
    with torch.inference_mode():
        rollout = network(images, glimpses=2, choose=greedy)
        state = network.begin(images, torch.tensor([0]))
        found = predicted_gain(network.location_logits(state.h), network.classifier(state.h))[0]
    first = int(found.argmax())
    exact = [TILES.mutual_information((), cell) for cell in TILES.cells]
    assert exact[first] == max(exact)
    assert -0.05 < found[first].item() - exact[first] < 0.12
    for atom, cells in enumerate(rollout.cells.tolist()):
        for seen, cell in (((), cells[0]), (TILES.look(atom, cells[:1]), cells[1])):
            gains = [TILES.mutual_information(seen, other) for other in TILES.cells]
            assert max(gains) - gains[cell] < 0.05


def test_the_loss_of_gains_is_least_at_their_mean_and_its_derivative_is_the_error() -> None:
    generator = Generator().manual_seed(0)
    logits = torch.randn(5, 3, generator=generator, dtype=torch.float64).requires_grad_()
    answers = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    gains = torch.rand(5, 3, generator=generator, dtype=torch.float64) - 0.2
    (slope,) = torch.autograd.grad(gain_loss(logits, answers, gains).sum(), logits)
    torch.testing.assert_close(slope, predicted_gain(logits, answers).detach() - gains)
    with torch.no_grad():
        left = entropy(answers.log_softmax(-1))
        mean = torch.full((5, 1), 0.3, dtype=torch.float64)
        best = (mean / (left[:, None] - mean)).log()
        at_best, beside = (gain_loss(a, answers, mean) for a in (best, best + 0.1))
    assert (at_best < beside).all()
    clipped = gain_loss(torch.ones(1, 1), torch.zeros(1, 2), torch.tensor([[-50.0]]))
    torch.testing.assert_close(clipped, gain_loss(torch.ones(1, 1), torch.zeros(1, 2), torch.tensor([[-2 * 0.693147]])))


@pytest.mark.parametrize("overview_px", [0, 3])
def test_gains_and_designed_cells_train_the_location_head_alone(
    overview_px: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients of all else are equal with the two terms and without, and the location head learns from either."""
    known = designed(overview_px=overview_px)

    def gradients() -> dict[str, Tensor | None]:
        known.network.zero_grad()
        annealed = Annealed(known.network, iterations=ITERATIONS)
        gain_nogs_step(known, annealed, torch.arange(8), Generator().manual_seed(3)).backward()
        return {name: parameter.grad for name, parameter in known.network.named_parameters()}

    def nothing(training: Training, generator: Generator) -> Tensor:
        return torch.zeros(())

    whole = gradients()
    monkeypatch.setattr(module, "designed_cells_loss", nothing)
    by_gains = gradients()
    monkeypatch.setattr(module, "gain_loss", lambda location_logits, class_logits, gains: location_logits * 0)
    label = gradients()
    for name, without in label.items():
        found, middle = whole[name], by_gains[name]
        if name.startswith(("locator", "overview.features")):
            assert found is not None, name
            assert middle is not None, name
            assert middle.abs().sum() > 0, name
            shift = name == "locator.out.bias"  # of all logits alike, which a softmax does not depend on
            assert shift or (found - middle).abs().sum() > 0, name
        elif name.startswith("baseline"):
            assert found is None
        else:
            assert found is not None
            assert without is not None
            torch.testing.assert_close(found, without, msg=name)


def test_designed_cells_are_imitated_from_their_own_states() -> None:
    """Against a loop over the drawn images, whose cells are those of the greedy design."""
    known = designed()
    sequences, network = known.sequences, known.network
    assert sequences is not None
    found = designed_cells_loss(known, Generator().manual_seed(7))
    rows = torch.randint(len(sequences.images), (16,), generator=Generator().manual_seed(7))
    losses = []
    for row in rows.tolist():
        h = torch.zeros(1, 32)
        for cell in sequences.cells[row].tolist():
            losses.append(-network.location_logits(h).log_softmax(-1)[0, cell])
            at = torch.tensor([cell])
            state = network.begin(known.pixels, sequences.images[row : row + 1])._replace(h=h)
            image = sequences.images[row : row + 1]
            h = network.step(known.pixels, image, state=state, t=0, choose=lambda _, t, at=at: at).states.detach()
    torch.testing.assert_close(found, torch.stack(losses).mean())


def test_images_hand_over_from_designed_cells_to_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of images that follow falls linearly from 1 to 0 at half of the iterations, and stays there."""
    shares: list[float] = []

    def recorded(paths: Tensor, following: float, exploration: float, generator: Generator) -> object:
        shares.append(following)
        return handing_over(paths, following, exploration, generator)

    monkeypatch.setattr(module, "handing_over", recorded)
    known = designed()
    annealed = Annealed(known.network, iterations=8)
    for step in range(8):
        gain_nogs_step(known, annealed, torch.arange(4), Generator().manual_seed(step))
    assert shares == pytest.approx([1, 0.75, 0.5, 0.25, 0, 0, 0, 0])


def test_an_image_follows_its_path_in_all_glimpses_or_in_none() -> None:
    """Of 10,000 images a quarter follow: five standard deviations are 0.022."""
    paths, logits = torch.tensor([[1, 2]]).expand(10_000, 2), torch.tensor([[9.0, 0.0, 0.0, 0.0]]).expand(10_000, 4)
    choose = handing_over(paths, 0.25, 0.0, Generator().manual_seed(0))
    first, second = choose(logits, 0), choose(logits, 1)
    assert torch.equal(first == 1, second == 2)
    assert (first == 1).float().mean().item() == pytest.approx(0.25, abs=0.022)
    assert set(first.tolist()) == {0, 1}


def test_candidates_are_cells_anywhere_and_a_designed_sequence() -> None:
    known = designed()
    assert known.sequences is not None
    anywhere = torch.randint(9, (500, 3), generator=Generator().manual_seed(1))
    found = with_designed(anywhere, known, Generator().manual_seed(0))
    assert torch.equal(found[:, :3], anywhere)
    rows = {tuple(cells) for cells in known.sequences.cells.tolist()}
    assert {tuple(cells) for cells in found[:, 3:].tolist()} == rows
    with pytest.raises(ValueError, match="sequences=None: gain-nogs starts from designed sequences"):
        with_designed(anywhere, known._replace(sequences=None), Generator())


def test_logits_of_a_dense_head_begin_low() -> None:
    for overview_px in (0, 3):
        known = designed(overview_px=overview_px)
        network = gain_nogs(known).trained.get_submodule("network")
        state = known.network.begin(known.pixels, torch.arange(3))
        assert network is known.network
        assert known.network.location_logits(state.h, state.scene).mean().item() == pytest.approx(-3.0, abs=0.5)


def test_the_stage_trains_it_from_a_search_and_its_map_stops(
    stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = stages.train(str(tmp_path / "gain-nogs"), "gain-nogs", iterations=20)
    Image.fromarray(pictures(np.array([0]), seed=1)[0]).save(tmp_path / "image.png")
    for threshold, steps in ((0.0, tiny.T), (100.0, 1)):
        nogs.predict(nogs.Predict(run.path, (tmp_path / "image.png",), json=True, threshold=threshold))
        assert json.loads(capsys.readouterr().out)["steps"] == steps
