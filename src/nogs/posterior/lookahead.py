"""The lookahead posterior, the default: a GRU over location-conditioned glimpse embeddings.

One step of its core for each candidate glimpse gives a whole map in one batched pass (after Rangrej and Clark 2021,
*Achieving Explainability in a Visual Hard Attention Model through Content Prediction*), where the masked CNN of
*Near-Optimal Glimpse Sequences* (section 4.2) needs a pass of the CNN for each. The distribution depends on the order
of the glimpses.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.distributions import Bernoulli, Categorical
from torch.nn import functional as F

from nogs.glimpses.embedding import GlimpseEmbedding, perceptron
from nogs.glimpses.fovea import Glimpses, look
from nogs.glimpses.grid import Grid
from nogs.posterior.protocol import Candidates, OneLabel, Posterior, distribution
from nogs.runs.device import design_precision

CANDIDATES = 2048
"""Candidate glimpses in one pass, so that their GRU gates fit in a processor's cache."""


class LookaheadPosterior(nn.Module):
    """A GRU over glimpse embeddings and one classifier; the initial state h_0 is learned."""

    maps_are_cheap = True

    def __init__(self, grid: Grid, *, channels: int, classes: int, multilabel: bool, hidden: int = 128) -> None:
        super().__init__()
        self.grid = grid
        self.multilabel = multilabel
        self.focus: Tensor
        self.register_buffer("focus", torch.full((len(grid),), 1 / len(grid)))
        what = perceptron(grid, channels * grid.scales, width=64)
        self.embedding = GlimpseEmbedding(grid, what, width=64)
        self.core = nn.GRUCell(64, hidden)
        self.start = nn.Parameter(torch.zeros(hidden))
        self.classifier = nn.Sequential(nn.Linear(hidden, 64), nn.ReLU(), nn.Linear(64, classes))

    @property
    def device(self) -> torch.device:
        return self.start.device

    def forward(self, glimpses: Glimpses) -> Categorical | Bernoulli:
        return self._distribution(self.states(glimpses)[:, -1])

    def by_glimpse(self, glimpses: Glimpses) -> Categorical | Bernoulli:
        return self._distribution(self.features(glimpses))

    def for_training(self, glimpses: Glimpses, *, generator: Generator) -> Categorical | Bernoulli:
        """Return the distributions of every t, which one pass gives."""
        return self.by_glimpse(glimpses)

    def for_label(self, label: int) -> Posterior:
        return OneLabel(self, label)

    def features(self, glimpses: Glimpses) -> Float[Tensor, "B T h"]:
        """Return the states h_1..h_T."""
        return self.states(glimpses)[:, 1:]

    def lookahead(self, seen: Glimpses, candidates: Candidates) -> Categorical | Bernoulli:
        completions, owners, *pairs = candidates
        h = self.states(seen)[:, -1]
        recurrent = F.linear(h, self.core.weight_hh, self.core.bias_hh)
        logits = []
        with design_precision(completions.device) as dtype:
            h, recurrent = h.to(dtype), recurrent.to(dtype)
            for rows, cells in zip(*(column.split(CANDIDATES) for column in pairs), strict=True):
                patches = look(completions, self.grid, cells[:, None], rows).patches[:, 0]
                inputs = F.linear(self.embedding(patches, cells), self.core.weight_ih, self.core.bias_ih)
                row_of = owners[rows]
                logits.append(self.classifier(_gru_step(inputs, recurrent[row_of], h[row_of])))
        return distribution(torch.cat(logits).float(), multilabel=self.multilabel)

    def states(self, glimpses: Glimpses) -> Float[Tensor, "B states h"]:
        """Return h_0, and h_t after each of T glimpses: states = T + 1."""
        B, T = glimpses.cells.shape
        states = [self.start.expand(B, -1)]
        if T:
            for embedded in self.embedding(glimpses.patches, glimpses.cells).unbind(1):
                states.append(self.core(embedded, states[-1]))
        return torch.stack(states, dim=1)

    def _distribution(self, states: Float[Tensor, "*batch h"]) -> Categorical | Bernoulli:
        return distribution(self.classifier(states), multilabel=self.multilabel)


def _gru_step(
    inputs: Float[Tensor, "Q gates"], recurrent: Float[Tensor, "Q gates"], h: Float[Tensor, "Q h"]
) -> Float[Tensor, "Q h"]:
    """Return one step of `nn.GRUCell`, given both products of its gates.

    The recurrent product is the same for all candidates of an image, so it is computed once by the caller.
    """
    reset_in, update_in, new_in = inputs.chunk(3, dim=-1)
    reset_h, update_h, new_h = recurrent.chunk(3, dim=-1)
    reset, update = (reset_in + reset_h).sigmoid(), (update_in + update_h).sigmoid()
    return torch.lerp((new_in + reset * new_h).tanh(), h, update)
