"""What an evaluation keeps to be looked at: designs of a few test images, and the posterior's states.

Everything a picture of a design needs, so that a report computes nothing new.
"""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nogs.completion.retrieval import Retrieval
from nogs.data import ImageSet
from nogs.design.gain_maps import Criterion, Maps
from nogs.design.greedy import design_sequences
from nogs.glimpses.fovea import look
from nogs.information import information_gain_by_completion
from nogs.posterior.lookahead import LookaheadPosterior
from nogs.posterior.protocol import Posterior, class_log_probs, lookahead_everywhere
from nogs.runs.device import chance
from nogs.sequences.table import Sequences

BATCH = 512
SHOWN = 5
"""Completions of an example that are kept to be looked at."""


def posterior_log_probs(
    posterior: Posterior,
    data: ImageSet,
    images: Int[Tensor, " n"],
    cells: Int[Tensor, "n T"],
    label: int | None,
    device: torch.device,
) -> Float[Tensor, "n T C"]:
    """What the posterior says of each image after each of its glimpses."""
    pixels = data.images.to(device)
    logits = [
        posterior.logits_by_glimpse(look(pixels, posterior.grid, at.to(device), batch.to(device)))
        for batch, at in zip(images.split(BATCH), cells.split(BATCH), strict=True)
    ]
    return class_log_probs(torch.cat(logits).cpu(), multilabel=posterior.multilabel, label=label)


def examples(
    posterior: Posterior,
    retrieval: Retrieval,
    data: ImageSet,
    sequences: Sequences,
    *,
    count: int,
    criterion: Criterion,
    pooling: float,
    label: int | None,
    device: torch.device,
) -> dict[str, Tensor]:
    """Design sequences for ``count`` test images, of every class in turn; maps and pictures of each step."""
    test, C = data.members("test"), len(data.classes)
    by_class = [test[data.labels[test] == c] for c in range(C)]
    turns = [members[turn] for turn in range(count) for members in by_class if turn < len(members)]
    images = torch.stack(turns[:count])
    assert sequences.epe is not None
    assert sequences.eig is not None
    # The first map needs no completion of these images: it is the one that the search found.
    first = Maps(sequences.epe[:1, 0], sequences.eig[:1, 0], torch.full((1,), torch.inf), evaluations=0)
    gain = sequences.eig if criterion == "eig" else -sequences.epe
    found = design_sequences(
        posterior,
        retrieval,
        data.images[images],
        data.groups[images],
        first,
        glimpses=sequences.cells.shape[1],
        criterion=criterion,
        label=label,
        population=gain.mean(0),
        pooling=pooling,
        chance=partial(chance, 10),
    )
    log_probs = posterior_log_probs(posterior, data, images, found.cells, label, device)
    return {
        "images": images,
        "pixels": data.images[images],
        "labels": data.labels[images],
        "cells": found.cells,
        "eig": found.eig,
        "epe": found.epe,
        "log_probs": log_probs,
        "mean_image": data.images[test].float().mean(0),
        **_completed(posterior, retrieval, data, images, found.cells, label),
    }


def _completed(
    posterior: Posterior,
    retrieval: Retrieval,
    data: ImageSet,
    images: Int[Tensor, " n"],
    cells: Int[Tensor, "n T"],
    label: int | None,
) -> dict[str, Tensor]:
    """Half way through the sequences: each image's heaviest completions, and what each would tell at every cell.

    The generator is that of `examples`, so that these are the completions that the next glimpse was chosen by.
    """
    t = cells.shape[1] // 2
    if not len(images) or not t:  # nothing was seen yet
        return {}
    seen = look(data.images[images], posterior.grid, cells[:, :t])
    found = retrieval(seen, groups=data.groups[images], generator=chance(10, t))
    there, completed = seen.to(posterior.focus.device), found.to(posterior.focus.device)
    logits = lookahead_everywhere(posterior, there, completed.images, completed.owners)
    log_probs = class_log_probs(logits.cpu(), multilabel=posterior.multilabel, label=label)
    fewest = int(found.owners.bincount().min())
    kept: dict[str, list[Tensor]] = {"completions": [], "completion_weights": [], "completion_gains": []}
    for row in range(len(images)):
        mine = (found.owners == row).nonzero()[:, 0]
        gains = information_gain_by_completion(log_probs[mine], found.weights[mine])
        heaviest = found.weights[mine].argsort(descending=True, stable=True)[: min(SHOWN, fewest)]
        for key, column in zip(kept, (found.images[mine], found.weights[mine], gains), strict=True):
            kept[key].append(column[heaviest])
    return {key: torch.stack(rows) for key, rows in kept.items()}


def states_along(
    posterior: LookaheadPosterior, data: ImageSet, sequences: Sequences, device: torch.device
) -> dict[str, Tensor]:
    """The posterior's state h_t [n, T, h] after each designed glimpse, and the labels."""
    pixels = data.images.to(device)
    states = [
        posterior.states(look(pixels, posterior.grid, cells.to(device), rows.to(device)))[:, 1:].cpu()
        for rows, cells in zip(sequences.images.split(BATCH), sequences.cells.split(BATCH), strict=True)
    ]
    return {"states": torch.cat(states), "labels": data.labels[sequences.images]}
