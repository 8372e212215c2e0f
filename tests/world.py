"""A world small enough to enumerate: a few tiny images with labels, where p(θ | glimpses) is a sum.

`World` follows the definitions with plain Python loops and floats (float64) and shares no code with `nogs`, so that it
is an oracle for it. An *atom* is one (image, label) of the world. Two atoms may have the same image and different
labels, so that even the whole image does not always determine the label.

`ExactPosterior` gives the same sums the interface of a posterior.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical

from nogs.glimpses.fovea import Glimpses
from nogs.glimpses.grid import Grid
from nogs.posterior.protocol import Candidates, LabelDistribution

Image = tuple[tuple[int, ...], ...]
Patch = tuple[int, ...]
"""A glimpse's pixels, row by row."""
Seen = tuple[tuple[int, Patch], ...]
"""(cell, patch) of each glimpse so far."""


@dataclass(frozen=True)
class World:
    """Atoms with prior weights, seen through square glimpses that start at ``offsets_px``."""

    images: tuple[Image, ...]
    labels: tuple[int, ...]
    prior: tuple[float, ...]
    glimpse_px: int
    stride_px: int
    offsets_px: tuple[int, ...]

    @property
    def classes(self) -> int:
        return max(self.labels) + 1

    @property
    def cells(self) -> range:
        return range(len(self.offsets_px) ** 2)

    def patch(self, image: Image, cell: int) -> Patch:
        """fovea(x, l)."""
        side = len(self.offsets_px)
        top, left = self.offsets_px[cell // side], self.offsets_px[cell % side]
        return tuple(
            image[top + row][left + column] for row in range(self.glimpse_px) for column in range(self.glimpse_px)
        )

    def look(self, atom: int, cells: Sequence[int]) -> Seen:
        return tuple((cell, self.patch(self.images[atom], cell)) for cell in cells)

    def completions(self, seen: Seen) -> list[tuple[int, float]]:
        """p(x, θ | y_1:t, l_1:t): the atoms consistent with what was seen, with weights that sum to 1."""
        weights = [
            (atom, weight)
            for atom, weight in enumerate(self.prior)
            if all(self.patch(self.images[atom], cell) == patch for cell, patch in seen)
        ]
        total = sum(weight for _, weight in weights)
        if not total:
            raise ValueError("nothing in this world looks like that")
        return [(atom, weight / total) for atom, weight in weights]

    def posterior(self, seen: Seen) -> list[float]:
        """p(θ | y_1:t, l_1:t)."""
        probs = [0.0] * self.classes
        for atom, weight in self.completions(seen):
            probs[self.labels[atom]] += weight
        return probs

    def posterior_entropy(self, seen: Seen) -> float:
        return entropy(self.posterior(seen))

    def expected_posterior_entropy(self, seen: Seen, cell: int) -> float:
        """EPE(l) = E_{x | seen} H[p(θ | seen, fovea(x, l))]."""
        total = 0.0
        for atom, weight in self.completions(seen):
            total += weight * self.posterior_entropy((*seen, *self.look(atom, [cell])))
        return total

    def mixture_information_gain(self, seen: Seen, cell: int) -> float:
        """EIG(l) = H[mean_n g_n] - mean_n H[g_n], over the completions x_n of what was seen."""
        mean = [0.0] * self.classes
        conditional = 0.0
        for atom, weight in self.completions(seen):
            g = self.posterior((*seen, *self.look(atom, [cell])))
            for label, p in enumerate(g):
                mean[label] += weight * p
            conditional += weight * entropy(g)
        return entropy(mean) - conditional

    def mutual_information(self, seen: Seen, cell: int) -> float:
        """I(θ; y | l, seen) = Σ_{θ, y} p(θ, y) log p(θ, y) / p(θ) p(y): what both gains estimate."""
        joint: dict[tuple[int, Patch], float] = {}
        of_label: dict[int, float] = {}
        of_patch: dict[Patch, float] = {}
        for atom, weight in self.completions(seen):
            label, patch = self.labels[atom], self.patch(self.images[atom], cell)
            joint[label, patch] = joint.get((label, patch), 0.0) + weight
            of_label[label] = of_label.get(label, 0.0) + weight
            of_patch[patch] = of_patch.get(patch, 0.0) + weight
        return sum(p * math.log(p / (of_label[label] * of_patch[patch])) for (label, patch), p in joint.items())

    def greedy_cell(self, seen: Seen) -> int:
        """The first cell, not yet looked at, of least EPE. Compare its EPE where cells may tie."""
        unseen = [cell for cell in self.cells if cell not in [seen_cell for seen_cell, _ in seen]]
        return min(unseen, key=lambda cell: (round(self.expected_posterior_entropy(seen, cell), 12), cell))

    def greedy_cells(self, atom: int, glimpses: int) -> list[int]:
        """The greedy sequence of one atom's image."""
        cells: list[int] = []
        for _ in range(glimpses):
            cells.append(self.greedy_cell(self.look(atom, cells)))
        return cells

    def grid(self) -> Grid:
        return Grid(image_px=len(self.images[0]), glimpse_px=self.glimpse_px, stride_px=self.stride_px)

    def image_tensor(self) -> Tensor:
        """uint8 [atoms, 1, H, H]."""
        return torch.tensor(self.images, dtype=torch.uint8)[:, None]


def entropy(probs: Sequence[float]) -> float:
    """H[p] = -Σ p log p in nats, 0 log 0 = 0."""
    return -sum(p * math.log(p) for p in probs if p > 0)


def random_world(
    seed: int,
    *,
    atoms: int = 16,
    classes: int = 3,
    image_px: int = 6,
    stride_px: int = 2,
    offsets_px: tuple[int, ...],
) -> World:
    """Images of black and white tiles, whose label makes tiles likelier white; the last two are the same."""
    chance = random.Random(seed)
    tiles = (image_px + 1) // 2
    whiteness = [[[chance.choice((0.1, 0.5, 0.9)) for _ in range(tiles)] for _ in range(tiles)] for _ in range(classes)]
    labels = tuple(atom % classes for atom in range(atoms))
    images = []
    for label in labels:
        white = [[chance.random() < p for p in row] for row in whiteness[label]]
        images.append(tuple(tuple(255 * white[r // 2][c // 2] for c in range(image_px)) for r in range(image_px)))
    images[-1] = images[-2]
    weights = [chance.randint(1, 5) for _ in range(atoms)]
    prior = tuple(weight / sum(weights) for weight in weights)
    return World(tuple(images), labels, prior, glimpse_px=2, stride_px=stride_px, offsets_px=offsets_px)


TILES = random_world(3, offsets_px=(0, 2, 4))
"""Each glimpse is a tile of its own."""
OVERLAPPING = random_world(4, image_px=5, offsets_px=(0, 2, 3))
"""The stride does not divide, and neighbouring glimpses share pixels."""


class ExactPosterior:
    """The world's p(θ | glimpses), as `nogs.design` calls a posterior; float64, and log 0 is -inf."""

    device = torch.device("cpu")

    def __init__(self, world: World) -> None:
        self.world = world
        self.grid = world.grid()

    def __call__(self, glimpses: Glimpses) -> Categorical:
        return LabelDistribution(self._log_probs([seen_in(glimpses, row) for row in range(len(glimpses.cells))]))

    def by_glimpse(self, glimpses: Glimpses) -> Categorical:
        B, T = glimpses.cells.shape
        histories = [[seen_in(glimpses, b)[: t + 1] for t in range(T)] for b in range(B)]
        return LabelDistribution(torch.stack([self._log_probs(of_image) for of_image in histories]))

    def lookahead(self, seen: Glimpses, candidates: Candidates) -> Categorical | Bernoulli:
        images = candidates.completions[:, 0].tolist()
        histories = []
        for p, cell in zip(candidates.rows.tolist(), candidates.cells.tolist(), strict=True):
            before = seen_in(seen, int(candidates.owners[p]))
            histories.append((*before, (cell, self.world.patch(images[p], cell))))
        return LabelDistribution(self._log_probs(histories))

    def _log_probs(self, histories: list[Seen]) -> Tensor:
        return torch.tensor([self.world.posterior(seen) for seen in histories], dtype=torch.float64).log()


def seen_in(glimpses: Glimpses, row: int) -> Seen:
    """Tensors back to the world's own terms."""
    patches, cells = glimpses
    return tuple(
        (int(cell), tuple(patch.flatten().tolist())) for cell, patch in zip(cells[row], patches[row], strict=True)
    )
