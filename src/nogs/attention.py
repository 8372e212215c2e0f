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

import math
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from nogs.embedding import GlimpseEmbedding, convolutional
from nogs.glimpses import Glimpses, Grid, fovea
from nogs.information import entropy
from nogs.methods import Method
from nogs.objectives import Rollout, location_log_probs
from nogs.stopping import best_rate

Chooser = Callable[[Float[Tensor, "B L"], int], Int[Tensor, " B"]]
"""(location logits, t) → the cell each image is looked at; t counts from 0."""

Locator = Callable[[Float[Tensor, "B h"]], Float[Tensor, "B L"]]
"""h_t-1 → logits of where to look next."""

HEAD_WIDTH = 32

BELOW_ONE = 1 - torch.finfo(torch.float32).eps
"""The largest factor that leaves a number in single precision smaller than it was."""


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


def greedy(logits: Float[Tensor, "B L"], t: int) -> Int[Tensor, " B"]:
    """Look at the likeliest cell."""
    return logits.argmax(-1)


def sampling(generator: Generator) -> Chooser:
    """Draw the cell from q(l_t | h_t-1): its row of the grid, then its place in the row, each by inverse cumulation.

    One random number an image, of which what is left within the row is uniform there: at 961 cells a twelfth of the
    cost of `multinomial`, or of `Categorical`, which draw one a cell.
    """

    def choose(logits: Tensor, t: int) -> Tensor:
        side = math.isqrt(logits.shape[1])
        probs = logits.detach().softmax(-1).unflatten(1, (side, side))
        rows = probs.sum(-1).cumsum(-1)
        # Sums may miss 1 by a rounding: the draw is scaled to them, and stays below, where there is a likely cell.
        draw = torch.rand(len(logits), 1, generator=generator, device=logits.device) * rows[:, -1:] * BELOW_ONE
        row = torch.searchsorted(rows, draw, right=True)
        cells = probs.take_along_dim(row[..., None], dim=1)[:, 0].cumsum(-1)
        left = draw - F.pad(rows, (1, 0)).gather(1, row)
        column = torch.searchsorted(cells, left.minimum(cells[:, -1:] * BELOW_ONE), right=True)
        return (row * side + column)[:, 0]

    return choose


def following(cells: Int[Tensor, "B T"], otherwise: Chooser) -> Chooser:
    """Look where ``cells`` say; images whose cell is negative look where ``otherwise`` says."""

    def choose(logits: Tensor, t: int) -> Tensor:
        given = cells[:, t]
        return torch.where(given < 0, otherwise(logits, t), given)

    return choose


def anywhere(locations: int, generator: Generator) -> Chooser:
    """Look at a cell drawn uniformly: the control that says what choosing is worth."""

    def choose(logits: Tensor, t: int) -> Tensor:
        return torch.randint(locations, (len(logits),), generator=generator, device=logits.device)

    return choose


def at(cell: int) -> Chooser:
    """Always look at this cell: the control that says what moving is worth."""

    def choose(logits: Tensor, t: int) -> Tensor:
        return logits.new_full((len(logits),), cell, dtype=torch.long)

    return choose


def chooser(method: Method, grid: Grid, *, generator: Generator, policy: Chooser = greedy) -> Chooser:
    """How a method looks, in training and in test: as ``policy`` says, or where its row has it look instead."""
    if method.looks == "random":
        return anywhere(len(grid), generator)
    if method.looks == "centre":
        from_centre = grid.centres(torch.arange(len(grid))).square().sum(-1)
        return at(int(from_centre.argmin()))
    return policy


class Expected(NamedTuple):
    """What the stopping heads say after t glimpses: the gain a glimpse to come, and logits of halting for K costs."""

    entropy_gain: Float[Tensor, "B T-1"]
    accuracy_gain: Float[Tensor, "B T-1"]
    act_logits: Float[Tensor, "B T K"]
    stop_logits: Float[Tensor, "B T K"]


