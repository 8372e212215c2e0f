"""The hard attention network: look, remember, classify, and decide where to look next.

For t = 1..T (Mnih et al. 2014; *Near-Optimal Glimpse Sequences*, section 2): the location network maps
h_t-1 to q(l_t | h_t-1) over the grid's cells, the glimpse y_t = fovea(x, l_t) is embedded with its location,
a GRU updates h_t, and the classifier maps h_t to q(θ | y_1:t, l_1:t). Location and baseline heads read a
detached state: their losses never steer what is remembered. There is a prediction at every t, so the network
can stop at any.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Generator, Tensor, nn

from nogs.embedding import GlimpseEmbedding, convolutional
from nogs.glimpses import Grid, fovea
from nogs.information import entropy
from nogs.methods import Method
from nogs.objectives import Rollout

Chooser = Callable[[Float[Tensor, "B L"], int], Int[Tensor, " B"]]
"""(location logits, t) → the cell each image is looked at; t counts from 0."""

HEAD_WIDTH = 32


class Step(NamedTuple):
    """One glimpse of B images: the fields of a `Rollout`, without t."""

    cells: Int[Tensor, " B"]
    location_logits: Float[Tensor, "B L"]
    baselines: Float[Tensor, " B"]
    class_logits: Float[Tensor, "B C"]
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
        h = torch.zeros(len(rows), self.core.hidden_size, device=images.device)
        steps: list[Step] = []
        for t in range(glimpses):
            steps.append(self.step(images, rows, h=h, t=t, choose=choose))
            h = steps[-1].states
        return Rollout(*(torch.stack(column, dim=1) for column in zip(*steps, strict=True)))

    def step(
        self,
        images: UInt8[Tensor, "N c H H"],
        rows: Int[Tensor, " B"],
        *,
        h: Float[Tensor, "B h"],
        t: int,
        choose: Chooser,
    ) -> Step:
        """Look once more at the images ``rows``, which are remembered as ``h``; t counts from 0."""
        seen = h.detach()
        where = self.locator(seen)
        cells = choose(where, t)
        patches = fovea(images, self.grid, self.grid.top_left_px(cells)[:, None], rows)[:, 0]
        h = self.core(self.embedding(patches, cells), h)
        return Step(cells, where, self.baseline(seen)[:, 0], self.classifier(h), h)


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
    """What the stopping heads say: gains of the glimpse after each of t = 1..T-1; logits of halting, for K costs."""

    entropy_gain: Float[Tensor, "B T-1"]
    accuracy_gain: Float[Tensor, "B T-1"]
    act_logits: Float[Tensor, "B T K"]
    stop_logits: Float[Tensor, "B T K"]


class StoppingHeads(nn.Module):
    """A small perceptron for each rule of `nogs.stopping`, on what a frozen network has in mind after t glimpses.

    It is given h_t, t / T and H[q_t]. The halting heads of ACT and of the stochastic rule have an output for
    each of the costs that they are trained for.
    """

    def __init__(self, *, hidden: int, glimpses: int, costs: int) -> None:
        super().__init__()
        self.hidden, self.glimpses = hidden, glimpses
        self.entropy_gain = _perceptron(hidden + 2, 1)
        self.accuracy_gain = _perceptron(hidden + 2, 1)
        self.act = _perceptron(hidden + 2, costs)
        self.stochastic = _perceptron(hidden + 2, costs)

    @property
    def macs(self) -> int:
        """Multiply-adds of asking one head once, as it is used: for one cost."""
        return (self.hidden + 3) * HEAD_WIDTH

    def features(
        self, states: Float[Tensor, "*batch h"], class_logits: Float[Tensor, "*batch C"], t: Int[Tensor, "*#batch"]
    ) -> Float[Tensor, "*batch f"]:
        """What the heads read; t counts from 1."""
        doubt = entropy(class_logits.log_softmax(-1))
        when = (t / self.glimpses).expand_as(doubt)
        return torch.cat((states, when[..., None], doubt[..., None]), dim=-1).detach()

    def forward(self, states: Float[Tensor, "B T h"], class_logits: Float[Tensor, "B T C"]) -> Expected:
        """Ask every head."""
        told = self.features(states, class_logits, torch.arange(1, states.shape[1] + 1, device=states.device))
        entropy_gain, accuracy_gain = self.entropy_gain(told)[:, :-1, 0], self.accuracy_gain(told)[:, :-1, 0]
        return Expected(entropy_gain, accuracy_gain, self.act(told), self.stochastic(told))


def _perceptron(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, HEAD_WIDTH), nn.ReLU(), nn.Linear(HEAD_WIDTH, outputs))


Stop = Callable[[Step, int], Bool[Tensor, " B"]]
"""(the last glimpse, t) → which images have been looked at enough; t counts from 1."""


def never(step: Step, t: int) -> Bool[Tensor, " B"]:
    """Look as often as one may."""
    return torch.zeros_like(step.cells, dtype=torch.bool)


def expecting_less(heads: StoppingHeads, threshold_nats: float) -> Stop:
    """Stop where the predicted entropy gain of the next glimpse is under the threshold."""

    def stop(step: Step, t: int) -> Tensor:
        told = heads.features(step.states, step.class_logits, torch.tensor(t, device=step.states.device))
        return heads.entropy_gain(told)[..., 0] < threshold_nats

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
        said[left] = step.class_logits
        if t == glimpses:
            break
        done = stop(step, t)
        steps[left[done]] = t
        left, h = left[~done], step.states[~done]
        if not len(left):
            break
    return Answers(cells, said, steps)
