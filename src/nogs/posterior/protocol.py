"""The interface of a posterior g(θ | y_1:t, l_1:t), and its maps over all locations."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.distributions import Bernoulli, Categorical
from torch.nn import functional as F

from nogs.glimpses.fovea import Glimpses
from nogs.glimpses.grid import Grid


@runtime_checkable
class Posterior(Protocol):
    """What design asks of a posterior."""

    grid: Grid
    multilabel: bool
    focus: Float[Tensor, " L"]
    """How often training looked at each location; sums to 1."""

    def __call__(self, glimpses: Glimpses) -> Categorical | Bernoulli:
        """g(θ | y_1:T, l_1:T), batch shape [B] (or [B, K] for K labels)."""
        ...

    def logits_by_glimpse(self, glimpses: Glimpses) -> Float[Tensor, "B T C"]:
        """Logits of g(θ | y_1:t, l_1:t) for every t = 1..T."""
        ...

    def lookahead(
        self,
        seen: Glimpses,
        completions: UInt8[Tensor, "P c H H"],
        owners: Int[Tensor, " P"],
        *,
        rows: Int[Tensor, " Q"],
        cells: Int[Tensor, " Q"],
    ) -> Float[Tensor, "Q C"]:
        """Logits after one more glimpse, for each of Q candidates: at ``cells[q]`` of completion ``rows[q]``.

        ``owners[p]`` is the row of ``seen`` (of T ≥ 0 glimpses) that completion p belongs to.
        """
        ...


def lookahead_everywhere(
    posterior: Posterior, seen: Glimpses, completions: UInt8[Tensor, "P c H H"], owners: Int[Tensor, " P"]
) -> Float[Tensor, "P L C"]:
    """Logits after one more glimpse at each of the grid's L locations of each completion."""
    P, L = len(completions), len(posterior.grid)
    every = torch.arange(P * L, device=completions.device)
    return posterior.lookahead(seen, completions, owners, rows=every // L, cells=every % L).unflatten(0, (P, L))


def class_log_probs(
    logits: Float[Tensor, "*batch K"], *, multilabel: bool, label: int | None = None
) -> Float[Tensor, "*batch C"]:
    """log g(θ) of one label: of its C classes, or of (0, 1) for label number ``label`` of a multi-label set."""
    if not multilabel:
        return logits.log_softmax(-1)
    if label is None:
        raise ValueError("a multi-label posterior needs the number of the label")
    return F.logsigmoid(torch.stack((-logits[..., label], logits[..., label]), dim=-1))


def distribution(logits: Float[Tensor, "*batch C"], *, multilabel: bool) -> Categorical | Bernoulli:
    """The logits as what they mean."""
    return Bernoulli(logits=logits) if multilabel else Categorical(logits=logits)
