"""Where glimpses tell something about the label, in closed form: a linear discriminant at every location.

Fisher's (1936): least squares of the label on a glimpse's pixels, averaged down to a few, explains a share R² of
the label's variance, which for a Gaussian is worth -log(1 - R²) / 2 nats. It misses what is not linear, and what
moves about; it takes seconds where learning takes minutes, so it says where learning should begin to look.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from nogs.glimpses.fovea import look
from nogs.glimpses.grid import Grid

PIXELS = 4
"""Glimpses are averaged down to so many pixels a side: what tells most is coarse, and a covariance needs samples."""
RIDGE = 1e-2
"""Added to the covariance, as a share of the pixels' mean variance."""
CELLS = 64
"""Locations at a time."""


def linear_gain(
    images: UInt8[Tensor, "N c H H"],
    rows: Int[Tensor, " n"],
    labels: Int[Tensor, " n"] | Int[Tensor, "n K"],
    grid: Grid,
) -> Float[Tensor, " L"]:
    """Nats that one glimpse at each location tells linearly, of classes or (their mean) of K labels.

    R² is corrected for its n and its number of pixels (Ezekiel 1930), so that it is 0 on average, and sometimes
    less, where a glimpse tells nothing.
    """
    y = (F.one_hot(labels) if labels.ndim == 1 else labels).float()
    y = y - y.mean(0)
    shares = [_explained(images, rows, y, grid, cells) for cells in torch.arange(len(grid)).split(CELLS)]
    return -torch.log1p(-torch.cat(shares).clamp_max(0.999)) / 2


def _explained(
    images: UInt8[Tensor, "N c H H"],
    rows: Int[Tensor, " n"],
    y: Float[Tensor, "n K"],
    grid: Grid,
    cells: Int[Tensor, " k"],
) -> Float[Tensor, " k"]:
    """Adjusted R² at some of the locations."""
    n = len(rows)
    patches = look(images, grid, cells.to(images.device).expand(n, -1), rows).patches
    side = min(PIXELS, grid.glimpse_px)
    few = F.adaptive_avg_pool2d(patches.flatten(0, 1).float() / 255, side).flatten(1).unflatten(0, (n, -1))
    x = few.transpose(0, 1)
    x = x - x.mean(1, keepdim=True)
    covariance = x.mT @ x / n
    ridge = RIDGE * covariance.diagonal(dim1=1, dim2=2).mean(1) + 1e-6
    shared = x.mT @ y / n
    eye = torch.eye(covariance.shape[-1], device=x.device)
    weights = torch.linalg.solve(covariance + ridge[:, None, None] * eye, shared)
    share = (weights * shared).sum((1, 2)) / y.square().mean(0).sum().clamp_min(1e-12)
    return 1 - (1 - share) * (n - 1) / max(1, n - 1 - x.shape[-1])
