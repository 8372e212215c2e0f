"""Classify images with a trained network: with early stopping, or in batches with a fixed number of glimpses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from nogs.attention.choosers import Chooser
from nogs.attention.network import HardAttention, State, Step, stack_states
from nogs.data.pixels import Pixels
from nogs.stopping.halting import HaltingUnit, answers
from nogs.stopping.rules import HALTED, Stop

BATCH = 512
"""Images in a batch without gradients."""


class Answers(NamedTuple):
    """Class logits of B images, each after its own number of ``steps``; later cells are -1."""

    cells: Int[Tensor, "B T"]
    class_logits: Float[Tensor, "B C"]
    steps: Int[Tensor, " B"]


def classify(network: HardAttention, images: Pixels, *, glimpses: int, choose: Chooser, stop: Stop) -> Answers:
    """Take glimpses of each image until ``stop`` returns True for it, at most ``glimpses``.

    Stopped images leave the batch, so ``choose`` gets the logits of the remaining images alone.
    """
    B, device = len(images), images.device
    remaining = torch.arange(B, device=device)
    cells = torch.full((B, glimpses), -1, device=device)
    final_logits = torch.empty(B, network.classifier.out_features, device=device)
    steps = torch.full((B,), glimpses, device=device)
    state = network.begin(images, remaining)
    logits = network.location_logits(state.h, state.scene)
    for t in range(1, glimpses + 1):
        step = network.step(images, remaining, state=state, t=t - 1, choose=choose, locate=partial(_given, logits))
        cells[remaining, t - 1] = step.cells
        final_logits[remaining] = class_logits = network.classifier(step.states)
        if t == glimpses:
            break
        logits = network.location_logits(step.state.h, step.state.scene)
        stopped = stop(class_logits, t, logits)
        steps[remaining[stopped]] = t
        remaining, state, logits = remaining[~stopped], step.state.select(~stopped), logits[~stopped]
        if not len(remaining):
            break
    return Answers(cells, final_logits, steps)


def classify_halting(
    network: HardAttention, unit: HaltingUnit, images: Pixels, *, glimpses: int, choose: Chooser
) -> Answers:
    """Take glimpses until the halting unit has stopped every image, at most ``glimpses``; logits are of its answer.

    Cells of an image after its own stop are -1. They have no weight in its answer.
    """
    rows = torch.arange(len(images), device=images.device)
    cells, halting, logits = [], [], []
    left = torch.ones(len(images), device=images.device)
    for step in network.unroll(images, rows, glimpses=glimpses, choose=choose):
        cells.append(step.cells)
        halting.append(unit(step.states))
        logits.append(network.classifier(step.states))
        left = left - halting[-1]
        if bool((left <= HALTED).all()):
            break
    halted = answers(torch.stack(halting, dim=1), torch.stack(logits, dim=1))
    taken = F.pad(torch.stack(cells, dim=1), (0, glimpses - len(cells)), value=-1)
    beyond = torch.arange(glimpses, device=images.device) >= halted.steps[:, None]
    return Answers(taken.masked_fill(beyond, -1), halted.log_probs[:, -1], halted.steps)


def _given(logits: Float[Tensor, "B L"], state: State) -> Float[Tensor, "B L"]:
    """Return logits that were computed before, for the stopping rule of the last glimpse."""
    return logits


class Looks(NamedTuple):
    """Cells of n images, class logits after each glimpse, and the number of glimpses after which each image stops.

    Without a halting unit ``steps`` is T. With a halting unit, ``class_logits`` at t are those of the
    answer if at most t glimpses are allowed.
    ``peak_logits``: the greatest location logit before each glimpse.
    """

    cells: Int[Tensor, "n T"]
    class_logits: Float[Tensor, "n T C"]
    steps: Int[Tensor, " n"]
    peak_logits: Float[Tensor, "n T"]


@torch.no_grad()
def look_at_all(
    network: HardAttention,
    pixels: Pixels,
    images: Int[Tensor, " n"],
    *,
    glimpses: int,
    choose: Chooser,
    halting: HaltingUnit | None = None,
) -> Looks:
    """Take ``glimpses`` glimpses of the ``images`` (indices into ``pixels``), without the heads that train alone.

    ``halting``: the unit that was trained with the network, if one was. All T glimpses are recorded nevertheless.
    """
    batches: list[Looks] = []
    for rows in images.split(BATCH):
        peaks: list[Tensor] = []
        cells, states = stack_states(_noting(peaks, network.unroll(pixels, rows, glimpses=glimpses, choose=choose)))
        class_logits, steps = network.classifier(states), torch.full_like(rows, glimpses)
        if halting is not None:
            class_logits, steps = answers(halting(states), class_logits)
        batches.append(Looks(cells, class_logits, steps, torch.stack(peaks, dim=1)))
    return Looks(*(torch.cat(column) for column in zip(*batches, strict=True)))


def _noting(peaks: list[Tensor], steps: Iterable[Step]) -> Iterator[Step]:
    """Yield ``steps``, and append the greatest location logit of each to ``peaks``: all logits would not fit."""
    for step in steps:
        peaks.append(step.location_logits.amax(-1))
        yield step
        del step
