"""The images of a bank that are nearest to given glimpses, found in one pass over the latents of the bank.

In PCA approximation x' = μ + Vz, and the fovea is linear: fovea(x', l) = μ_l + P_l'z with P_l = fovea(V, l), a
k × D matrix for the D pixels of a glimpse. Components are smooth, so these pixels span few directions: with the
r leading ones as rows of an orthonormal R_l, and W_l = P_l R_l',

    Σ_t ‖y_t - fovea(x', l_t)‖² ≈ Σ_t ‖z'W_l‖² - 2 (z'W_l) · R_l (y_t - μ_l) + ‖y_t - μ_l‖²,

a quadratic form of rank r in z: k r multiply-adds a glimpse in place of k D. The forms of all images that are
completed together are evaluated in one matrix product. Latents have unit variance (`nogs.completion.pca`), so the
leading directions of P_l are those in which the bank's images differ most. r = min(k, D) is exact.

A mirror image has the same z under mirrored μ and V, so its latents are not stored. Latents are read a block at a
time, for example from a memory-mapped file, and only the nearest candidates so far are kept.
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
"""Latents compared at a time, which takes tens of megabytes for a few hundred distinct cells."""


class View(NamedTuple):
    """The fovea at one cell l in PCA approximation: μ_l, R_l and W_l."""

    mean: Float[Tensor, " D"]
    directions: Float[Tensor, "r D"]
    forms: Float[Tensor, "k r"]


class Query(NamedTuple):
    """Glimpses of B images at C distinct cells, as quadratic forms in z.

    ``forms``: the W_l side by side. ``visits``: number of glimpses of each image at each cell. ``targets``: the sum of
    R_l (y_t - μ_l) over an image's glimpses at a cell, 0 for other cells. ``constant``: Σ_t ‖y_t - μ_l‖².
    """

    forms: Float[Tensor, "k Cr"]
    visits: Float[Tensor, "C B"]
    targets: Float[Tensor, "Cr B"]
    constant: Float[Tensor, " B"]


@dataclass(frozen=True)
class Viewer:
    """Converts glimpses on ``grid`` into queries.

    ``mean`` and ``components``: μ and V in pixel units. ``rank``: r. The view of a cell is computed at its first use.
    """

    mean: Float[Tensor, "c H H"]
    components: Float[Tensor, "k c H H"]
    grid: Grid
    rank: int
    _views: dict[int, View] = field(default_factory=dict, init=False, repr=False, compare=False)

    def mirrored(self) -> Viewer:
        """Return the viewer for mirror images."""
        return Viewer(self.mean.flip(-1), self.components.flip(-1), self.grid, self.rank)

    def view(self, cell: int) -> View:
        """Return the view of one cell."""
        if cell not in self._views:
            self._views[cell] = self._look(cell)
        return self._views[cell]

    def query(self, seen: Glimpses) -> Query:
        """Return the query for T glimpses of each of B images."""
        cells, place = seen.cells.unique(return_inverse=True)
        views = [self.view(cell) for cell in cells.tolist()]
        (C,), (B, T), r = cells.shape, seen.cells.shape, len(views[0].directions)
        means, directions = (torch.stack([view[part] for view in views]) for part in (0, 1))
        differences = seen.patches.flatten(2).float() - means[place]
        targets, visits = torch.zeros(C, B, r), torch.zeros(C, B)
        images = torch.arange(B)
        for t in range(T):
            projected = torch.einsum("brd,bd->br", directions[place[:, t]], differences[:, t])
            targets[place[:, t], images] += projected
            visits[place[:, t], images] += 1
        forms = torch.cat([view.forms for view in views], dim=1)
        return Query(forms, visits, targets.transpose(1, 2).flatten(0, 1), differences.square().sum((1, 2)))

    def _look(self, cell: int) -> View:
        place = self.grid.top_left_px(torch.tensor([[cell]]))
        P = fovea(self.components, self.grid, place.expand(len(self.components), -1, -1)).flatten(1)
        r = min(self.rank, *P.shape)
        # The right singular vectors follow from the leading left ones. QR returns orthonormal directions even for a
        # cell that is equal in all images, where P is 0.
        leading = torch.linalg.eigh(P @ P.T).eigenvectors[:, -r:]
        directions = torch.linalg.qr(P.T @ leading).Q.T
        return View(fovea(self.mean[None], self.grid, place).flatten(), directions, P @ directions.T)


class Nearest(NamedTuple):
    """The p nearest candidates of each of B images, nearest first: squared distances in pixel units, and numbers."""

    distances: Float[Tensor, "B p"]
    indices: Int[Tensor, "B p"]

    def merged(self, distances: Float[Tensor, "B n"], indices: Int[Tensor, " n"], *, count: int) -> Nearest:
        """Return the ``count`` nearest of these candidates and n further ones."""
        together = torch.cat((self.distances, distances), dim=1)
        nearest, where = together.topk(min(count, together.shape[1]), dim=1, largest=False)
        return Nearest(nearest, torch.cat((self.indices, indices.expand(len(distances), -1)), dim=1).gather(1, where))


def squared_distances(latents: Float[Tensor, "n k"], query: Query) -> Float[Tensor, "B n"]:
    """Return the squared distance of n images to B queries, in PCA approximation and pixel units.

    Half precision is used on processors that multiply in it. Both terms are computed from the same rounded product,
    so that its rounding error cancels for near images. With two products it would exceed their distances.
    """
    z = latents if latents.dtype == design_dtype(latents.device) else latents.float()
    projected = (z @ query.forms.to(z.dtype)).float()
    linear = projected @ query.targets
    squares = projected.square_().unflatten(1, (len(query.visits), -1)).sum(-1)
    return (squares @ query.visits - 2 * linear + query.constant).T


def nearest(
    latents: Iterable[Float[Tensor, "_ k"]],
    queries: list[Query],
    *,
    count: int,
    groups: Int[Tensor, " B"],
    groups_of_bank: Int[Tensor, " N"] | None,
) -> Nearest:
    """Return the ``count`` nearest candidates for each of B images.

    ``latents``: blocks of the latents of all N images of the bank. ``queries``: the query for the images as they are,
    and that for mirror images if these are candidates too. ``groups``: the group of each of the B images; candidates
    of the same group have infinite distance. ``groups_of_bank``: None if the bank's images have no group.

    Candidate i is image i // len(queries) of the bank, mirrored if the remainder is 1.
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
        best = best.merged(distances.flatten(1), indices, count=count)
        start += len(rows)
    return best
