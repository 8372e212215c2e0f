"""Greedy Bayesian experimental design: look where the gain map is greatest, observe, and repeat.

The glimpse is the experiment, its location the design, the label the unknown (*Near-Optimal Glimpse Sequences*,
section 3). This is the only such loop in the package. The caller passes the function that makes its maps.

Where we differ: an image's map may be pooled with the mean map of all images that are designed for,

    score_i(l) = (1 - c) gain_i(l) + c mean_j gain_j(l).

c = 0 is the paper's choice, c = 1 gives one path for all images. A map from few completions is noisy, and pooling
shrinks it towards the population's. A network that follows fewer paths also learns sooner to classify along them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nogs.design.gain_maps import Criterion, Maps, pooled

MapsAt = Callable[[Int[Tensor, "B t"]], Maps]
"""A function from the t ≥ 0 cells visited so far in each of B images to the maps of their next glimpse."""


class DesignedSequences(NamedTuple):
    """Greedy sequences of T glimpses, and the maps in nats that the glimpses were chosen from.

    ``effective``: effective sample size of the completions behind each map.
    """

    cells: Int[Tensor, "B T"]
    epe: Float[Tensor, "B T L"]
    eig: Float[Tensor, "B T L"]
    effective: Float[Tensor, "B T"]

    def gain(self, criterion: Criterion) -> Float[Tensor, "B T L"]:
        """Return the maps that were maximised: the mixture EIG, or minus the EPE."""
        return self.eig if criterion == "eig" else -self.epe


def design_sequences(
    maps_at: MapsAt,
    count: int,
    *,
    glimpses: int,
    criterion: Criterion,
    pooling: float = 0.0,
    population: Float[Tensor, "T L"] | None = None,
) -> DesignedSequences:
    """Design ``glimpses`` cells for each of ``count`` images, one after the other.

    ``population``: the mean gain at each t to pool with (default: of these images).
    """
    cells = torch.empty(count, 0, dtype=torch.long)
    columns = []
    for t in range(glimpses):
        maps = maps_at(cells)
        chosen = choose(
            maps.gain(criterion), cells, population=None if population is None else population[t], pooling=pooling
        )
        columns.append(maps[:3])
        cells = torch.cat((cells, chosen[:, None]), dim=1)
    return DesignedSequences(cells, *(torch.stack(column, dim=1) for column in zip(*columns, strict=True)))


def choose(
    gain: Float[Tensor, "B L"],
    visited: Int[Tensor, "B t"],
    *,
    population: Float[Tensor, " L"] | None = None,
    pooling: float = 0.0,
) -> Int[Tensor, " B"]:
    """Return the cell of greatest pooled gain among those that are not in ``visited``."""
    score = pooled(gain, population=population, pooling=pooling)
    return score.masked_fill(_mask(visited, gain.shape[1]), -torch.inf).argmax(-1)


def regret(
    gain: Float[Tensor, "k L"],
    chosen: Int[Tensor, " B"],
    *,
    visited: Int[Tensor, "B t"],
    population: Float[Tensor, " L"],
    pooling: float,
) -> Float[Tensor, " k"]:
    """Return by how many nats the pooled score of ``chosen`` is below the greatest, for the first k images.

    ``gain``: exhaustive maps of these k images. ``chosen`` and ``visited``: cells of all B ≥ k images.
    """
    k = len(gain)
    score = pooled(gain, population=population, pooling=pooling)
    best = score.masked_fill(_mask(visited[:k], gain.shape[1]), -torch.inf).max(-1).values
    return best - score.gather(1, chosen[:k, None])[:, 0]


def _mask(cells: Int[Tensor, "B t"], locations: int) -> Bool[Tensor, "B L"]:
    mask = torch.zeros(len(cells), locations, dtype=torch.bool, device=cells.device)
    return mask.scatter(1, cells, True)
