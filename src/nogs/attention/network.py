"""The hard attention network: look, remember, classify, and decide where to look next.

For t = 1..T (Mnih et al. 2014; *Near-Optimal Glimpse Sequences*, section 2): the location network maps
h_t-1 to q(l_t | h_t-1) over the grid's cells, the glimpse y_t = fovea(x, l_t) is embedded with its location,
a GRU updates h_t, and the classifier maps h_t to q(θ | y_1:t, l_1:t). Location and baseline heads read a
detached state: their losses never steer what is remembered. There is a prediction at every t, so the network
can stop at any.

The location head is asked once a glimpse, for what chooses the cell is also what learns from it; the others, which
choose nothing, are asked for all t at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from nogs.attention.choosers import Chooser
from nogs.attention.objectives import Rollout, location_log_probs
from nogs.glimpses.embedding import GlimpseEmbedding, convolutional
from nogs.glimpses.fovea import Glimpses, fovea
from nogs.glimpses.grid import Grid

Locator = Callable[[Float[Tensor, "B h"]], Float[Tensor, "B L"]]
"""h_t-1 → logits of where to look next."""


class Step(NamedTuple):
    """One glimpse of B images: where they were looked at, by which logits, and what is remembered after it."""

    cells: Int[Tensor, " B"]
    location_logits: Float[Tensor, "B L"]
    states: Float[Tensor, "B h"]


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
        rows = torch.arange(len(images), device=images.device) if rows is None else rows
        return self._rollout(*chosen(self.run(images, rows, glimpses=glimpses, choose=choose)))

    def run(
        self,
        images: UInt8[Tensor, "N c H H"],
        rows: Int[Tensor, " B"],
        *,
        glimpses: int,
        choose: Chooser,
        locate: Locator | None = None,
    ) -> Iterator[Step]:
        """Look ``glimpses`` times at the images ``rows``, where ``choose`` says of q(l_t | h_t-1), or of ``locate``.

        Logits over many cells are large: what is not needed of a step is freed before the next, while it is in cache.
        """
        h = torch.zeros(len(rows), self.core.hidden_size, device=images.device)
        for t in range(glimpses):
            step = self.step(images, rows, h=h, t=t, choose=choose, locate=locate)
            h = step.states
            yield step
            del step

    def step(
        self,
        images: UInt8[Tensor, "N c H H"],
        rows: Int[Tensor, " B"],
        *,
        h: Float[Tensor, "B h"],
        t: int,
        choose: Chooser,
        locate: Locator | None = None,
    ) -> Step:
        """Look once more at the images ``rows``, which are remembered as ``h``; t counts from 0."""
        where = (locate or self.locator)(h.detach())
        cells = choose(where, t)
        patches = fovea(images, self.grid, self.grid.top_left_px(cells)[:, None], rows)[:, 0]
        return Step(cells, where, self.core(self.embedding(patches, cells), h))

    def remember(self, seen: Glimpses) -> Float[Tensor, "B T h"]:
        """h_t after each of these glimpses."""
        states = [torch.zeros(len(seen.cells), self.core.hidden_size, device=seen.cells.device)]
        for embedded in self.embedding(seen.patches, seen.cells).unbind(1):
            states.append(self.core(embedded, states[-1]))
        return torch.stack(states[1:], dim=1)

    def say(self, cells: Int[Tensor, "B T"], states: Float[Tensor, "B T h"]) -> Rollout:
        """What every head says where ``cells``, whoever chose them, were looked at and ``states`` remembered."""
        return self._rollout(cells, states, location_log_probs(cells, self.locator(before(states))))

    def _rollout(self, cells: Tensor, states: Tensor, log_policy: Tensor) -> Rollout:
        return Rollout(cells, log_policy, self.baseline(before(states))[..., 0], self.classifier(states), states)


def visited(steps: Iterable[Step]) -> tuple[Int[Tensor, "B T"], Float[Tensor, "B T h"]]:
    """Where was looked, and what was remembered after it."""
    cells, states = zip(*map(attrgetter("cells", "states"), steps), strict=True)
    return torch.stack(cells, dim=1), torch.stack(states, dim=1)


def chosen(steps: Iterable[Step]) -> tuple[Int[Tensor, "B T"], Float[Tensor, "B T h"], Float[Tensor, "B T"]]:
    """The same, and the log-probability of each cell under the logits by which it was chosen."""

    def kept(step: Step) -> tuple[Tensor, Tensor, Tensor]:
        return step.cells, step.states, location_log_probs(step.cells, step.location_logits)

    cells, states, log_probs = zip(*map(kept, steps), strict=True)
    return torch.stack(cells, dim=1), torch.stack(states, dim=1), torch.stack(log_probs, dim=1)


def before(states: Float[Tensor, "B T h"]) -> Float[Tensor, "B T h"]:
    """h_t-1, detached, of every h_t: all that the heads of location and baseline read."""
    return F.pad(states.detach()[:, :-1], (0, 0, 1, 0))
