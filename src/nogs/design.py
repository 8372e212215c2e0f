"""Where to look next: greedy Bayesian optimal experimental design over the grid.

The glimpse is the experiment, its location the design, the label the unknown (*Near-Optimal Glimpse
Sequences*, section 3). Exhaustive: every location is tried on every completion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Generator, Tensor

from nogs.completion.protocol import Completion, Completions
from nogs.glimpses import Glimpses, look, nothing_seen
from nogs.information import expected_posterior_entropy, mixture_information_gain
from nogs.posterior import Posterior, class_log_probs

Criterion = Literal["epe", "eig"]


class Design(NamedTuple):
    """The chosen cell of each image, and the maps in nats that it was chosen by."""

    cells: Int[Tensor, " B"]
    epe: Float[Tensor, "B L"]
    eig: Float[Tensor, "B L"]


class DesignedSequences(NamedTuple):
    """Greedy sequences of T glimpses, with every map that they were chosen by, in nats.

    ``effective`` is the effective sample size of the completions behind each glimpse; ``evaluations`` counts
    what the posterior was asked, one for each location of each completion.
    """

    cells: Int[Tensor, "B T"]
    epe: Float[Tensor, "B T L"]
    eig: Float[Tensor, "B T L"]
    effective: Float[Tensor, "B T"]
    evaluations: int


def design_next(
    posterior: Posterior,
    seen: Glimpses,
    completions: Completions,
    *,
    criterion: Criterion,
    label: int | None = None,
) -> Design:
    """Choose the next cell of each image of ``seen``: least EPE, or greatest mixture EIG.

    A cell already looked at tells nothing new and is not chosen again. ``label`` picks one of a multi-label
    posterior's labels.
    """
    logits = posterior.lookahead(seen, completions.images, completions.owners)
    log_probs = class_log_probs(logits, multilabel=posterior.multilabel, label=label)
    epes, eigs = [], []
    for row in range(len(seen.cells)):
        mine = completions.owners == row
        epes.append(expected_posterior_entropy(log_probs[mine], completions.weights[mine]))
        eigs.append(mixture_information_gain(log_probs[mine], completions.weights[mine]))
    epe, eig = torch.stack(epes), torch.stack(eigs)
    score = eig if criterion == "eig" else -epe
    return Design(score.masked_fill(_visited(seen.cells, epe.shape[1]), -torch.inf).argmax(-1), epe, eig)


def design_first(posterior: Posterior, draws: Completions, *, criterion: Criterion, label: int | None = None) -> Design:
    """Choose the first cell, which all images share: nothing was seen, so ``draws`` are of any image."""
    nothing = nothing_seen(draws.images[:1], posterior.grid)
    return design_next(posterior, nothing, draws, criterion=criterion, label=label)


def design_sequences(
    posterior: Posterior,
    completion: Completion,
    images: UInt8[Tensor, "B c H H"],
    groups: Int[Tensor, " B"],
    first: Design,
    *,
    glimpses: int,
    criterion: Criterion,
    label: int | None = None,
    chance: Callable[[int], Generator],
) -> DesignedSequences:
    """Design T glimpses for each image, one after the other, observing the image itself after each.

    ``chance`` gives the generator of glimpse t (1 is the second).
    """
    B = len(images)
    designs = [Design(*(column.expand(B, *column.shape[1:]) for column in first))]
    effective = [torch.full((B,), torch.inf)]
    cells = first.cells.expand(B)[:, None]
    evaluations = 0
    for t in range(1, glimpses):
        seen = look(images, posterior.grid, cells)
        completions = completion(seen, groups=groups, generator=chance(t))
        designs.append(design_next(posterior, seen, completions, criterion=criterion, label=label))
        effective.append(completions.effective)
        evaluations += len(completions.owners) * len(posterior.grid)
        cells = torch.cat((cells, designs[-1].cells[:, None]), dim=1)
    epe, eig = (torch.stack([design[field] for design in designs], dim=1) for field in (1, 2))
    return DesignedSequences(cells, epe, eig, torch.stack(effective, dim=1), evaluations)


def _visited(cells: Int[Tensor, "B T"], locations: int) -> Bool[Tensor, "B L"]:
    visited = torch.zeros(len(cells), locations, dtype=torch.bool, device=cells.device)
    return visited.scatter(1, cells, True)
