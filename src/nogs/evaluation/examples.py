"""Records of designs for the report: example designs of test images, and the posterior's answers along sequences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nogs.completion.protocol import Completion, Completions
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
    Returns tensors by name: images, pixels, labels, cells, maps, the posterior's log-probabilities, the heaviest
    completions before each glimpse but the first, and one step in detail.
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
        **_completions(posterior, completion, data, images, designed.cells),
    }


def _completions(
    posterior: Posterior, completion: Completion, data: ImageSet, images: Int[Tensor, " n"], cells: Int[Tensor, "n T"]
) -> dict[str, Tensor]:
    """Return the heaviest completions of each image before each glimpse t = 2..T, and half way the gain map of each.

    The generators are those of `examples`, so the next glimpse was chosen by these completions. Returns nothing where
    there is one glimpse, or no image.
    """
    T = cells.shape[1]
    if not len(images) or T < 2:
        return {}
    completed = []
    for t in range(1, T):
        seen = look(data.images[images], posterior.grid, cells[:, :t])
        completed.append(completion(seen, groups=data.groups[images], generator=chance(10, t)))
    count = min(SHOWN, *(int(of.owners.bincount().min()) for of in completed))
    heaviest = [[_heaviest(of, image, count) for image in range(len(images))] for of in completed]
    return {
        "completions_by_glimpse": _by_image(
            [of.images[rows] for rows in at] for of, at in zip(completed, heaviest, strict=True)
        ),
        "completion_weights_by_glimpse": _by_image(
            [of.weights[rows] for rows in at] for of, at in zip(completed, heaviest, strict=True)
        ),
        "completion_gains": torch.stack(
            _gains_by_completion(
                posterior, data, images, cells[:, : T // 2], completed[T // 2 - 1], heaviest[T // 2 - 1]
            )
        ),
    }


def _heaviest(completions: Completions, owner: int, count: int) -> Int[Tensor, " k"]:
    """Return the rows of the ``count`` heaviest completions of an image, heaviest first."""
    of_owner = (completions.owners == owner).nonzero()[:, 0]
    return of_owner[completions.weights[of_owner].argsort(descending=True, stable=True)[:count]]


def _by_image(glimpses: Iterable[Sequence[Tensor]]) -> Tensor:
    """Stack tensors of each glimpse and image so that the image comes first, then the glimpse."""
    return torch.stack([torch.stack([*of_images]) for of_images in glimpses], dim=1)


def _gains_by_completion(
    posterior: Posterior,
    data: ImageSet,
    images: Int[Tensor, " n"],
    cells: Int[Tensor, "n t"],
    completions: Completions,
    heaviest: Sequence[Int[Tensor, " k"]],
) -> list[Float[Tensor, "k L"]]:
    """Return the gain map of each of the ``heaviest`` completions, image by image, after glimpses at ``cells``."""
    there = completions.to(posterior.device)
    P, L = len(completions.owners), len(posterior.grid)
    candidates = every_candidate(there.images, there.owners, locations=L)
    seen = look(data.images[images], posterior.grid, cells).to(posterior.device)
    log_probs = posterior.lookahead(seen, candidates).logits.unflatten(0, (P, L)).cpu()
    kept = []
    for image, rows in enumerate(heaviest):
        of_image = (completions.owners == image).nonzero()[:, 0]
        gains = information_gain_by_completion(log_probs[of_image], completions.weights[of_image])
        kept.append(gains[torch.searchsorted(of_image, rows)])
    return kept
