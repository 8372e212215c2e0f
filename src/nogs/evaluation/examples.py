"""Records of designs for the report: example designs of test images, and the posterior's answers along sequences."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nogs.completion.protocol import Completion
from nogs.data import ImageSet
from nogs.design.gain_maps import CompletionGainMap, Criterion, Maps, exhaustive
from nogs.design.greedy import design_sequences
from nogs.glimpses.fovea import look
from nogs.information import information_gain_by_completion
from nogs.posterior.protocol import Posterior, every_candidate
from nogs.runs.device import chance
from nogs.sequences.table import Sequences

BATCH = 512
SHOWN = 5
"""Completions that are recorded of an example."""


def posterior_log_probs(
    posterior: Posterior, data: ImageSet, images: Int[Tensor, " n"], cells: Int[Tensor, "n T"]
) -> Float[Tensor, "n T C"]:
    """Return log g(θ | y_1:t, l_1:t) of each image after each of its glimpses; ``posterior`` of one label."""
    pixels = data.images.to(posterior.device)
    log_probs = [
        posterior.by_glimpse(
            look(pixels, posterior.grid, batch_cells.to(posterior.device), batch.to(posterior.device))
        ).logits.cpu()
        for batch, batch_cells in zip(images.split(BATCH), cells.split(BATCH), strict=True)
    ]
    return torch.cat(log_probs)


def examples(
    posterior: Posterior,
    completion: Completion,
    data: ImageSet,
    sequences: Sequences,
    *,
    count: int,
    criterion: Criterion,
    pooling: float,
) -> dict[str, Tensor]:
    """Design sequences for ``count`` test images, of every class in turn, with exhaustive maps.

    ``posterior``: of one label. ``sequences``: those of the search, whose first map and mean maps are used again.
    Returns tensors by name: images, pixels, labels, cells, maps, the posterior's log-probabilities, the mean test
    image, and one step in detail.
    """
    test, C = data.members("test"), len(data.classes)
    by_class = [test[data.labels[test] == c] for c in range(C)]
    turns = [members[turn] for turn in range(count) for members in by_class if turn < len(members)]
    images = torch.stack(turns[:count])
    assert sequences.epe is not None
    assert sequences.eig is not None
    first = Maps(sequences.epe[:1, 0], sequences.eig[:1, 0], torch.full((1,), torch.inf), evaluations=0)
    gain = sequences.eig if criterion == "eig" else -sequences.epe
    gain_map = CompletionGainMap(posterior, completion, exhaustive, unconditional=0)

    def maps_at(cells: Int[Tensor, "B t"]) -> Maps:
        t = cells.shape[1]
        if t == 0:
            return first.expand(len(images))
        seen = look(data.images[images], posterior.grid, cells)
        return gain_map(seen, groups=data.groups[images], generator=chance(10, t))

    designed = design_sequences(
        maps_at,
        len(images),
        glimpses=sequences.cells.shape[1],
        criterion=criterion,
        population=gain.mean(0),
        pooling=pooling,
    )
    return {
        "images": images,
        "pixels": data.images[images],
        "labels": data.labels[images],
        "cells": designed.cells,
        "eig": designed.eig,
        "epe": designed.epe,
        "log_probs": posterior_log_probs(posterior, data, images, designed.cells),
        **_step_in_detail(posterior, completion, data, images, designed.cells),
    }


def _step_in_detail(
    posterior: Posterior, completion: Completion, data: ImageSet, images: Int[Tensor, " n"], cells: Int[Tensor, "n T"]
) -> dict[str, Tensor]:
    """Return the heaviest completions of each image half way through its sequence, and the gain map of each.

    The generator is that of `examples`, so these are the completions that the next glimpse was chosen by. Returns
    nothing where half way is before the first glimpse.
    """
    t = cells.shape[1] // 2
    if not len(images) or not t:
        return {}
    seen = look(data.images[images], posterior.grid, cells[:, :t])
    completions = completion(seen, groups=data.groups[images], generator=chance(10, t))
    there = completions.to(posterior.device)
    P, L = len(completions.owners), len(posterior.grid)
    candidates = every_candidate(there.images, there.owners, locations=L)
    predicted = posterior.lookahead(seen.to(posterior.device), candidates)
    log_probs = predicted.logits.unflatten(0, (P, L)).cpu()
    fewest = int(completions.owners.bincount().min())
    kept: dict[str, list[Tensor]] = {"completions": [], "completion_weights": [], "completion_gains": []}
    for row in range(len(images)):
        of_row = (completions.owners == row).nonzero()[:, 0]
        weights = completions.weights[of_row]
        gains = information_gain_by_completion(log_probs[of_row], weights)
        heaviest = weights.argsort(descending=True, stable=True)[: min(SHOWN, fewest)]
        for key, column in zip(kept, (completions.images[of_row], weights, gains), strict=True):
            kept[key].append(column[heaviest])
    return {key: torch.stack(rows) for key, rows in kept.items()}
