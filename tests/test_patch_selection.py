"""Iterative patch selection against a search over all patches at once, and what every network must hold."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

import nogs.rivals.patch_selection as module
from nogs.evaluation.cost import breakdown
from nogs.glimpses.grid import Grid
from nogs.rivals.patch_selection import WIDTH, CrossAttention, PatchSelection, sinusoids
from nogs.training.adam import Adam

GRID = Grid(40, 8, 8)
"""25 patches."""


def network(*, memory: int = 6, heads: int = 1) -> PatchSelection:
    torch.manual_seed(0)
    return PatchSelection(GRID, memory=memory, channels=1, classes=3, heads=heads)


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (count, 1, 40, 40), generator=Generator().manual_seed(seed), dtype=torch.uint8)


def every() -> Tensor:
    return torch.arange(len(GRID))


@pytest.mark.parametrize(("heads", "chunk"), [(1, 1), (1, 4), (1, 7), (1, 25), (8, 25)])
@pytest.mark.parametrize("memory", [1, 6, 24, 25, 30])
def test_the_memory_is_the_most_salient_of_all_patches(
    memory: int, heads: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one head for every size of chunk; with several, whose mean depends on the set, if one chunk holds all."""
    monkeypatch.setattr(module, "CHUNK", chunk)
    net, some, rows = network(memory=memory, heads=heads).eval(), images(4), torch.tensor([2, 0])
    kept = net.select(some, rows, every())
    assert not kept.embeddings.requires_grad
    for image, cells, embeddings in zip(rows, *kept, strict=True):
        patches = some[image].unfold(1, 8, 8).unfold(2, 8, 8).reshape(25, 1, 8, 8)
        with torch.no_grad():
            embedded = net.encoder(patches.float() / 127.5 - 1) + net.positions
            scores = net.pooling.attention(embedded[None])[0].mean(0)
        best = scores.topk(min(memory, 25)).indices
        assert set(cells.tolist()) == set(best.tolist())
        torch.testing.assert_close(embeddings, embedded[cells], rtol=1e-4, atol=1e-5)


def test_the_order_of_reading_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 4)
    net, some, rows = network().eval(), images(3), torch.arange(3)
    ordered = net.select(some, rows, every()).cells
    shuffled = net.select(some, rows, torch.randperm(25, generator=Generator().manual_seed(1))).cells
    assert torch.equal(ordered.sort().values, shuffled.sort().values)


def test_selection_leaves_the_network_as_it_was() -> None:
    """It runs in eval mode: the statistics of batch normalisation stay, and training mode comes back."""
    net = network().train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.select(images(2), torch.arange(2), every())
    assert all(part.training for part in net.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("heads", [1, 8])
def test_cross_attention_is_that_of_torch(heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OF_HEAD", WIDTH // heads)
    torch.manual_seed(0)
    ours, theirs = CrossAttention(heads), nn.MultiheadAttention(WIDTH, heads, bias=False, batch_first=True)
    embeddings = torch.randn(3, 5, WIDTH)
    with torch.no_grad():
        parts = (ours.to_query, ours.to_key, ours.to_value)
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.out_proj.weight.copy_(ours.mix.weight)
        query = ours.query.expand(3, 1, -1)
        pooled, attention = theirs(query, embeddings, embeddings, average_attn_weights=False)
        torch.testing.assert_close(ours.attention(embeddings), attention[:, :, 0])
        mixed = F.layer_norm(pooled[:, 0] + ours.query, (WIDTH,), eps=1e-6)
        expected = F.layer_norm(ours.perceptron(mixed) + mixed, (WIDTH,), eps=1e-6)
        torch.testing.assert_close(ours(embeddings), expected)


def test_positions_are_sines_and_cosines() -> None:
    encoded = sinusoids(7)
    for place, feature in ((0, 0), (0, 1), (3, 10), (6, 127)):
        angle = place / 10_000 ** (2 * (feature // 2) / WIDTH)
        assert encoded[place, feature] == pytest.approx((math.cos if feature % 2 else math.sin)(angle), abs=1e-5)


def test_dropout_keeps_nine_tenths_and_the_mean() -> None:
    kept = module._dropped(torch.ones(100_000), Generator().manual_seed(0))
    assert kept.unique().tolist() == [0.0, pytest.approx(1 / 0.9)]
    assert kept.mean().item() == pytest.approx(1, abs=4 * math.sqrt(0.1 / 0.9 / 100_000))  # 1 in 16,000 by chance


def test_an_answer_depends_on_its_image_alone_and_repeats() -> None:
    some, net = images(6), network(heads=8).eval()
    with torch.no_grad():
        together = net(some)
        torch.testing.assert_close(net(some[2:3]), together[2:3], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(net(some, torch.tensor([4, 0])), together[[4, 0]], rtol=1e-4, atol=1e-5)
        assert torch.equal(net(some), together)
    assert together.shape == (6, 3)


def test_the_loss_reaches_every_parameter_and_follows_its_generator() -> None:
    some, labels, rows = images(4), torch.tensor([0, 1, 2, 1]), torch.arange(4)
    nets = [network(heads=8) for _ in range(3)]  # each step changes the statistics of batch normalisation
    losses = [
        net.loss(some, rows, labels, Generator().manual_seed(seed)) for net, seed in zip(nets, (0, 0, 1), strict=True)
    ]
    assert losses[0] == losses[1] != losses[2]
    losses[0].backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in nets[0].parameters())


def test_every_patch_is_read_and_counted() -> None:
    """Two sizes of image with the same memory: the encoder's multiply-adds are those of all patches."""
    counts = {}
    for side in (2, 4):
        net = PatchSelection(Grid(8 * side, 8, 8), memory=3, channels=1, classes=3).eval()
        image = torch.zeros(1, 1, 8 * side, 8 * side, dtype=torch.uint8)
        counts[side] = breakdown(net, lambda net=net, image=image: net(image))
        assert net.pixels_read(image, torch.tensor([0])).tolist() == [1.0]
    assert counts[4]["encoder"] == 4 * counts[2]["encoder"]
    # ResNet-18 on 8 pixels: 7 x 7 on 4 x 4, then 2 x 2 for the first stage, and 1 x 1 for the second.
    stage, second = 4 * (9 * 64 * 64 * 4), 9 * 64 * 128 + 3 * 9 * 128 * 128 + 64 * 128
    assert counts[2]["encoder"] == 4 * (49 * 64 * 16 + stage + second)


def test_it_overfits_eight_images() -> None:
    some, labels, net = images(8), torch.arange(8) % 3, network(heads=8)
    adam = Adam(net.parameters(), learning_rate=1e-3)
    for step in range(30):
        adam.zero_grad()
        loss = net.train().loss(some, torch.arange(8), labels, Generator().manual_seed(step))
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    assert F.cross_entropy(net.eval()(some), labels) < 0.2
