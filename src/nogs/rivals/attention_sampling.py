"""Attention sampling: patches drawn from an attention over a reduced view of the image.

After Katharopoulos and Fleuret 2019, *Processing Megapixel Images with Deep Attention-Sampling Models*. A small CNN on
the overview V of an image x returns an attention a = a(V), a distribution over the pixels of V. The features of the
image are the expectation of the features f of a patch around a pixel drawn from it,

    E_{i~a}[f(x_i)] = Σ_i a_i f(x_i),

estimated from N patches. With replacement the estimate is their mean, and f_i ∂a_i / a_i is an unbiased estimate of its
gradient. Without replacement, the k-th draw i_k has the probability a_i / (1 - S_k) with
S_k = Σ_{j<k} a_{i_j}, and each draw yields the unbiased estimate Σ_{j<k} a_{i_j} f_{i_j} + (1 - S_k) f_{i_k}, of which
the mean over k is taken. In both cases the estimate is Σ_j w_j f_{i_j}, with the weights of `weights`.

The sizes are those of the authors' experiment on megapixel MNIST. Where we differ, and why: a patch that reaches beyond
the image is moved inside, so that its pixels are all read; at evaluation all images share one draw of the random
numbers, so that an answer depends on its image alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from nogs.data.pixels import Pixels, overview
from nogs.glimpses.embedding import ChannelsLast, to_unit
from nogs.glimpses.fovea import fovea, share_of_squares
from nogs.glimpses.grid import Grid
from nogs.information import entropy

SMOOTH = 1e-5
"""Share of a uniform distribution in the attention, as in the authors' code."""
FEATURES = 32
LEAST_PATCH_PX = 13
"""Side of the smallest patch in pixels, of which four convolutions without padding leave one pixel."""


class Sampled(NamedTuple):
    """Logits of B images of C classes, and what they depend on.

    ``attention``: over the pixels of the overview, row by row. ``cells``: the N pixels that were drawn, in order.
    """

    logits: Float[Tensor, "B C"]
    attention: Float[Tensor, "B V"]
    cells: Int[Tensor, "B N"]


class AttentionSampling(nn.Module):
    """Logits of C = ``classes`` classes from N = ``patches`` patches of the glimpse size of ``grid``.

    ``overview_px``: side of the reduced view. ``entropy_weight``: of the attention's entropy in the loss, in nats.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        overview_px: int,
        patches: int,
        replacement: bool,
        entropy_weight: float,
        channels: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.grid, self.overview_px, self.patches, self.replacement = grid, overview_px, patches, replacement
        self.entropy_weight = entropy_weight
        self.pixels_at_once = patches * grid.glimpse_px**2 + overview_px**2
        self.attention = ChannelsLast(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(8, 1, 3, padding=1),
            nn.Flatten(),
            nn.Softmax(dim=1),
        )
        self.features = ChannelsLast(
            nn.Conv2d(channels, FEATURES, 7),
            nn.ReLU(inplace=True),
            nn.Conv2d(FEATURES, FEATURES, 3),
            nn.ReLU(inplace=True),
            nn.Conv2d(FEATURES, FEATURES, 3),
            nn.ReLU(inplace=True),
            nn.Conv2d(FEATURES, FEATURES, 3),
            nn.ReLU(inplace=True),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(FEATURES, classes)
        self.register_buffer("noise", self._noise(1, Generator().manual_seed(0)), persistent=False)
        self.noise: Tensor

    def forward(self, images: Pixels, rows: Int[Tensor, " B"] | None = None) -> Float[Tensor, "B C"]:
        """Return the logits of the images ``rows`` (default: all), with the same random numbers for each."""
        return self.sample(images, _all(images) if rows is None else rows, self.noise).logits

    def loss(
        self, images: Pixels, rows: Int[Tensor, " B"], labels: Int[Tensor, " B"], generator: Generator
    ) -> Float[Tensor, ""]:
        """Return the cross-entropy of the images ``rows``, less the weighted entropy of their attention, in nats."""
        sampled = self.sample(images, rows, self._noise(len(rows), generator))
        return F.cross_entropy(sampled.logits, labels) - self.entropy_weight * entropy(sampled.attention.log()).mean()

    def pixels_read(self, images: Pixels, rows: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Return the share of the pixels of each image that its patches cover, with those of the overview added."""
        cells = self.sample(images, rows, self.noise).cells
        first = self.grid.around(cells, overview_px=self.overview_px)
        covered = share_of_squares(first, side_px=self.grid.glimpse_px, image_px=self.grid.image_px)[:, -1]
        return (covered + (self.overview_px / self.grid.image_px) ** 2).clamp(max=1)

    def sample(self, images: Pixels, rows: Int[Tensor, " B"], noise: Float[Tensor, "_ n"]) -> Sampled:
        """Draw patches of the images ``rows`` and classify them. ``noise``: random numbers, of each image or shared."""
        attention = self.attention(to_unit(overview(images, rows, self.overview_px)))
        attention = (1 - SMOOTH) * attention + SMOOTH / attention.shape[1]
        with torch.no_grad():
            draw = with_replacement if self.replacement else without_replacement
            cells = draw(attention, noise, self.patches)
        patches = fovea(images, self.grid, self.grid.around(cells, overview_px=self.overview_px), rows)
        features = F.normalize(self.features(to_unit(patches).flatten(0, 1)), dim=1).unflatten(0, cells.shape)
        weight = weights(attention.gather(1, cells), replacement=self.replacement)
        return Sampled(self.classifier((weight[..., None] * features).sum(1)), attention, cells)

    def _noise(self, images: int, generator: Generator) -> Float[Tensor, "B n"]:
        """Return the random numbers that patches are drawn with: uniform ones, or Gumbel's without replacement."""
        if self.replacement:
            return torch.rand(images, self.patches, generator=generator, device=generator.device)
        exponential = torch.empty(images, self.overview_px**2, device=generator.device)
        return -exponential.exponential_(generator=generator).log()


def with_replacement(
    attention: Float[Tensor, "B V"], uniform: Float[Tensor, "_ N"], patches: int
) -> Int[Tensor, "B N"]:
    """Return N = ``patches`` independent draws from each attention. ``uniform``: N numbers in [0, 1) for each."""
    cumulative = attention.cumsum(1)
    uniform = uniform.expand(len(attention), patches) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, uniform, right=True).clamp_max(attention.shape[1] - 1)


def without_replacement(
    attention: Float[Tensor, "B V"], gumbel: Float[Tensor, "_ V"], patches: int
) -> Int[Tensor, "B N"]:
    """Return N = ``patches`` distinct draws from each attention, in the order of drawing.

    The N greatest values of log a_i + G_i, with ``gumbel`` G of independent standard Gumbel variables, are distributed
    as N draws without replacement (Kool, van Hoof and Welling 2019, *Stochastic Beams and Where to Find Them*).
    """
    return (attention.log() + gumbel).topk(patches, dim=1).indices


def weights(sampled: Float[Tensor, "B N"], *, replacement: bool) -> Float[Tensor, "B N"]:
    """Return the weight of each draw in the estimate of the expectation; its gradient is an unbiased estimate too.

    ``sampled``: the attention a_{i_1}..a_{i_N} of the draws, in order.
    """
    N, fixed = sampled.shape[1], sampled.detach()
    if replacement:
        return sampled / fixed / N
    left = 1 - fixed.cumsum(1) + fixed
    later = torch.arange(N - 1, -1, -1, device=sampled.device)
    return sampled * (later + left / fixed) / N


def _all(images: Pixels) -> Int[Tensor, " N"]:
    return torch.arange(len(images), device=images.device)
