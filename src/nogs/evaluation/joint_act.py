"""Networks trained jointly with ACT, as one stopping rule: each training has one cost and is a point of the curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from nogs.attention.choosers import greedy
from nogs.attention.classify import look_at_all
from nogs.attention.network import HardAttention
from nogs.data.pixels import Pixels
from nogs.evaluation.cost import macs_by_glimpse
from nogs.stopping.curves import Stops
from nogs.stopping.halting import HaltingUnit


class JointNetwork(NamedTuple):
    """A network, its halting unit, and the cost of a glimpse in nats that they were trained with."""

    cost: float
    network: HardAttention
    unit: HaltingUnit


class JointRule(NamedTuple):
    """Where each network stops each test image, and the multiply-adds of an image after t = 1..T glimpses."""

    stops: Stops
    macs: list[int]


def joint_act(
    networks: Sequence[JointNetwork],
    pixels: Pixels,
    images: Int[Tensor, " n"],
    labels: Int[Tensor, " n"],
    *,
    glimpses: int,
) -> JointRule:
    """Run the networks, of one architecture, greedily on ``images`` (indices into ``pixels``).

    The cost is that of the classifier after every glimpse, and of the halting unit after all but the last.
    """
    steps, right = [], []
    for _, network, unit in networks:
        looks = look_at_all(network, pixels, images, glimpses=glimpses, choose=greedy, halting=unit)
        steps.append(looks.steps.cpu())
        right.append(looks.class_logits[:, -1].argmax(-1).cpu() == labels)
    network = networks[0].network
    fixed = macs_by_glimpse(network, channels=pixels.shape[1], glimpses=glimpses)
    answer, halt = network.classifier.weight.numel(), network.core.hidden_size
    macs = [cost + (t - 1) * answer + min(t, glimpses - 1) * halt for t, cost in enumerate(fixed, start=1)]
    return JointRule(Stops([cost for cost, _, _ in networks], torch.stack(steps), torch.stack(right)), macs)
