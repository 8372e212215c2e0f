"""Classify images with a trained network: with early stopping, or many at a time at a fixed number of glimpses."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from nogs.attention.choosers import Chooser
from nogs.attention.network import HardAttention, visited
from nogs.stopping.rules import Stop


class Answers(NamedTuple):
    """What was said of B images after as many steps as each needed; cells are -1 after the last."""

    cells: Int[Tensor, "B T"]
    class_logits: Float[Tensor, "B C"]
    steps: Int[Tensor, " B"]


def classify(
    network: HardAttention, images: UInt8[Tensor, "B c H H"], *, glimpses: int, choose: Chooser, stop: Stop
) -> Answers:
    """Look at each image until ``stop`` says so, at most ``glimpses`` times: what has stopped leaves the batch.

    ``choose`` is asked about the images that are left, so it may go by their logits alone.
    """
    B, device = len(images), images.device
    left = torch.arange(B, device=device)
    cells = torch.full((B, glimpses), -1, device=device)
    said = torch.empty(B, network.classifier.out_features, device=device)
    steps = torch.full((B,), glimpses, device=device)
    h = torch.zeros(B, network.core.hidden_size, device=device)
    for t in range(1, glimpses + 1):
        step = network.step(images, left, h=h, t=t - 1, choose=choose)
        cells[left, t - 1] = step.cells
        said[left] = class_logits = network.classifier(step.states)
        if t == glimpses:
            break
        done = stop(class_logits, t)
        steps[left[done]] = t
        left, h = left[~done], step.states[~done]
        if not len(left):
            break
    return Answers(cells, said, steps)


BATCH = 512
"""Images that a trained network is shown at a time."""


class Seen(NamedTuple):
    """Where n images were looked at, and what was said after each glimpse."""

    cells: Int[Tensor, "n T"]
    class_logits: Float[Tensor, "n T C"]


@torch.no_grad()
def look_at_all(
    network: HardAttention,
    pixels: UInt8[Tensor, "N c H H"],
    images: Int[Tensor, " n"],
    *,
    glimpses: int,
    choose: Chooser,
) -> Seen:
    """Look at the ``images`` among ``pixels``. What only learning needs of a rollout is not computed."""
    seen: list[Seen] = []
    for rows in images.split(BATCH):
        cells, states = visited(network.run(pixels, rows, glimpses=glimpses, choose=choose))
        seen.append(Seen(cells, network.classifier(states)))
    return Seen(*(torch.cat(column) for column in zip(*seen, strict=True)))
