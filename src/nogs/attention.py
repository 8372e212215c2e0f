"""The hard attention network: look, remember, classify, and decide where to look next.

For t = 1..T (Mnih et al. 2014; *Near-Optimal Glimpse Sequences*, section 2): the location network maps
h_t-1 to q(l_t | h_t-1) over the grid's cells, the glimpse y_t = fovea(x, l_t) is embedded with its location,
a GRU updates h_t, and the classifier maps h_t to q(θ | y_1:t, l_1:t). Location and baseline heads read a
detached state: their losses never steer what is remembered. There is a prediction at every t, so the network
can stop at any.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor, nn

from nogs.embedding import GlimpseEmbedding, convolutional
from nogs.glimpses import Grid, fovea
from nogs.objectives import Rollout

Chooser = Callable[[Float[Tensor, "B L"], int], Int[Tensor, " B"]]
"""(location logits, t) → the cell each image is looked at; t counts from 0."""


class HardAttention(nn.Module):
    """Glimpse embedding, GRU core, and heads for class, location and baseline."""

    def __init__(self, grid: Grid, *, channels: int, classes: int, hidden: int = 64) -> None:
        super().__init__()
        self.grid = grid
        what = convolutional(grid, channels * grid.scales, width=64)
        self.embedding = GlimpseEmbedding(grid, what, width=64)
        self.core = nn.GRUCell(64, hidden)
        self.classifier = nn.Linear(hidden, classes)
        self.locator = nn.Sequential(nn.Linear(hidden, 32), nn.ReLU(), nn.Linear(32, len(grid)))
        self.baseline = nn.Linear(hidden, 1)

    def forward(
        self,
        images: UInt8[Tensor, "N c H H"],
        rows: Int[Tensor, " B"] | None = None,
        *,
        glimpses: int,
        choose: Chooser,
    ) -> Rollout:
        """Look at each image (or those of ``rows``) ``glimpses`` times, where ``choose`` says."""
        B = len(images) if rows is None else len(rows)
        h = torch.zeros(B, self.core.hidden_size, device=images.device)
        steps: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for t in range(glimpses):
            seen = h.detach()
            where = self.locator(seen)
            baseline = self.baseline(seen)[:, 0]
            cells = choose(where, t)
            patches = fovea(images, self.grid, self.grid.top_left_px(cells)[:, None], rows)[:, 0]
            h = self.core(self.embedding(patches, cells), h)
            steps.append((cells, where, baseline, self.classifier(h)))
        return Rollout(*(torch.stack(column, dim=1) for column in zip(*steps, strict=True)))


def greedy(logits: Float[Tensor, "B L"], t: int) -> Int[Tensor, " B"]:
    """Look at the likeliest cell."""
    return logits.argmax(-1)


def sampling(generator: Generator) -> Chooser:
    """Draw the cell from q(l_t | h_t-1), by the inverse of its cumulative distribution.

    One random number an image: at 961 cells a twelfth of the cost of `multinomial`, or of `Categorical`,
    which draw one a cell.
    """

    def choose(logits: Tensor, t: int) -> Tensor:
        cumulative = logits.detach().softmax(-1).cumsum(-1)
        # The sum may miss 1 by a rounding: the draw is scaled to it, and stays within the grid.
        draw = torch.rand(len(logits), 1, generator=generator, device=logits.device) * cumulative[:, -1:]
        return torch.searchsorted(cumulative, draw, right=True)[:, 0].clamp_max(logits.shape[1] - 1)

    return choose


def following(cells: Int[Tensor, "B T"], otherwise: Chooser) -> Chooser:
    """Look where ``cells`` say; images whose cell is negative look where ``otherwise`` says."""

    def choose(logits: Tensor, t: int) -> Tensor:
        given = cells[:, t]
        return torch.where(given < 0, otherwise(logits, t), given)

    return choose
