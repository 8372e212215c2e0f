"""Attention-based multiple-instance learning against its equations, and what every network must hold."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

import nogs.rivals.multiple_instances as module
from nogs.evaluation.cost import breakdown
from nogs.glimpses.grid import Grid
from nogs.rivals.multiple_instances import MultipleInstances
from nogs.training.adam import Adam

GRID = Grid(40, 8, 8)
"""25 patches."""


def network() -> MultipleInstances:
    torch.manual_seed(0)
    return MultipleInstances(GRID, channels=1, classes=3)


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (count, 1, 40, 40), generator=Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.mark.parametrize("chunk", [1, 7, 25, 100])
def test_the_logits_follow_the_equations(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patch by patch, cut out by unfolding, with sums in loops."""
    monkeypatch.setattr(module, "CHUNK", chunk)
    net, some, rows = network(), images(3), torch.tensor([2, 0])
    for logits, row in zip(net(some, rows), rows.tolist(), strict=True):
        patches = some[row].unfold(1, 8, 8).unfold(2, 8, 8).reshape(25, 1, 8, 8).float() / 127.5 - 1
        h = [net.encoder(patch[None])[0].relu() for patch in patches]
        scores = [
            sum(
                w * torch.tanh(v) * torch.sigmoid(u)
                for w, v, u in zip(net.score.weight[0], net.content(of), net.gate(of), strict=True)
            )
            for of in h
        ]
        total = sum(score.exp() for score in scores)
        z = sum(score.exp() / total * of for score, of in zip(scores, h, strict=True))
        torch.testing.assert_close(logits, net.classifier(z), rtol=1e-4, atol=1e-5)


def test_the_order_of_patches_says_nothing() -> None:
    """Patches of an image in another order: the same logits."""
    some = images(1)
    order = torch.randperm(25, generator=Generator().manual_seed(1))
    patches = some[0].unfold(1, 8, 8).unfold(2, 8, 8).reshape(25, 8, 8)[order].view(5, 5, 8, 8)
    shuffled = patches.permute(0, 2, 1, 3).reshape(1, 1, 40, 40)
    assert not torch.equal(some, shuffled)
    torch.testing.assert_close(network()(shuffled), network()(some), rtol=1e-4, atol=1e-5)


def test_chunks_change_neither_loss_nor_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    some, rows, labels = images(4), torch.arange(4), torch.tensor([0, 1, 2, 1])
    gradients = []
    for chunk in (100, 4):
        monkeypatch.setattr(module, "CHUNK", chunk)
        net = network()
        net.loss(some, rows, labels, Generator()).backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
        gradients.append([p.grad for p in net.parameters()])
    for whole, in_parts in zip(*gradients, strict=True):
        torch.testing.assert_close(in_parts, whole, rtol=1e-3, atol=1e-6)


def test_an_answer_depends_on_its_image_alone() -> None:
    some, net = images(6), network().eval()
    with torch.no_grad():
        together = net(some)
        torch.testing.assert_close(net(some[2:3]), together[2:3], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(net(some, torch.tensor([4, 0])), together[[4, 0]], rtol=1e-4, atol=1e-5)
    assert together.shape == (6, 3)


def test_every_patch_is_read_and_counted() -> None:
    counts = {}
    for side in (2, 4):
        net = MultipleInstances(Grid(8 * side, 8, 8), channels=1, classes=3).eval()
        image = torch.zeros(1, 1, 8 * side, 8 * side, dtype=torch.uint8)
        counts[side] = breakdown(net, lambda net=net, image=image: net(image))
        assert net.pixels_read(image, torch.tensor([0])).tolist() == [1.0]
    assert counts[4]["encoder"] == 4 * counts[2]["encoder"]
    assert counts[2]["content"] == counts[2]["gate"] == 4 * 64 * 64


def test_it_overfits_eight_images() -> None:
    some, labels, net = images(8), torch.arange(8) % 3, network()
    adam = Adam(net.parameters(), learning_rate=3e-3)
    for _ in range(60):
        adam.zero_grad()
        net.loss(some, torch.arange(8), labels, Generator()).backward()  # type: ignore[no-untyped-call]
        adam.step()
    assert F.cross_entropy(net(some), labels) < 0.2
