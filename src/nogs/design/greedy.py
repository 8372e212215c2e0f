"""Where to look next: greedy Bayesian optimal experimental design over the grid.

The glimpse is the experiment, its location the design, the label the unknown (*Near-Optimal Glimpse
Sequences*, section 3). Here every location is tried on every completion; `nogs.design.race` tries fewer.

Where we differ: an image's map may be pooled with the mean map of all images that are designed for,

    score_i(l) = (1 - c) gain_i(l) + c mean_j gain_j(l).

c = 0 is the paper's, c = 1 one path for all: the best next place for the average image. Pooling takes the
noise of few completions out of the choice (it shrinks each map to the population's), and a network that is
taught fewer paths learns sooner what is seen along them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Generator, Tensor

from nogs.completion.protocol import Completion
from nogs.design.gain_maps import Criterion, Maps, map_next, pooled
from nogs.glimpses.fovea import look
from nogs.posterior.protocol import Posterior


class DesignedSequences(NamedTuple):
    """Greedy sequences of T glimpses, with every map that they were chosen by, in nats."""

    cells: Int[Tensor, "B T"]
    epe: Float[Tensor, "B T L"]
    eig: Float[Tensor, "B T L"]
    effective: Float[Tensor, "B T"]


def choose(
    gain: Float[Tensor, "B L"],
    looked_at: Int[Tensor, "B t"],
    *,
    population: Float[Tensor, " L"] | None = None,
    pooling: float = 0.0,
) -> Int[Tensor, " B"]:
    """The cell of the greatest gain, pooled with the ``population``'s mean gain (by default of these images).

    A cell already looked at tells nothing new and is not chosen again.
    """
    score = pooled(gain, population=population, pooling=pooling)
    return score.masked_fill(_visited(looked_at, gain.shape[1]), -torch.inf).argmax(-1)


def regret(
    gain: Float[Tensor, "k L"],
    chosen: Int[Tensor, " B"],
    *,
    looked_at: Int[Tensor, "B t"],
    population: Float[Tensor, " L"],
    pooling: float,
) -> Float[Tensor, " k"]:
    """What the first k images lose, in nats of pooled score, by cells ``chosen`` without knowing this ``gain``."""
    k = len(gain)
    score = pooled(gain, population=population, pooling=pooling)
    best = score.masked_fill(_visited(looked_at[:k], gain.shape[1]), -torch.inf).max(-1).values
    return best - score.gather(1, chosen[:k, None])[:, 0]


def design_sequences(
    posterior: Posterior,
    completion: Completion,
    images: UInt8[Tensor, "B c H H"],
    groups: Int[Tensor, " B"],
    first: Maps,
    *,
    glimpses: int,
    criterion: Criterion,
    label: int | None = None,
    population: Float[Tensor, "T L"] | None = None,
    pooling: float = 0.0,
    chance: Callable[[int], Generator],
) -> DesignedSequences:
    """Design T glimpses for each image, one after the other, observing the image itself after each.

    ``chance`` gives the generator of glimpse t (1 is the second); ``population`` are mean gains to pool with.
    """
    B = len(images)
    cells = torch.empty(B, 0, dtype=torch.long)
    maps = []
    for t in range(glimpses):
        if t == 0:
            epe, eig, effective = (column.expand(B, *column.shape[1:]) for column in first[:3])
            found = Maps(epe, eig, effective, evaluations=0)
        else:
            seen = look(images, posterior.grid, cells)
            found = map_next(posterior, seen, completion(seen, groups=groups, generator=chance(t)), label=label)
        pool = None if population is None else population[t]
        chosen = choose(found.gain(criterion), cells, population=pool, pooling=pooling)
        maps.append(found)
        cells = torch.cat((cells, chosen[:, None]), dim=1)
    columns = zip(*(found[:3] for found in maps), strict=True)
    return DesignedSequences(cells, *(torch.stack(column, dim=1) for column in columns))


def _visited(cells: Int[Tensor, "B T"], locations: int) -> Bool[Tensor, "B L"]:
    visited = torch.zeros(len(cells), locations, dtype=torch.bool, device=cells.device)
    return visited.scatter(1, cells, True)
