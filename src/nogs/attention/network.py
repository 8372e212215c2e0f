"""The hard attention network: glimpse embedding, core, and heads for class, location and baseline.

For t = 1..T (Mnih et al. 2014; *Near-Optimal Glimpse Sequences*, section 2): the location head maps h_t-1 to
q(l_t | h_t-1) over the grid's cells, the glimpse y_t = fovea(x, l_t) is embedded with its location, a GRU updates
h_t, and the classifier maps h_t to q(θ | y_1:t, l_1:t). There is a prediction at every t, so the network can stop
at any. The location and baseline heads read a detached state: their losses do not train embedding and core.

With ``core="attention"`` h_t is computed from all glimpses so far by self-attention (`nogs.attention.core`).

With an overview, a reduced view of the whole image is glimpse 0: the core reads it first, and the location head
convolves over it (`nogs.attention.overview`).

The location head runs once per step because its logits both choose and train; the other heads run once for all
steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from nogs.attention.choosers import Chooser
from nogs.attention.core import AttentionCore
from nogs.attention.overview import LocationMap, Overview, Scene
from nogs.config.groups import Core
from nogs.data.pixels import Pixels, overview
from nogs.glimpses.embedding import GlimpseEmbedding, convolutional
from nogs.glimpses.fovea import Glimpses, look
from nogs.glimpses.grid import Grid


class State(NamedTuple):
    """The state of B images: h_t, the scene if the network has an overview, and what the core remembers beside h_t.

    ``memory``: the t embedded glimpses, of a core that reads all of them; None for a recurrent one.
    """

    h: Float[Tensor, "B h"]
    scene: Scene | None = None
    memory: Float[Tensor, "B t e"] | None = None

    def select(self, images: Bool[Tensor, " B"] | Int[Tensor, " n"]) -> State:
        """Return the state of some of the images, by mask or by index."""
        scene, memory = self.scene, self.memory
        return State(
            self.h[images],
            None if scene is None else scene.select(images),
            None if memory is None else memory[images],
        )


Locator = Callable[[State], Float[Tensor, "B L"]]
"""The state before glimpse t → logits over its cells."""


class Step(NamedTuple):
    """One glimpse of B images: its cells, the logits they were chosen by, and the state after it."""

    cells: Int[Tensor, " B"]
    location_logits: Float[Tensor, "B L"]
    state: State

    @property
    def states(self) -> Float[Tensor, "B h"]:
        """The hidden states h_t after the glimpse."""
        return self.state.h


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
    """Glimpse embedding, core, and heads for class, location and baseline.

    ``overview_px``: side length of the overview; 0: none, and the location head is a perceptron on the state.
    ``core``: gru, or attention over all glimpses.
    """

    def __init__(
        self, grid: Grid, *, channels: int, classes: int, hidden: int = 64, overview_px: int = 0, core: Core = "gru"
    ) -> None:
        super().__init__()
        self.grid = grid
        self.overview = Overview(grid, overview_px, channels=channels, width=64) if overview_px else None
        what = convolutional(grid, channels * grid.scales, width=64)
        self.embedding = GlimpseEmbedding(grid, what, width=64)
        self.core = AttentionCore(64, hidden) if core == "attention" else nn.GRUCell(64, hidden)
        self.classifier = nn.Linear(hidden, classes)
        self.locator = (
            LocationMap(grid, overview_px, hidden=hidden)
            if overview_px
            else nn.Sequential(nn.Linear(hidden, 32), nn.ReLU(), nn.Linear(32, len(grid)))
        )
        self.baseline = nn.Linear(hidden, 1)

    def forward(
        self,
        images: Pixels,
        rows: Int[Tensor, " B"] | None = None,
        *,
        glimpses: int,
        choose: Chooser,
    ) -> Rollout:
        """Run on ``images`` at the cells that ``choose`` returns. ``rows``: indices of the images (default: all)."""
        rows = torch.arange(len(images), device=images.device) if rows is None else rows
        begin = self.begin(images, rows)
        steps = self.unroll(images, rows, begin=begin, glimpses=glimpses, choose=choose)
        cells, states, log_policy = stack_trajectory(steps)
        return self.outputs(cells, states, log_policy, begin)

    def begin(self, images: Pixels, rows: Int[Tensor, " B"]) -> State:
        """Return the state of the images ``rows`` before glimpse 1: of nothing, or what the overview shows."""
        if self.overview is None:
            return self.of_nothing(len(rows), images.device)
        return self.after_overview(overview(images, rows, self.overview.side_px))

    def of_nothing(self, images: int, device: torch.device) -> State:
        """Return the state of so many images of which nothing was seen: zero, or what attention gives of no glimpse."""
        if isinstance(self.core, nn.GRUCell):
            return State(torch.zeros(images, self.core.hidden_size, device=device))
        memory = torch.zeros(images, 0, self.core.width, device=device)
        return State(self.core(memory), memory=memory)

    def read(self, state: State, embedded: Float[Tensor, "B e"]) -> State:
        """Return the state after an embedded glimpse. The scene stays as it was."""
        if state.memory is None:
            return state._replace(h=self.core(embedded, state.h))
        memory = torch.cat((state.memory, embedded[:, None]), dim=1)
        return state._replace(h=self.core(memory), memory=memory)

    def after_overview(self, pixels: UInt8[Tensor, "B c v v"]) -> State:
        """Return the state after glimpse 0, the overview ``pixels``, of a network that has one."""
        if self.overview is None or not isinstance(self.locator, LocationMap):
            raise ValueError("this network has no overview")
        embedded, features = self.overview(pixels)
        scene = Scene(self.locator.placed(features), torch.zeros_like(features[:, 0]))
        return self.read(self.of_nothing(pixels.shape[0], pixels.device), embedded)._replace(scene=scene)

    def location_logits(self, h: Float[Tensor, "*batch h"], scene: Scene | None = None) -> Float[Tensor, "*batch L"]:
        """Return the logits over the cells of the next glimpse; no gradient flows into the state ``h``."""
        return self.locator(h.detach()) if scene is None else self.locator(h.detach(), scene)

    def unroll(
        self,
        images: Pixels,
        rows: Int[Tensor, " B"],
        *,
        glimpses: int,
        choose: Chooser,
        locate: Locator | None = None,
        begin: State | None = None,
    ) -> Iterator[Step]:
        """Yield the ``glimpses`` steps of the images ``rows``, from the state ``begin`` (default: of `begin`).

        ``choose`` gets the logits of the location head, or of ``locate`` if it is given. A step's logits are freed
        before the next step, unless the caller keeps them: over many cells they would not fit into the cache.
        """
        state = self.begin(images, rows) if begin is None else begin
        for t in range(glimpses):
            step = self.step(images, rows, state=state, t=t, choose=choose, locate=locate)
            state = step.state
            yield step
            del step

    def step(
        self,
        images: Pixels,
        rows: Int[Tensor, " B"],
        *,
        state: State,
        t: int,
        choose: Chooser,
        locate: Locator | None = None,
    ) -> Step:
        """Take one glimpse of the images ``rows``, whose state is ``state``; t counts from 0."""
        logits = locate(state) if locate else self.location_logits(state.h, state.scene)
        cells = choose(logits, t)
        patches = look(images, self.grid, cells[:, None], rows).patches[:, 0]
        return Step(cells, logits, self.after(state, self.embedding(patches, cells), cells))

    def after(self, state: State, embedded: Float[Tensor, "B e"], cells: Int[Tensor, " B"]) -> State:
        """Return the state after glimpses at ``cells``, which the embedding maps to ``embedded``."""
        state = self.read(state, embedded)
        if self.overview is None or state.scene is None:
            return state
        seen = state.scene.seen.maximum(self.overview.glimpsed(cells))
        return state._replace(scene=Scene(state.scene.features, seen))

    def encode(self, glimpses: Glimpses, begin: State) -> Float[Tensor, "B T h"]:
        """Return the hidden states h_t after each of the given glimpses, from the state ``begin``."""
        states, state = [], begin
        for embedded in self.embedding(glimpses.patches, glimpses.cells).unbind(1):
            state = self.read(state, embedded)
            states.append(state.h)
        return torch.stack(states, dim=1)

    def after_all(self, state: State, glimpses: Glimpses) -> Float[Tensor, "B h"]:
        """Return the hidden state after all of the given glimpses, from ``state``."""
        if isinstance(self.core, nn.GRUCell) or state.memory is None:
            return self.encode(glimpses, state)[:, -1]
        h: Tensor = self.core(torch.cat((state.memory, self.embedding(glimpses.patches, glimpses.cells)), dim=1))
        return h

    def rollout(self, cells: Int[Tensor, "B T"], states: Float[Tensor, "B T h"], begin: State) -> Rollout:
        """Return the output of every head for the hidden ``states`` after glimpses at any ``cells``."""
        return self.outputs(cells, states, location_log_probs(cells, self.logits_along(cells, states, begin)), begin)

    def logits_along(
        self, cells: Int[Tensor, "B T"], states: Float[Tensor, "B T h"], begin: State
    ) -> Float[Tensor, "B T L"]:
        """Return the location logits before each glimpse at ``cells``, whose hidden states are ``states``."""
        earlier = previous_states(states, begin.h)
        if self.overview is None or begin.scene is None:
            return self.location_logits(earlier)
        seen = F.pad(self.overview.glimpsed(cells)[:, :-1], (0, 0, 0, 0, 1, 0)).cummax(1).values
        return self.location_logits(earlier, Scene(begin.scene.features[:, None], seen))

    def outputs(
        self, cells: Int[Tensor, "B T"], states: Float[Tensor, "B T h"], log_policy: Float[Tensor, "B T"], begin: State
    ) -> Rollout:
        """Return the output of every head, of which ``log_policy`` of the location head is known."""
        baselines = self.baseline(previous_states(states, begin.h))[..., 0]
        return Rollout(cells, log_policy, baselines, self.classifier(states), states)


def location_log_probs(
    cells: Int[Tensor, "*batch"], location_logits: Float[Tensor, "*batch L"]
) -> Float[Tensor, "*batch"]:
    """Return the log-probability of each cell under its logits.

    Computed as a cross-entropy: its gradient takes one pass over the cells, where gather and logsumexp take four.
    """
    surprise = F.cross_entropy(location_logits.flatten(0, -2), cells.flatten(), reduction="none")
    return -surprise.view_as(cells)


def previous_states(states: Float[Tensor, "B T h"], first: Float[Tensor, "B h"]) -> Float[Tensor, "B T h"]:
    """Return h_t-1, detached, for every h_t: the input of the location and baseline heads. ``first`` is h_0."""
    return torch.cat((first[:, None], states[:, :-1]), dim=1).detach()


def stack_states(steps: Iterable[Step]) -> tuple[Int[Tensor, "B T"], Float[Tensor, "B T h"]]:
    """Return the cells and the hidden states of T steps."""
    cells, states = zip(*map(attrgetter("cells", "states"), steps), strict=True)
    return torch.stack(cells, dim=1), torch.stack(states, dim=1)


def stack_trajectory(steps: Iterable[Step]) -> Trajectory:
    """Return cells, hidden states and log-probabilities of T steps, the latter under the logits of each step."""

    def reduced(step: Step) -> tuple[Tensor, Tensor, Tensor]:
        return step.cells, step.states, location_log_probs(step.cells, step.location_logits)

    return Trajectory(*(torch.stack(column, dim=1) for column in zip(*map(reduced, steps), strict=True)))
