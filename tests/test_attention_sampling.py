"""Attention sampling against a world small enough to enumerate, and what every network must hold."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from nogs.evaluation.cost import breakdown
from nogs.glimpses.grid import Grid
from nogs.rivals.attention_sampling import AttentionSampling, weights, with_replacement, without_replacement
from nogs.training.adam import Adam

PLACES = 4
GRID = Grid(40, 13, 13)


def network(*, replacement: bool = False, patches: int = 3, entropy_weight: float = 1e-4) -> AttentionSampling:
    torch.manual_seed(0)
    return AttentionSampling(
        GRID,
        overview_px=8,
        patches=patches,
        replacement=replacement,
        entropy_weight=entropy_weight,
        channels=1,
        classes=3,
    )


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (count, 1, 40, 40), generator=Generator().manual_seed(seed), dtype=torch.uint8)


def world() -> tuple[Tensor, Tensor, Tensor]:
    """Logits of an attention over four places, their two features, and the direction that features are judged by."""
    generator = Generator().manual_seed(3)
    logits = torch.randn(PLACES, generator=generator, dtype=torch.double, requires_grad=True)
    features = torch.randn(PLACES, 2, generator=generator, dtype=torch.double, requires_grad=True)
    return logits, features, torch.tensor([1.0, -0.7], dtype=torch.double)


@pytest.mark.parametrize("patches", [1, 2, 3])
@pytest.mark.parametrize("replacement", [True, False])
def test_estimate_and_gradient_are_unbiased(replacement: bool, patches: int) -> None:
    """The sum over all ordered samples of probability times estimate, and times gradient, is the exact one."""
    logits, features, direction = world()
    exact = (logits.softmax(0) @ features.sin()) @ direction
    gradients = torch.autograd.grad(exact, (logits, features))
    expected, found = torch.zeros((), dtype=torch.double), [torch.zeros_like(part) for part in gradients]
    samples = product(range(PLACES), repeat=patches) if replacement else permutations(range(PLACES), patches)
    for sample in samples:
        attention = logits.softmax(0)
        probability, left = 1.0, 1.0
        for place in sample:
            probability *= attention[place].item() / left
            left -= 0.0 if replacement else attention[place].item()
        weight = weights(attention[list(sample)][None], replacement=replacement)[0]
        estimate = (weight @ features[list(sample)].sin()) @ direction
        expected = expected + probability * estimate.detach()
        for part, gradient in zip(found, torch.autograd.grad(estimate, (logits, features)), strict=True):
            part += probability * gradient
    torch.testing.assert_close(expected, exact.detach())
    for part, gradient in zip(found, gradients, strict=True):
        torch.testing.assert_close(part, gradient)


@pytest.mark.parametrize("replacement", [True, False])
def test_draws_have_the_probabilities_of_the_attention(replacement: bool) -> None:
    """All ordered pairs: chi-square of 20,000 draws, with a false alarm in ten thousand."""
    from scipy.stats import chi2

    n, attention = 20_000, torch.tensor([0.5, 0.3, 0.15, 0.05])
    generator = Generator().manual_seed(0)
    each = attention.expand(n, PLACES)
    if replacement:
        pairs = with_replacement(each, torch.rand(n, 2, generator=generator), 2)
        expected = {(i, j): attention[i] * attention[j] for i, j in product(range(PLACES), repeat=2)}
    else:
        gumbel = -torch.empty(n, PLACES).exponential_(generator=generator).log()
        pairs = without_replacement(each, gumbel, 2)
        expected = {(i, j): attention[i] * attention[j] / (1 - attention[i]) for i, j in permutations(range(PLACES), 2)}
    counts = torch.bincount(pairs[:, 0] * PLACES + pairs[:, 1], minlength=PLACES**2).double()
    of_pair = torch.zeros(PLACES**2, dtype=torch.double)
    for (i, j), probability in expected.items():
        of_pair[i * PLACES + j] = n * float(probability)
    possible = of_pair > 0
    assert counts[~possible].sum() == 0
    distance = ((counts - of_pair)[possible] ** 2 / of_pair[possible]).sum()
    assert distance < chi2.ppf(1 - 1e-4, len(expected) - 1)


def test_shared_random_numbers_are_a_draw_of_each_image() -> None:
    attention = torch.tensor([[0.1, 0.9, 0.0], [0.0, 0.2, 0.8]])
    assert with_replacement(attention, torch.tensor([[0.05, 0.5]]), 2).tolist() == [[0, 1], [1, 2]]
    assert without_replacement(attention, torch.zeros(1, 3), 2).tolist() == [[1, 0], [2, 1]]


def test_a_patch_lies_around_its_pixel_of_the_overview() -> None:
    """8 pixels on 40: centres at 2.5, 7.5 ... 37.5; patches of 13 begin 6.5 before them, and stay inside."""
    first = GRID.around(torch.tensor([[0, 10, 63]]), overview_px=8)
    assert first.tolist() == [[[0, 0], [1, 6], [27, 27]]]  # pixel 10 is in row 1 and column 2
    bright = torch.zeros(1, 1, 40, 40, dtype=torch.uint8)
    bright[0, 0, 22, 12] = 255  # in pixel (4, 2) of the overview
    row, column = GRID.around(torch.tensor([4 * 8 + 2]), overview_px=8)[0].tolist()
    assert bright[0, 0, row : row + 13, column : column + 13].any()


@pytest.mark.parametrize("replacement", [True, False])
def test_an_answer_depends_on_its_image_alone_and_repeats(replacement: bool) -> None:
    some, net = images(6), network(replacement=replacement).eval()
    with torch.no_grad():
        together = net(some)
        torch.testing.assert_close(net(some[2:3]), together[2:3], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(net(some, torch.tensor([4, 0])), together[[4, 0]], rtol=1e-4, atol=1e-5)
        assert torch.equal(net(some), together)
    assert together.shape == (6, 3)


@pytest.mark.parametrize("replacement", [True, False])
def test_the_loss_reaches_every_parameter_and_follows_its_generator(replacement: bool) -> None:
    some, labels, rows = images(4), torch.tensor([0, 1, 2, 1]), torch.arange(4)
    net = network(replacement=replacement)
    losses = [net.loss(some, rows, labels, Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    losses[0].backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_the_entropy_of_the_attention_is_rewarded() -> None:
    some, labels, rows = images(4), torch.tensor([0, 1, 2, 1]), torch.arange(4)
    nets = {weight: network(entropy_weight=weight) for weight in (0.0, 0.5)}
    losses = {w: net.loss(some, rows, labels, Generator().manual_seed(0)).item() for w, net in nets.items()}
    attention = nets[0.0].sample(some, rows, nets[0.0].noise).attention
    torch.testing.assert_close(attention.sum(1), torch.ones(4))
    entropy = -(attention * attention.log()).sum(1).mean().item()
    assert losses[0.0] - losses[0.5] == pytest.approx(0.5 * entropy, rel=1e-4)


def test_pixels_are_counted_once() -> None:
    net, some = network(patches=5).eval(), images(3)
    cells = net.sample(some, torch.arange(3), net.noise).cells
    for image in range(3):
        read = torch.zeros(40, 40)
        for row, column in net.grid.around(cells[image], overview_px=8).tolist():
            read[row : row + 13, column : column + 13] = 1
        share = read.mean().item() + 8**2 / 40**2  # with the overview
        assert net.pixels_read(some, torch.tensor([image])).item() == pytest.approx(share)


def test_multiply_adds_by_hand() -> None:
    """The overview once: 8 x 8 pixels by 3 x 3 kernels; and 3 patches of 13 pixels, which become 7, 5, 3 and 1."""
    net = network().eval()
    parts = breakdown(net, lambda: net(images(1)))
    assert parts == {
        "attention": 64 * 9 * (8 + 8 * 8 + 8),
        "features": 3 * 32 * (49 * 49 + 9 * 32 * (25 + 9 + 1)),
        "classifier": 32 * 3,
    }


@pytest.mark.parametrize("replacement", [True, False])
def test_it_overfits_eight_images(replacement: bool) -> None:
    """A bright square in one of many places, of one of three textures: found on the overview, told apart in patches."""
    textures = [torch.ones(12, 12), torch.zeros(12, 12), torch.zeros(12, 12)]
    textures[1][::2], textures[2][:, ::2] = 2, 2
    some, labels = torch.zeros(8, 1, 40, 40), torch.arange(8) % 3
    for image, label, place in zip(some, labels, torch.randperm(9, generator=Generator().manual_seed(0)), strict=False):
        row, column = 9 * (place // 3), 9 * (place % 3)
        image[0, row : row + 12, column : column + 12] = 127 * textures[label]
    pixels, net = some.to(torch.uint8), network(replacement=replacement, patches=6)
    adam = Adam(net.parameters(), learning_rate=5e-3)
    for step in range(150):
        adam.zero_grad()
        loss: Any = net.loss(pixels, torch.arange(8), labels, Generator().manual_seed(step))
        loss.backward()
        adam.step()
    assert F.cross_entropy(net(pixels), labels) < 0.2
