"""The hard attention network: glimpse embedding, recurrent core, and heads for class, location and baseline.

For t = 1..T (Mnih et al. 2014; *Near-Optimal Glimpse Sequences*, section 2): the location head maps h_t-1 to
q(l_t | h_t-1) over the grid's cells, the glimpse y_t = fovea(x, l_t) is embedded with its location, a GRU updates
h_t, and the classifier maps h_t to q(θ | y_1:t, l_1:t). There is a prediction at every t, so the network can stop
at any. The location and baseline heads read a detached state: their losses do not train embedding and core.

The location head runs once per step because its logits both choose and train; the other heads run once for all
steps.
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
from nogs.glimpses.embedding import GlimpseEmbedding, convolutional
from nogs.glimpses.fovea import Glimpses, fovea
from nogs.glimpses.grid import Grid

Locator = Callable[[Float[Tensor, "B h"]], Float[Tensor, "B L"]]
"""h_t-1 → logits over the cells of glimpse t."""


class Step(NamedTuple):
    """One glimpse of B images: its cells, the logits they were chosen by, and the hidden states h_t after it."""

    cells: Int[Tensor, " B"]
    location_logits: Float[Tensor, "B L"]
    states: Float[Tensor, "B h"]


class Trajectory(NamedTuple):
    """T glimpses of B images: cells, hidden states h_t, and log-probabilities of the cells when they were chosen."""

    cells: Int[Tensor, "B T"]
    states: Float[Tensor, "B T h"]
    log_probs: Float[Tensor, "B T"]


class Rollout(NamedTuple):
    """T glimpses of B images and the output of every head; index t - 1 holds glimpse t and the outputs after it."""

    cells: Int[Tensor, "B T"]
    log_policy: Float[Tensor, "B T"]
    """log q(l_t | h_t-1) of ``cells``."""
    baselines: Float[Tensor, "B T"]
    """Predicted reward, from h_t-1."""
    class_logits: Float[Tensor, "B T C"]
    states: Float[Tensor, "B T h"]
    """Hidden states h_t."""


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
        """Run on ``images`` at the cells that ``choose`` returns. ``rows``: indices of the images (default: all)."""
        rows = torch.arange(len(images), device=images.device) if rows is None else rows
        cells, states, log_policy = stack_trajectory(self.unroll(images, rows, glimpses=glimpses, choose=choose))
        return self._rollout(cells, states, log_policy)

    def unroll(
        self,
        images: UInt8[Tensor, "N c H H"],
        rows: Int[Tensor, " B"],
        *,
        glimpses: int,
        choose: Chooser,
        locate: Locator | None = None,
    ) -> Iterator[Step]:
        """Yield the ``glimpses`` steps of the images ``rows``.

        ``choose`` gets the logits of the location head, or of ``locate`` if it is given. A step's logits are freed
        before the next step, unless the caller keeps them: over many cells they would not fit into the cache.
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
        """Take one glimpse of the images ``rows``, whose hidden states are ``h``; t counts from 0."""
        logits = (locate or self.locator)(h.detach())
        cells = choose(logits, t)
        patches = fovea(images, self.grid, self.grid.top_left_px(cells)[:, None], rows)[:, 0]
        return Step(cells, logits, self.core(self.embedding(patches, cells), h))

    def encode(self, glimpses: Glimpses) -> Float[Tensor, "B T h"]:
        """Return the hidden states h_t after each of the given glimpses."""
        states = [torch.zeros(len(glimpses.cells), self.core.hidden_size, device=glimpses.cells.device)]
        for embedded in self.embedding(glimpses.patches, glimpses.cells).unbind(1):
            states.append(self.core(embedded, states[-1]))
        return torch.stack(states[1:], dim=1)

    def rollout(self, cells: Int[Tensor, "B T"], states: Float[Tensor, "B T h"]) -> Rollout:
        """Return the output of every head for the hidden ``states`` after glimpses at ``cells``, whoever chose them."""
        return self._rollout(cells, states, location_log_probs(cells, self.locator(previous_states(states))))

    def _rollout(self, cells: Tensor, states: Tensor, log_policy: Tensor) -> Rollout:
        baselines = self.baseline(previous_states(states))[..., 0]
        return Rollout(cells, log_policy, baselines, self.classifier(states), states)


def location_log_probs(
    cells: Int[Tensor, "*batch"], location_logits: Float[Tensor, "*batch L"]
) -> Float[Tensor, "*batch"]:
    """Return the log-probability of each cell under its logits.

    Computed as a cross-entropy: its gradient takes one pass over the cells, where gather and logsumexp take four.
    """
    surprise = F.cross_entropy(location_logits.flatten(0, -2), cells.flatten(), reduction="none")
    return -surprise.view_as(cells)


def previous_states(states: Float[Tensor, "B T h"]) -> Float[Tensor, "B T h"]:
    """Return h_t-1, detached, for every h_t: the input of the location and baseline heads. h_0 is zero."""
    return F.pad(states.detach()[:, :-1], (0, 0, 1, 0))


def stack_states(steps: Iterable[Step]) -> tuple[Int[Tensor, "B T"], Float[Tensor, "B T h"]]:
    """Return the cells and the hidden states of T steps."""
    cells, states = zip(*map(attrgetter("cells", "states"), steps), strict=True)
    return torch.stack(cells, dim=1), torch.stack(states, dim=1)


def stack_trajectory(steps: Iterable[Step]) -> Trajectory:
    """Return cells, hidden states and log-probabilities of T steps, the latter under the logits of each step."""

    def reduced(step: Step) -> tuple[Tensor, Tensor, Tensor]:
        return step.cells, step.states, location_log_probs(step.cells, step.location_logits)

    return Trajectory(*(torch.stack(column, dim=1) for column in zip(*map(reduced, steps), strict=True)))
