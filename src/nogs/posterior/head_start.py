"""The linear gain of a glimpse at every location, in closed form: the first focus of a posterior's training.

Least squares of the label on the averaged pixels of a glimpse (Fisher's linear discriminant, 1936) explains a share R²
of the label's variance. For Gaussian variables that is an information gain of -log(1 - R²) / 2 nats. It misses
nonlinear features and features that move, but takes seconds where training takes minutes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from nogs.glimpses.fovea import look
from nogs.glimpses.grid import Grid

AVERAGED_PX = 4
"""Side of averaged glimpses in pixels: coarse features are the most informative, and few need few samples."""
RIDGE = 1e-2
"""Multiple of the identity that is added to the covariance, as a share of the pixels' mean variance."""
CELLS = 64
"""Locations that are computed at a time."""


def linear_gain(
    images: UInt8[Tensor, "N c H H"],
    rows: Int[Tensor, " n"],
    labels: Int[Tensor, " n"] | Int[Tensor, "n K"],
    grid: Grid,
) -> Float[Tensor, " L"]:
    """Return the linear gain in nats of one glimpse at each location, for classes or for K labels together.

    ``rows``: indices of the n images to use. ``labels``: labels of these images. R² is adjusted for n and the number of
    pixels (Ezekiel 1930), so that its mean is 0 at locations without information, where it can be negative.
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
    """Return the adjusted R² of centred labels ``y`` at k locations."""
    n = len(rows)
    patches = look(images, grid, cells.to(images.device).expand(n, -1), rows).patches
    side = min(AVERAGED_PX, grid.glimpse_px)
    averaged = F.adaptive_avg_pool2d(patches.flatten(0, 1).float() / 255, side).flatten(1).unflatten(0, (n, -1))
    x = averaged.transpose(0, 1)
    x = x - x.mean(1, keepdim=True)
    covariance = x.mT @ x / n
    ridge = RIDGE * covariance.diagonal(dim1=1, dim2=2).mean(1) + 1e-6
    cross_covariance = x.mT @ y / n
    eye = torch.eye(covariance.shape[-1], device=x.device)
    weights = torch.linalg.solve(covariance + ridge[:, None, None] * eye, cross_covariance)
    share = (weights * cross_covariance).sum((1, 2)) / y.square().mean(0).sum().clamp_min(1e-12)
    return 1 - (1 - share) * (n - 1) / max(1, n - 1 - x.shape[-1])
