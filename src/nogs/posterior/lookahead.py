"""The attentional variational posterior g(θ | y_1:t, l_1:t): a label's distribution given any set of glimpses.

*Near-Optimal Glimpse Sequences*, section 4.2. A posterior is called with glimpses and gives a
`torch.distributions` object: `Categorical` for one label of C classes, `Bernoulli` for K labels at once.
For design it also looks ahead: what would it say if one more glimpse were taken, at each location of the
grid in turn, of an image that completes what was seen?

- `AVPCNN`, the paper's: a CNN on the masked image. One pass per location and completion.
- `LookaheadPosterior`, ours and the default: a GRU over location-conditioned glimpse embeddings, one step of
  which per candidate gives a whole map in one batched pass (after Rangrej & Clark 2021).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical
from torch.nn import functional as F

from nogs.glimpses.embedding import GlimpseEmbedding, perceptron
from nogs.glimpses.fovea import Glimpses, look
from nogs.glimpses.grid import Grid
from nogs.posterior.protocol import distribution
from nogs.runs.device import design_precision

CANDIDATES = 2048
"""Glimpses looked ahead to in one pass of the lookahead posterior: their GRU gates still fit in a cache."""


class LookaheadPosterior(nn.Module):
    """A GRU over glimpse embeddings and one classifier; h_0 is learned, so that it speaks before any glimpse."""

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

    def forward(self, glimpses: Glimpses) -> Categorical | Bernoulli:
        return distribution(self.classifier(self.states(glimpses)[:, -1]), multilabel=self.multilabel)

    def logits_by_glimpse(self, glimpses: Glimpses) -> Float[Tensor, "B T C"]:
        return self.classifier(self.states(glimpses)[:, 1:])

    def lookahead(
        self,
        seen: Glimpses,
        completions: UInt8[Tensor, "P c H H"],
        owners: Int[Tensor, " P"],
        *,
        rows: Int[Tensor, " Q"],
        cells: Int[Tensor, " Q"],
    ) -> Float[Tensor, "Q C"]:
        h = self.states(seen)[:, -1]
        recalled = F.linear(h, self.core.weight_hh, self.core.bias_hh)
        passes = []
        with design_precision(completions.device) as dtype:
            h, recalled = h.to(dtype), recalled.to(dtype)
            for some, at in zip(rows.split(CANDIDATES), cells.split(CANDIDATES), strict=True):
                patches = look(completions, self.grid, at[:, None], some).patches[:, 0]
                arriving = F.linear(self.embedding(patches, at), self.core.weight_ih, self.core.bias_ih)
                mine = owners[some]
                passes.append(self.classifier(_gru(arriving, recalled[mine], h[mine])))
        return torch.cat(passes).float()

    def states(self, glimpses: Glimpses) -> Float[Tensor, "B states h"]:
        """h_0, and h_t after each of T glimpses: states = T + 1."""
        B, T = glimpses.cells.shape
        states = [self.start.expand(B, -1)]
        if T:
            for embedded in self.embedding(glimpses.patches, glimpses.cells).unbind(1):
                states.append(self.core(embedded, states[-1]))
        return torch.stack(states, dim=1)


def _gru(
    arriving: Float[Tensor, "Q gates"], recalled: Float[Tensor, "Q gates"], h: Float[Tensor, "Q h"]
) -> Float[Tensor, "Q h"]:
    """One step of `nn.GRUCell` whose recurrent product is shared by all candidates of an image."""
    reset_in, update_in, new_in = arriving.chunk(3, dim=-1)
    reset_h, update_h, new_h = recalled.chunk(3, dim=-1)
    reset, update = (reset_in + reset_h).sigmoid(), (update_in + update_h).sigmoid()
    return torch.lerp((new_in + reset * new_h).tanh(), h, update)
