"""The interface of a posterior g(θ | y_1:t, l_1:t): distributions of the label given any set of glimpses.

*Near-Optimal Glimpse Sequences*, section 4.2. A posterior is called with glimpses and returns a
`torch.distributions` object: `Categorical` for one label of C classes, `Bernoulli` for K labels at once.
`for_label` narrows a multi-label posterior to one label, so that design sees one label of C classes only.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor
from torch.distributions import Bernoulli, Categorical
from torch.nn import functional as F

from nogs.glimpses.fovea import Glimpses
from nogs.glimpses.grid import Grid


class LabelDistribution(Categorical):
    """Distribution of one label from normalised log-probabilities, which are its ``logits`` unchanged.

    `Categorical` would normalise them once more, which alters their last bits.
    """

    def __init__(self, log_probs: Float[Tensor, "*batch C"]) -> None:
        super().__init__(logits=log_probs, validate_args=False)
        self.logits = log_probs


class Candidates(NamedTuple):
    """Q candidate glimpses: glimpse q is taken of completion ``rows[q]`` at cell ``cells[q]``.

    ``completions`` are images of uint8 in [0, 255]. Completion p is one of image ``owners[p]`` of the B images.
    """

    completions: UInt8[Tensor, "P c H H"]
    owners: Int[Tensor, " P"]
    rows: Int[Tensor, " Q"]
    cells: Int[Tensor, " Q"]


def every_candidate(completions: UInt8[Tensor, "P c H H"], owners: Int[Tensor, " P"], *, locations: int) -> Candidates:
    """Return each of L = ``locations`` locations of each of P completions, locations fastest: Q = P L."""
    every = torch.arange(len(completions) * locations, device=completions.device)
    return Candidates(completions, owners, rows=every // locations, cells=every % locations)


@runtime_checkable
class Posterior(Protocol):
    """The interface that design uses."""

    grid: Grid

    @property
    def device(self) -> torch.device:
        """The device that glimpses and completions have to be on."""
        ...

    def __call__(self, glimpses: Glimpses) -> Categorical | Bernoulli:
        """Return g(θ | y_1:T, l_1:T), batch shape [B] (or [B, K] for K labels)."""
        ...

    def by_glimpse(self, glimpses: Glimpses) -> Categorical | Bernoulli:
        """Return g(θ | y_1:t, l_1:t) for every t = 1..T, batch shape [B, T] (or [B, T, K])."""
        ...

    def lookahead(self, seen: Glimpses, candidates: Candidates) -> Categorical | Bernoulli:
        """Return the posterior after one more glimpse, for each of Q candidates: batch shape [Q] (or [Q, K]).

        ``seen``: the T ≥ 0 glimpses of each of the B images that were looked at.
        """
        ...


@runtime_checkable
class TrainablePosterior(Posterior, Protocol):
    """The interface that training uses, in addition to that of design."""

    focus: Float[Tensor, " L"]
    """Distribution over locations that training draws from; sums to 1."""
    maps_are_cheap: bool
    """Whether one batched pass gives a map of all locations, so that training can measure where glimpses help."""

    def for_training(self, glimpses: Glimpses, *, generator: Generator) -> Categorical | Bernoulli:
        """Return g(θ | y_1:t, l_1:t), batch shape [B, t] (or [B, t, K]): every t, or one drawn uniformly."""
        ...

    def features(self, glimpses: Glimpses) -> Float[Tensor, "B T h"]:
        """Return the input of the classifier after each of T glimpses."""
        ...

    def for_label(self, label: int) -> Posterior:
        """Return the posterior of one label of a multi-label posterior, classes (0, 1)."""
        ...


class OneLabel:
    """One label of a multi-label posterior, as a posterior of its own; classes (0, 1)."""

    def __init__(self, posterior: Posterior, label: int) -> None:
        self.grid = posterior.grid
        self._posterior, self._label = posterior, label

    @property
    def device(self) -> torch.device:
        return self._posterior.device

    def __call__(self, glimpses: Glimpses) -> LabelDistribution:
        return self._narrow(self._posterior(glimpses))

    def by_glimpse(self, glimpses: Glimpses) -> LabelDistribution:
        return self._narrow(self._posterior.by_glimpse(glimpses))

    def lookahead(self, seen: Glimpses, candidates: Candidates) -> LabelDistribution:
        return self._narrow(self._posterior.lookahead(seen, candidates))

    def _narrow(self, labels: Categorical | Bernoulli) -> LabelDistribution:
        logits = labels.logits[..., self._label]
        return LabelDistribution(F.logsigmoid(torch.stack((-logits, logits), dim=-1)))


def distribution(logits: Float[Tensor, "*batch C"], *, multilabel: bool) -> LabelDistribution | Bernoulli:
    """Return the distribution with these logits, over C classes of one label or over C labels (``multilabel``)."""
    if multilabel:
        return Bernoulli(logits=logits, validate_args=False)
    return LabelDistribution(logits.log_softmax(-1))
