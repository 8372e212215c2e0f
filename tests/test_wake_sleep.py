"""The inference network: what it draws, what it says of it, and whom its losses teach."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from given import following
from nogs.attention.choosers import greedy
from nogs.attention.network import HardAttention, previous_states
from nogs.attention.objectives import wake_sleep_loss
from nogs.attention.wake_sleep import InferenceNetwork, Proposed, propose
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
    network: HardAttention, inference: InferenceNetwork, images: Tensor, rows: Tensor, labels: Tensor, samples: int
) -> Proposed:
    return propose(
        network,
        inference,
        images,
        rows,
        labels,
        glimpses=T,
        samples=samples,
        generator=Generator().manual_seed(1),
    )


@pytest.mark.parametrize(("channels", "side_px"), [(1, 6), (3, 40)])
def test_a_proposal_is_the_network_run_along_its_cells(channels: int, side_px: int) -> None:
    """Row by row with a plain loop, from what the network itself remembers when it is led along the same cells."""
    network, inference = networks(Grid(side_px, 3, 3), channels)
    images, rows, labels = noise(5, channels, side_px), torch.tensor([4, 1]), torch.tensor([2, 0])
    found = proposed(network, inference, images, rows, labels, samples=3)
    assert found.rollout.cells.shape == found.log_proposal.shape == (6, T)
    for row in range(6):
        image = rows[row // 3]
        alone = images[image : image + 1]
        cells = found.rollout.cells[row : row + 1]
        led = network(alone, glimpses=T, choose=following(cells, greedy))
        for one, other in zip(found.rollout, led, strict=True):
            torch.testing.assert_close(one[row : row + 1], other)
        h = torch.zeros(1, HIDDEN)
        for t in range(T):
            r = inference(inference.context(alone, labels[row // 3][None]), h).softmax(-1)[0]
            torch.testing.assert_close(found.log_proposal[row, t].exp(), r[cells[0, t]])
            h = led.states[:, t]


def test_cells_are_drawn_from_the_inference_network_and_not_from_the_policy() -> None:
    """Two images that differ, and one of them under two labels. 20,000 draws each: a share is off by 0.022 once
    10^9 (six standard deviations)."""
    network, inference = networks(FOUR)
    images, labels, n = noise(2), torch.tensor([0, 1, 0]), 20_000
    found = proposed(network, inference, images, torch.tensor([0, 0, 1]), labels, samples=n)
    shares = [torch.bincount(cells, minlength=4) / n for cells in found.rollout.cells[:, 0].split(n)]
    context = inference.context(images[torch.tensor([0, 0, 1])], labels)
    r = inference(context, torch.zeros(3, HIDDEN)).softmax(-1)
    assert (r[0] - r[1]).abs().max() > 0.05
    assert (r[0] - r[2]).abs().max() > 0.05
    for share, likely in zip(shares, r, strict=True):
        torch.testing.assert_close(share, likely.detach(), rtol=0, atol=0.022)
    policy = network.locator(previous_states(found.rollout.states))[0, 0].softmax(-1)
    assert (shares[0] - policy).abs().max() > 0.05


def gradients(network: torch.nn.Module, loss: Tensor) -> dict[str, Tensor | None]:
    names, parameters = zip(*network.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return dict(zip(names, found, strict=True))


def test_the_proposal_teaches_the_inference_network_alone_and_the_loss_reaches_all() -> None:
    network, inference = networks(FOUR)
    labels = torch.tensor([0, 1, 2, 1])
    found = proposed(network, inference, noise(4), torch.arange(4), labels, samples=3)
    assert all(gradient is None for gradient in gradients(network, found.log_proposal.sum()).values())
    loss = wake_sleep_loss(found.rollout, labels.repeat_interleave(3), found.log_proposal, samples=3).mean()
    for name, gradient in {**gradients(network, loss), **gradients(inference, loss)}.items():
        if name.startswith("baseline"):
            assert gradient is None  # importance weights need none
        else:
            assert gradient is not None, name
            assert gradient.abs().sum() > 0, name


def test_images_do_not_depend_on_their_batch() -> None:
    _, inference = networks(FOUR)
    images, labels = noise(4), torch.tensor([0, 1, 2, 1])
    together = inference.context(images, labels)
    for row in range(4):
        alone = inference.context(images[row : row + 1], labels[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone)


def test_the_network_climbs_its_log_marginal() -> None:
    """All 16 sequences of two glimpses at four cells, from a uniform proposal, through the network itself.

    The location head alone: its gradient does not hear of the mean over t that the label's term is.
    """
    network, _ = networks(FOUR)
    with torch.no_grad():  # what is said must depend on where one looked
        network.classifier.weight.mul_(8)
    sequences = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    images, parameters = noise(1).expand(16, -1, -1, -1), list(network.locator.parameters())
    rollout = network(images, glimpses=T, choose=following(sequences, greedy))
    policy = network.locator(previous_states(rollout.states)).softmax(-1)
    marginal = torch.zeros(())
    for row, (a, b) in enumerate(sequences.tolist()):
        marginal = marginal + policy[row, 0, a] * policy[row, 1, b] * rollout.class_logits[row, -1].softmax(-1)[1]
    expected = torch.autograd.grad(-marginal.log(), parameters, retain_graph=True)
    uniform = torch.full((16, T), 0.25).log()
    loss = wake_sleep_loss(rollout, torch.ones(16, dtype=torch.long), uniform, samples=16)
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


def test_policy_and_proposal_learn_the_one_cell_that_tells() -> None:
    """Two cells by chance hit one of nine in 1 - (8/9)² = 0.21 of the images."""
    network, inference = networks(NINE)
    adam = torch.optim.Adam((*network.parameters(), *inference.parameters()), lr=3e-3)
    generator = Generator().manual_seed(0)
    for _ in range(250):
        images, labels = one_cell_tells(32, generator)
        found = propose(
            network,
            inference,
            images,
            torch.arange(32),
            labels,
            glimpses=T,
            samples=4,
            generator=generator,
        )
        adam.zero_grad()
        wake_sleep_loss(found.rollout, labels.repeat_interleave(4), found.log_proposal, samples=4).mean().backward()
        adam.step()
    images, labels = one_cell_tells(200, generator)
    looked = network(images, glimpses=T, choose=greedy)
    assert (looked.cells == TELLTALE).any(1).float().mean() > 0.95
    assert (looked.class_logits[:, -1].argmax(-1) == labels).float().mean() > 0.95
    assert (found.rollout.cells == TELLTALE).any(1).float().mean() > 0.8
