"""Multiply-adds, against counts by hand: the paper's network, the posterior's lookahead, one layer of each kind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nogs.attention.network import HardAttention
from nogs.evaluation.cost import ITSELF, breakdown, count_macs, macs_by_glimpse, parts_of_glimpse
from nogs.glimpses.fovea import Glimpses, nothing_seen
from nogs.glimpses.grid import Grid
from nogs.posterior.lookahead import LookaheadPosterior
from nogs.posterior.protocol import every_candidate
from nogs.stopping.heads import StoppingHeads

PAPER = {
    "locator": 64 * 32 + 32 * 2500,
    "embedding": sum(
        {
            "conv 3 → 16 on 16 x 16": 16 * 16 * 16 * (3 * 3 * 3),
            "conv 16 → 32 on 8 x 8": 8 * 8 * 32 * (16 * 3 * 3),
            "FC 4 x 4 x 32 → 128": 512 * 128,
            "FC 128 → 64": 128 * 64,
            "location 2 → 32 → 64": 2 * 32 + 32 * 64,
        }.values()
    ),
    "core": 3 * (64 + 64) * 64,
}
"""CelebA-HQ: 16 px glimpses on 50 x 50 locations, RGB, 64 hidden units, 2 classes."""


@pytest.mark.parametrize(("image_px", "stride_px"), [(212, 4), (65, 1)])
def test_the_papers_network(image_px: int, stride_px: int) -> None:
    """No whole stride gives 50 a side on 224 px, and the cost knows of no image: any that holds the grid will do."""
    grid = Grid(image_px=image_px, glimpse_px=16, stride_px=stride_px)
    assert len(grid) == 2500
    a_glimpse, answer = sum(PAPER.values()), 64 * 2
    assert (a_glimpse, answer) == (587_968, 128)
    network = HardAttention(grid, channels=3, classes=2, hidden=64)
    assert macs_by_glimpse(network, channels=3, glimpses=5) == [t * 587_968 + 128 for t in range(1, 6)]
    assert parts_of_glimpse(network, channels=3) == {"fovea": 0, **PAPER, "classifier": answer}


def test_a_control_is_not_charged_the_location_head() -> None:
    """No policy, no head that chooses: the step is the embedding and the core."""
    grid = Grid(image_px=212, glimpse_px=16, stride_px=4)
    network = HardAttention(grid, channels=3, classes=2, hidden=64)
    step = PAPER["embedding"] + PAPER["core"]
    assert macs_by_glimpse(network, channels=3, glimpses=3, policy=False) == [t * step + 128 for t in (1, 2, 3)]
    for depth in (1, 2):
        parts = parts_of_glimpse(network, channels=3, depth=depth, policy=False)
        assert sum(parts.values()) == step + 128
        assert not [part for part in parts if part.startswith(("locator", "baseline"))]


def test_parts_in_more_depth() -> None:
    network = HardAttention(Grid(image_px=16, glimpse_px=8, stride_px=4), channels=1, classes=3, hidden=64)
    assert parts_of_glimpse(network, channels=1, depth=2) == {
        "fovea": 0,
        "embedding.what": 8 * 8 * 16 * 9 + 4 * 4 * 32 * (16 * 9) + 2 * 2 * 32 * 128 + 128 * 64,
        "embedding.where": 2 * 32 + 32 * 64,
        "core": 3 * (64 + 64) * 64,
        "classifier": 64 * 3,
        "locator.0": 64 * 32,
        "locator.2": 32 * 9,
    }


def test_an_overview_is_counted_once_however_many_glimpses_follow() -> None:
    """By hand: two networks and a step of the core once, then the location head of each glimpse."""
    network = HardAttention(Grid(24, 8, 4), channels=1, classes=3, hidden=64, overview_px=8)
    once = 8 * 8 * 16 * 9 + 2 * 8 * 8 * 16 * 16 * 9 + 8 * 8 * 16 * 2 * 9  # features of the location head, and of places
    once += 8 * 8 * 16 * 9 + 4 * 4 * 32 * (16 * 9) + 2 * 2 * 32 * 128 + 128 * 64  # embedding
    once += 3 * (64 + 64) * 64
    head = 8 * 8 * 16 * 9 + 64 * 16 + 8 * 8 * 16
    parts = parts_of_glimpse(network, channels=1)
    assert parts["locator"] == head
    assert "overview" not in parts
    answer = parts.pop("classifier")
    step = sum(parts.values())
    assert macs_by_glimpse(network, channels=1, glimpses=3) == [once + t * step + answer for t in (1, 2, 3)]


def test_a_stopping_head_counts_what_it_says() -> None:
    """A perceptron on three figures apart for each t, an output for each further glimpse: two products."""
    heads = StoppingHeads(glimpses=3, costs=2)
    counted = count_macs(heads, lambda: heads.entropy_gain(heads.features(torch.zeros(1, 4), torch.tensor(2))))
    assert counted == heads.macs == 3 * 3 * 32 + 32 * 2


def test_coarse_scales_cost_a_wider_first_layer() -> None:
    """Averaging and gathering multiply nothing; the first convolution reads k times the channels."""
    fine, coarse = (
        macs_by_glimpse(
            HardAttention(Grid(24, 8, 8, scales=k), channels=3, classes=2, hidden=64), channels=3, glimpses=1
        )[0]
        for k in (1, 3)
    )
    assert coarse - fine == 8 * 8 * 16 * (2 * 3 * 9)


def test_lookahead_shares_the_recurrent_product() -> None:
    """P completions of one image, which was looked at once, over L = 9 locations of 6 x 6 grey pixels."""
    P, L, hidden = 2, 9, 128
    grid = Grid(image_px=16, glimpse_px=6, stride_px=5)
    posterior = LookaheadPosterior(grid, channels=1, classes=3, multilabel=False, hidden=hidden)
    what, where, answer = 36 * 256 + 256 * 64, 2 * 32 + 32 * 64, hidden * 64 + 64 * 3
    arriving, recalled = 3 * 64 * hidden, 3 * hidden * hidden
    images = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    seen = Glimpses(torch.zeros(1, 1, 1, 6, 6, dtype=torch.uint8), torch.zeros(1, 1, dtype=torch.long))
    completions, owners = images.expand(P, -1, -1, -1), torch.zeros(P, dtype=torch.long)

    def ahead() -> None:
        posterior.lookahead(seen, every_candidate(completions, owners, locations=L))

    by_hand = {
        # Beside its cell, in its own code: the state's product once, what arrives at every candidate.
        ITSELF: recalled + P * L * arriving,
        # ψ once for the glimpse that was taken, and once for the whole grid.
        "embedding": (1 + P * L) * what + (1 + L) * where,
        "core": arriving + recalled,
        "classifier": P * L * answer,
    }
    assert breakdown(posterior, ahead) == by_hand
    assert count_macs(posterior, ahead) == sum(by_hand.values())
    nothing = nothing_seen(images, grid)
    candidates = every_candidate(images, owners[:1], locations=L)
    assert breakdown(posterior, lambda: posterior.lookahead(nothing, candidates))[ITSELF] == (recalled + L * arriving)


def test_one_layer_of_each_kind() -> None:
    linear, conv, cell = nn.Linear(5, 7), nn.Conv2d(4, 6, 3, stride=2, groups=2), nn.GRUCell(3, 2)
    assert count_macs(linear, lambda: linear(torch.zeros(2, 11, 5))) == 2 * 11 * 5 * 7
    # 9 px → 4 px, and each of the 6 outputs reads the 2 channels of its group.
    assert count_macs(conv, lambda: conv(torch.zeros(2, 4, 9, 9))) == 2 * 4 * 4 * 6 * (2 * 3 * 3)
    depthwise = nn.Conv2d(4, 4, 3, groups=4)
    assert count_macs(depthwise, lambda: depthwise(torch.zeros(2, 4, 9, 9))) == 2 * 7 * 7 * 4 * (3 * 3)
    # 3 gates, each a product with the input (3) and one with the state (2), for 2 units.
    assert count_macs(cell, lambda: cell(torch.zeros(4, 3))) == 4 * 3 * (3 + 2) * 2


def test_layers_count_as_often_as_they_run() -> None:
    shared = nn.Linear(4, 4)
    network = nn.Sequential(shared, nn.ReLU(), shared, nn.BatchNorm1d(4)).eval()

    def thrice() -> None:
        for _ in range(3):
            network(torch.zeros(1, 4))

    assert count_macs(network, thrice) == 3 * 2 * 16
    assert breakdown(network, thrice) == {"0": 3 * 2 * 16}


def test_a_list_of_modules_is_not_lost() -> None:
    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))

        def forward(self) -> torch.Tensor:
            return self.layers[1](self.layers[0](torch.zeros(1, 2))) @ torch.zeros(2, 3)

    stack = Stack()
    assert breakdown(stack, stack) == {ITSELF: 6, "layers": 8}
    assert breakdown(stack, stack, depth=2) == {ITSELF: 6, "layers.0": 4, "layers.1": 4}


def test_counting_leaves_no_trace() -> None:
    network = nn.Sequential(nn.Linear(2, 2))

    def fail() -> None:
        network(torch.zeros(1, 2))
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        count_macs(network, fail)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert count_macs(network, lambda: network(torch.zeros(1, 2))) == 4
