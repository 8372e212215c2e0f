"""Multiply-adds, against counts by hand: the paper's network, and one layer of each kind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nogs.attention import HardAttention
from nogs.cost import count_macs, macs_by_glimpse
from nogs.glimpses import Grid


@pytest.mark.parametrize(("image_px", "stride_px"), [(212, 4), (65, 1)])
def test_the_papers_network(image_px: int, stride_px: int) -> None:
    """CelebA-HQ: 16 px glimpses on 50 x 50 locations, RGB, 64 hidden units, 2 classes.

    No whole stride gives 50 a side on 224 px, and the cost knows of no image: any that holds the grid will do.
    """
    grid = Grid(image_px=image_px, glimpse_px=16, stride_px=stride_px)
    assert len(grid) == 2500
    by_hand = {
        "conv 3 → 16 on 16 x 16": 16 * 16 * 16 * (3 * 3 * 3),
        "conv 16 → 32 on 8 x 8": 8 * 8 * 32 * (16 * 3 * 3),
        "FC 4 x 4 x 32 → 128": 512 * 128,
        "FC 128 → 64": 128 * 64,
        "location 2 → 32 → 64": 2 * 32 + 32 * 64,
        "GRU, three gates of 64 + 64 → 64": 3 * (64 + 64) * 64,
        "where next 64 → 32 → 2500": 64 * 32 + 32 * 2500,
    }
    a_glimpse, answer = sum(by_hand.values()), 64 * 2
    assert (a_glimpse, answer) == (587_968, 128)
    network = HardAttention(grid, channels=3, classes=2, hidden=64)
    assert macs_by_glimpse(network, channels=3, glimpses=5) == [t * 587_968 + 128 for t in range(1, 6)]


def test_one_layer_of_each_kind() -> None:
    linear, conv, cell = nn.Linear(5, 7), nn.Conv2d(4, 6, 3, stride=2, groups=2), nn.GRUCell(3, 2)
    assert count_macs(linear, lambda: linear(torch.zeros(2, 11, 5))) == 2 * 11 * 5 * 7
    # 9 px → 4 px, and each of the 6 outputs reads the 2 channels of its group.
    assert count_macs(conv, lambda: conv(torch.zeros(2, 4, 9, 9))) == 2 * 4 * 4 * 6 * (2 * 3 * 3)
    # 3 gates, each a product with the input (3) and one with the state (2), for 2 units.
    assert count_macs(cell, lambda: cell(torch.zeros(4, 3))) == 4 * 3 * (3 + 2) * 2


def test_layers_count_as_often_as_they_run() -> None:
    shared = nn.Linear(4, 4)
    network = nn.Sequential(shared, nn.ReLU(), shared, nn.BatchNorm1d(4))
    assert count_macs(network.eval(), lambda: [network(torch.zeros(1, 4)) for _ in range(3)]) == 3 * 2 * 16


def test_counting_leaves_no_trace() -> None:
    network = nn.Sequential(nn.Linear(2, 2))

    def fail() -> None:
        network(torch.zeros(1, 2))
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        count_macs(network, fail)
    assert not network[0]._forward_hooks
    assert count_macs(network, lambda: network(torch.zeros(1, 2))) == 4
