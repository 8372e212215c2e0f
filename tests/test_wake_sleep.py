"""The inference network: its draws, their log-probabilities, and which parameters its losses train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from given import following
from nogs.attention.choosers import greedy, sampling
from nogs.attention.network import HardAttention, previous_states
from nogs.attention.objectives import label_loss, wake_sleep_loss, wake_sleep_weights
from nogs.attention.train_step import Training
from nogs.attention.wake_sleep import ENTROPY_BONUS, InferenceNetwork, Proposed, propose, wake_sleep_step
from nogs.config.groups import Geometry, Machine
from nogs.config.stages import Train
from nogs.glimpses.grid import Grid

CLASSES, HIDDEN, T = 3, 6, 2


def networks(grid: Grid, channels: int = 1) -> tuple[HardAttention, InferenceNetwork]:
    torch.manual_seed(2)
    network = HardAttention(grid, channels=channels, classes=CLASSES, hidden=HIDDEN)
    inference = InferenceNetwork(grid, channels=channels, classes=CLASSES, hidden=HIDDEN)
    with torch.no_grad():  # untrained, it would hardly prefer any cell
        inference.locator[2].weight.mul_(16)
    return network, inference


FOUR = Grid(image_px=6, glimpse_px=3, stride_px=3)


def noise(count: int, channels: int = 1, side_px: int = 6) -> Tensor:
    shape = (count, channels, side_px, side_px)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=Generator().manual_seed(5))


def proposed(
    network: HardAttention,
    inference: InferenceNetwork,
    images: Tensor,
    rows: Tensor,
    labels: Tensor,
    samples: int,
    exploration: float = 0.0,
) -> Proposed:
    return propose(
        network,
        inference,
        images,
        rows,
        labels,
        glimpses=T,
        samples=samples,
        exploration=exploration,
        generator=Generator().manual_seed(1),
    )


@pytest.mark.parametrize("exploration", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("channels", "side_px"), [(1, 6), (3, 40)])
def test_a_proposal_is_the_network_run_along_its_cells(channels: int, side_px: int, exploration: float) -> None:
    """Row by row with a plain loop, from the hidden states of the network when it is led along the same cells."""
    network, inference = networks(Grid(side_px, 3, 3), channels)
    images, rows, labels = noise(5, channels, side_px), torch.tensor([4, 1]), torch.tensor([2, 0])
    found = proposed(network, inference, images, rows, labels, samples=3, exploration=exploration)
    assert found.cells.shape == found.log_proposal.shape == found.log_drawn.shape == (6, T)
    for row in range(6):
        image = rows[row // 3]
        alone = images[image : image + 1]
        cells = found.cells[row : row + 1]
        led = network(alone, glimpses=T, choose=following(cells, greedy))
        torch.testing.assert_close(found.log_policy[row : row + 1], led.log_policy)
        answer = led.class_logits[0, -1].log_softmax(-1)[labels[row // 3]]
        torch.testing.assert_close(found.log_likelihood[row], answer)
        h = torch.zeros(1, HIDDEN)
        for t in range(T):
            q = network.locator(h)
            r = inference(inference.context(alone, labels[row // 3][None]), h, q).softmax(-1)[0]
            torch.testing.assert_close(found.log_proposal[row, t].exp(), r[cells[0, t]])
            mixed = (1 - exploration) * r[cells[0, t]] + exploration / len(network.grid)
            torch.testing.assert_close(found.log_drawn[row, t].exp(), mixed)
            h = led.states[:, t]


@pytest.mark.parametrize("exploration", [0.0, 0.4])
def test_cells_are_drawn_from_the_inference_network_and_not_from_the_policy(exploration: float) -> None:
    """Two images that differ, and one of them under two labels. 20,000 draws each: a share is off by 0.022 once
    10^9 (six standard deviations)."""
    network, inference = networks(FOUR)
    images, labels, n = noise(2), torch.tensor([0, 1, 0]), 20_000
    rows = torch.tensor([0, 0, 1])
    found = proposed(network, inference, images, rows, labels, samples=n, exploration=exploration)
    shares = [torch.bincount(cells, minlength=4) / n for cells in found.cells[:, 0].split(n)]
    context = inference.context(images[rows], labels)
    h = torch.zeros(3, HIDDEN)
    r = inference(context, h, network.locator(h)).softmax(-1)
    assert (r[0] - r[1]).abs().max() > 0.05
    assert (r[0] - r[2]).abs().max() > 0.05
    for share, likely in zip(shares, r, strict=True):
        mixed = (1 - exploration) * likely.detach() + exploration / 4
        torch.testing.assert_close(share, mixed, rtol=0, atol=0.022)
    policy = network.locator(h)[0].softmax(-1)
    assert (shares[0] - policy).abs().max() > 0.03


def test_a_proposal_that_learned_nothing_is_the_policy() -> None:
    network, inference = networks(FOUR)
    with torch.no_grad():
        inference.locator[2].weight.zero_()
        inference.locator[2].bias.zero_()
    found = proposed(network, inference, noise(2), torch.arange(2), torch.tensor([0, 1]), samples=5)
    torch.testing.assert_close(found.log_proposal, found.log_policy)
    torch.testing.assert_close(found.log_drawn, found.log_policy)


def gradients(network: torch.nn.Module, loss: Tensor) -> dict[str, Tensor | None]:
    names, parameters = zip(*network.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return dict(zip(names, found, strict=True))


def training(network: HardAttention, images: Tensor, labels: Tensor, **how: Any) -> Training:
    config = Train(machine=Machine(Path("nowhere")), geometry=Geometry(glimpses=T), **how)
    return Training(config, network, sampling, None, images, labels)


def test_the_proposal_teaches_the_inference_network_alone_and_the_loss_reaches_all() -> None:
    network, inference = networks(FOUR)
    images, labels = noise(4), torch.tensor([0, 1, 2, 1])
    found = proposed(network, inference, images, torch.arange(4), labels, samples=3)
    assert all(gradient is None for gradient in gradients(network, found.log_proposal.sum()).values())
    assert all(gradient is None for gradient in gradients(inference, found.log_policy.sum()).values())
    known = training(network, images, labels, wake_sleep_samples=3)
    loss = wake_sleep_step(known, inference, torch.arange(4), Generator().manual_seed(1))
    for name, gradient in {**gradients(network, loss), **gradients(inference, loss)}.items():
        if name.startswith("baseline"):
            assert gradient is None  # importance weights need none
        else:
            assert gradient is not None, name
            assert gradient.abs().sum() > 0, name


def test_a_step_trains_the_classifier_on_a_draw_by_the_posterior_weights() -> None:
    """In 100 steps, the mean difference to the gradient of Σ_m w_m label_m, of the same sequences, is zero: each of its
    18 coordinates within 5 standard errors, a false alarm once in 10^5 seeds."""
    network, inference = networks(FOUR)
    with torch.no_grad():
        network.classifier.weight.mul_(8)  # so that the answer depends on the sequence
    images, labels, samples = noise(1), torch.tensor([1]), 6
    draws = [Generator().manual_seed(seed) for seed in range(100)]
    known = training(network, images, labels, wake_sleep_samples=samples)
    classifier = [network.classifier.weight]
    got, expected = [], []
    for generator in draws:
        state = generator.get_state()
        loss = wake_sleep_step(known, inference, torch.arange(1), generator)
        got.append(torch.autograd.grad(loss, classifier)[0].flatten())
        generator.set_state(state)
        found = propose(
            network,
            inference,
            images,
            torch.arange(1),
            labels,
            glimpses=T,
            samples=samples,
            exploration=0.0,
            generator=generator,
        )
        terms = (found.log_policy, found.log_proposal, found.log_drawn)
        weights = wake_sleep_weights(found.log_likelihood[None], *(term[None] for term in terms))
        led = network(images.expand(samples, -1, -1, -1), glimpses=T, choose=following(found.cells, greedy))
        label = (weights.posterior[0] * label_loss(led.class_logits, labels.expand(samples))).sum()
        expected.append(torch.autograd.grad(label, classifier)[0].flatten())
    off = torch.stack(got) - torch.stack(expected)
    assert (off.std(0) > 0).any()
    assert (off.mean(0).abs() < 5 * off.std(0) / len(draws) ** 0.5 + 1e-6).all()


def test_the_default_entropy_bonus_is_that_of_ws_ram() -> None:
    network, inference = networks(FOUR)
    images, labels = noise(4), torch.tensor([0, 1, 2, 1])

    def locator_gradient(**how: Any) -> Tensor:
        known = training(network, images, labels, **how)
        loss = wake_sleep_step(known, inference, torch.arange(4), Generator().manual_seed(1))
        return torch.autograd.grad(loss, network.locator[2].weight)[0]

    by_default, none = locator_gradient(), locator_gradient(entropy_bonus=0.0)
    torch.testing.assert_close(by_default, locator_gradient(entropy_bonus=ENTROPY_BONUS))
    torch.testing.assert_close(none + (locator_gradient(entropy_bonus=1.0) - none) * ENTROPY_BONUS, by_default)
    assert not torch.allclose(by_default, none)


def test_images_do_not_depend_on_their_batch() -> None:
    _, inference = networks(FOUR)
    images, labels = noise(4), torch.tensor([0, 1, 2, 1])
    together = inference.context(images, labels)
    for row in range(4):
        alone = inference.context(images[row : row + 1], labels[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone)


def test_the_network_climbs_its_log_marginal() -> None:
    """All 16 sequences of two glimpses at four cells, from a uniform proposal, through the network itself.

    The location head alone: the label's term, a mean over t, does not enter its gradient.
    """
    network, _ = networks(FOUR)
    with torch.no_grad():  # so that the answer depends on the locations
        network.classifier.weight.mul_(8)
    sequences = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    images, parameters = noise(1).expand(16, -1, -1, -1), list(network.locator.parameters())
    rollout = network(images, glimpses=T, choose=following(sequences, greedy))
    policy = network.locator(previous_states(rollout.states, torch.zeros_like(rollout.states[:, 0]))).softmax(-1)
    marginal = torch.zeros(())
    for row, (a, b) in enumerate(sequences.tolist()):
        marginal = marginal + policy[row, 0, a] * policy[row, 1, b] * rollout.class_logits[row, -1].softmax(-1)[1]
    expected = torch.autograd.grad(-marginal.log(), parameters, retain_graph=True)
    uniform = torch.full((1, 16, T), 0.25).log()
    log_likelihood = rollout.class_logits[:, -1].log_softmax(-1)[None, :, 1]
    weights = wake_sleep_weights(log_likelihood, rollout.log_policy[None], uniform, uniform)
    loss = wake_sleep_loss(rollout.log_policy[None], uniform, weights)
    got = torch.autograd.grad(loss.sum(), parameters)
    assert max(g.abs().max().item() for g in expected) > 0.003
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


NINE, TELLTALE = Grid(image_px=9, glimpse_px=3, stride_px=3), 7
TOP_PX, LEFT_PX = 6, 3


def one_cell_tells(count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Noise, but for one of nine cells, the same in every image: dark, grey or bright by the label."""
    images = torch.randint(0, 256, (count, 1, 9, 9), dtype=torch.uint8, generator=generator)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    images[:, :, TOP_PX : TOP_PX + 3, LEFT_PX : LEFT_PX + 3] = (labels * 120).byte()[:, None, None, None]
    return images, labels


@pytest.mark.slow
def test_policy_and_proposal_learn_the_one_cell_that_tells() -> None:
    """Two cells by chance hit one of nine in 1 - (8/9)² = 0.21 of the images."""
    network, inference = networks(NINE)
    adam = torch.optim.Adam((*network.parameters(), *inference.parameters()), lr=3e-3)
    generator = Generator().manual_seed(0)
    for _ in range(250):
        images, labels = one_cell_tells(32, generator)
        known = training(network, images, labels, wake_sleep_exploration=0.1)
        adam.zero_grad()
        wake_sleep_step(known, inference, torch.arange(32), generator).backward()
        adam.step()
    images, labels = one_cell_tells(200, generator)
    looked = network(images, glimpses=T, choose=greedy)
    assert (looked.cells == TELLTALE).any(1).float().mean() > 0.95
    assert (looked.class_logits[:, -1].argmax(-1) == labels).float().mean() > 0.95
    found = proposed(network, inference, images, torch.arange(200), labels, samples=4)
    assert (found.cells == TELLTALE).any(1).float().mean() > 0.8