class StoppingHeads(nn.Module):
    """A small perceptron for each rule of `nogs.stopping`, on what a frozen network says after t glimpses.

    Each is given H[q_t] and max_θ q_t(θ), apart for each t: what the network says, where the poster's heads read
    what it remembers. h_t made every head worse on other images than those it had learned from (docs/log.md).
    The heads of expected gain have an output for each number of further glimpses; the halting heads of ACT and of
    the stochastic rule one for each of the costs that they are trained for.
    """

    def __init__(self, *, glimpses: int, costs: int) -> None:
        super().__init__()
        self.glimpses = glimpses
        told = 3 * glimpses
        self.entropy_gain = _perceptron(told, glimpses - 1)
        self.accuracy_gain = _perceptron(told, glimpses - 1)
        self.act = _perceptron(told, costs)
        self.stochastic = _perceptron(told, costs)

    @property
    def macs(self) -> int:
        """Multiply-adds of asking a head of expected gain once, which a halting head, for one cost, stays under."""
        return (3 * self.glimpses + self.glimpses - 1) * HEAD_WIDTH

    def features(self, class_logits: Float[Tensor, "*batch C"], t: Int[Tensor, "*#batch"]) -> Float[Tensor, "*batch f"]:
        """What the heads read; t counts from 1."""
        log_probs = class_logits.detach().log_softmax(-1)
        confidence = log_probs.amax(-1).exp()
        said = torch.stack((torch.ones_like(confidence), entropy(log_probs), confidence), dim=-1)
        when = F.one_hot(t - 1, self.glimpses)
        return (when[..., None] * said[..., None, :]).flatten(-2)

    def forward(self, class_logits: Float[Tensor, "B T C"]) -> Expected:
        """Ask every head."""
        t = torch.arange(1, self.glimpses + 1, device=class_logits.device)
        told = self.features(class_logits, t)
        entropy_gain, accuracy_gain = (
            best_rate(head(told[:, :-1]), self.glimpses - t[:-1]) for head in (self.entropy_gain, self.accuracy_gain)
        )
        return Expected(entropy_gain, accuracy_gain, self.act(told), self.stochastic(told))


def _perceptron(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, HEAD_WIDTH), nn.ReLU(), nn.Linear(HEAD_WIDTH, outputs))


Stop = Callable[[Float[Tensor, "B C"], int], Bool[Tensor, " B"]]
"""(class logits, t) → which images have been looked at enough; t counts from 1."""


def never(class_logits: Float[Tensor, "B C"], t: int) -> Bool[Tensor, " B"]:
    """Look as often as one may."""
    return torch.zeros(len(class_logits), dtype=torch.bool, device=class_logits.device)


def expecting_less(heads: StoppingHeads, threshold_nats: float) -> Stop:
    """Stop where the predicted entropy gain a glimpse is under the threshold."""

    def stop(class_logits: Tensor, t: int) -> Tensor:
        now = torch.tensor(t, device=class_logits.device)
        return best_rate(heads.entropy_gain(heads.features(class_logits, now)), heads.glimpses - now) < threshold_nats

    return stop


class Answers(NamedTuple):
    """What was said of B images after as many steps as each needed; cells are -1 after the last."""

    cells: Int[Tensor, "B T"]
    class_logits: Float[Tensor, "B C"]
    steps: Int[Tensor, " B"]


def classify(
    network: HardAttention, images: UInt8[Tensor, "B c H H"], *, glimpses: int, choose: Chooser, stop: Stop
) -> Answers:
    """Look at each image until ``stop`` says so, at most ``glimpses`` times: what has stopped leaves the batch.

    ``choose`` is asked about the images that are left, so it may go by their logits alone.
    """
    B, device = len(images), images.device
    left = torch.arange(B, device=device)
    cells = torch.full((B, glimpses), -1, device=device)
    said = torch.empty(B, network.classifier.out_features, device=device)
    steps = torch.full((B,), glimpses, device=device)
    h = torch.zeros(B, network.core.hidden_size, device=device)
    for t in range(1, glimpses + 1):
        step = network.step(images, left, h=h, t=t - 1, choose=choose)
        cells[left, t - 1] = step.cells
        said[left] = class_logits = network.classifier(step.states)
        if t == glimpses:
            break
        done = stop(class_logits, t)
        steps[left[done]] = t
        left, h = left[~done], step.states[~done]
        if not len(left):
            break
    return Answers(cells, said, steps)
