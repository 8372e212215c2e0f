"""The images of a bank nearest to what was seen, in one pass over its latents, however many there are.

In PCA approximation x' = μ + Vz, and the fovea is linear: fovea(x', l) = μ_l + P_l'z with P_l = fovea(V, l), a
k × D matrix for the D pixels of a glimpse. Components are smooth, so these pixels span few directions: with the
r leading ones as rows of an orthonormal R_l, and W_l = P_l R_l',

    Σ_t ‖y_t - fovea(x', l_t)‖² ≈ Σ_t ‖z'W_l‖² - 2 (z'W_l) · R_l (y_t - μ_l) + ‖y_t - μ_l‖²,

a quadratic form of rank r in z: k r multiply-adds a glimpse in place of k D, and all forms of all images that are
completed together are one matrix product. Latents have unit variance (`nogs.completion.pca`), so the leading
directions of P_l are those in which the bank's images differ most. r = min(k, D) is exact.

A mirror image has the same z, under mirrored μ and V: its latents need not be kept. The latents are read a block
at a time, from a memory-mapped file say, and of each block only what is among the best so far is remembered.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nogs.glimpses.fovea import Glimpses, fovea
from nogs.glimpses.grid import Grid
from nogs.runs.device import design_dtype

ROWS = 2048
"""Latents that are compared at a time: with a few hundred cells in question, some tens of megabytes."""


class View(NamedTuple):
    """What one cell shows of images in PCA approximation: μ_l, R_l and W_l."""

    mean: Float[Tensor, " D"]
    directions: Float[Tensor, "r D"]
    forms: Float[Tensor, "k r"]


class Query(NamedTuple):
    """B images' glimpses at C distinct cells, as quadratic forms in z.

    ``forms`` are the W_l side by side, ``seen`` how often an image looked at a cell, ``targets`` are
    R_l (y_t - μ_l) in the rows of its cells, and 0 elsewhere.
    """

    forms: Float[Tensor, "k Cr"]
    seen: Float[Tensor, "C B"]
    targets: Float[Tensor, "Cr B"]
    constant: Float[Tensor, " B"]


@dataclass(frozen=True)
class Viewer:
    """Turns glimpses on ``grid`` into queries. What a cell shows is worked out once, when it is first asked for."""

    mean: Float[Tensor, "c H H"]
    components: Float[Tensor, "k c H H"]
    grid: Grid
    rank: int
    _known: dict[int, View] = field(default_factory=dict, init=False, repr=False, compare=False)

    def mirrored(self) -> Viewer:
        """The same for the mirror images."""
        return Viewer(self.mean.flip(-1), self.components.flip(-1), self.grid, self.rank)

    def view(self, cell: int) -> View:
        if cell not in self._known:
            self._known[cell] = self._look(cell)
        return self._known[cell]

    def query(self, seen: Glimpses) -> Query:
        cells, place = seen.cells.unique(return_inverse=True)
        views = [self.view(cell) for cell in cells.tolist()]
        (C,), (B, T), r = cells.shape, seen.cells.shape, len(views[0].directions)
        means, directions = (torch.stack([view[part] for view in views]) for part in (0, 1))
        differences = seen.patches.flatten(2).float() - means[place]
        targets, times = torch.zeros(C, B, r), torch.zeros(C, B)
        images = torch.arange(B)
        for t in range(T):
            answers = torch.einsum("brd,bd->br", directions[place[:, t]], differences[:, t])
            targets[place[:, t], images] += answers
            times[place[:, t], images] += 1
        forms = torch.cat([view.forms for view in views], dim=1)
        return Query(forms, times, targets.transpose(1, 2).flatten(0, 1), differences.square().sum((1, 2)))

    def _look(self, cell: int) -> View:
        place = self.grid.top_left_px(torch.tensor([[cell]]))
        P = fovea(self.components, self.grid, place.expand(len(self.components), -1, -1)).flatten(1)
        r = min(self.rank, *P.shape)
        # The leading left singular vectors give the right ones; QR, because where a cell shows the same of all
        # images there are none, and any direction will do.
        leading = torch.linalg.eigh(P @ P.T).eigenvectors[:, -r:]
        directions = torch.linalg.qr(P.T @ leading).Q.T
        return View(fovea(self.mean[None], self.grid, place).flatten(), directions, P @ directions.T)


class Nearest(NamedTuple):
    """The best so far of each of B images, nearest first: squared distances in pixel units, and whose they are."""

    distances: Float[Tensor, "B p"]
    indices: Int[Tensor, "B p"]

    def among(self, distances: Float[Tensor, "B n"], indices: Int[Tensor, " n"], *, count: int) -> Nearest:
        """The best ``count`` of these and of others."""
        together = torch.cat((self.distances, distances), dim=1)
        least, where = together.topk(min(count, together.shape[1]), dim=1, largest=False)
        return Nearest(least, torch.cat((self.indices, indices.expand(len(distances), -1)), dim=1).gather(1, where))


def squared_distances(latents: Float[Tensor, "n k"], query: Query) -> Float[Tensor, "B n"]:
    """The distance of every image to every query, in PCA approximation.

    Half precision where the processor multiplies in it. Both terms are taken from the one product, so that its
    rounding cancels for near images: the difference of two rounded products would not know them apart.
    """
    z = latents if latents.dtype == design_dtype(latents.device) else latents.float()
    seen_of = (z @ query.forms.to(z.dtype)).float()
    linear = seen_of @ query.targets
    squares = seen_of.square_().unflatten(1, (len(query.seen), -1)).sum(-1)
    return (squares @ query.seen - 2 * linear + query.constant).T


def nearest(
    latents: Iterable[Float[Tensor, "_ k"]],
    queries: list[Query],
    *,
    count: int,
    groups: Int[Tensor, " B"],
    groups_of_bank: Int[Tensor, " N"] | None,
) -> Nearest:
    """For each of B images the best ``count`` that are not of its own group; fewer may be finite.

    ``queries`` are one for the images as they are, and one for their mirror images if these count too. Index i is
    that of image i // len(queries), of its mirror image where the remainder is 1.
    """
    views, B = len(queries), len(groups)
    best = Nearest(torch.empty(B, 0), torch.empty(B, 0, dtype=torch.long))
    start = 0
    for rows in (rows for block in latents for rows in block.split(ROWS)):
        images = torch.arange(start, start + len(rows))
        distances = torch.stack([squared_distances(rows, query) for query in queries], dim=-1)
        if groups_of_bank is not None:
            distances[groups[:, None] == groups_of_bank[images]] = torch.inf
        indices = (views * images[:, None] + torch.arange(views)).flatten()
        best = best.among(distances.flatten(1), indices, count=count)
        start += len(rows)
    return best
