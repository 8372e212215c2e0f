"""Attention-based multiple-instance learning: all patches of an image, pooled by a gated attention.

After Ilse, Tomczak and Welling 2018, *Attention-based Deep Multiple Instance Learning* (equations 7 and 9). The L
patches of a regular grid, which cover the image, are embedded as h_1..h_L. Their features are pooled as

    z = Σ_n a_n h_n,        a_n ∝ exp(wᵀ (tanh(V h_n) ⊙ σ(U h_n))),

and z is classified. The order of the patches says nothing. Where we differ: the network that embeds glimpses embeds
the patches, with a ReLU after it. It does so in chunks whose activations are computed again for the gradient, because
those of all patches of a large image do not fit into memory.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from nogs.data.pixels import Pixels
from nogs.glimpses.embedding import convolutional, to_unit
from nogs.glimpses.fovea import look
from nogs.glimpses.grid import Grid

WIDTH = 64
"""Features of a patch, as of a glimpse."""
HIDDEN = 64
"""Hidden units of the attention."""
CHUNK = 100
"""Patches of an image that are embedded at a time."""


class MultipleInstances(nn.Module):
    """Logits of C = ``classes`` classes from the patches at all cells of ``grid``."""

    def __init__(self, grid: Grid, *, channels: int, classes: int) -> None:
        super().__init__()
        self.grid = grid
        self.pixels_at_once = CHUNK * grid.glimpse_px**2
        self.encoder = convolutional(grid, channels * grid.scales, width=WIDTH)
        self.content, self.gate = nn.Linear(WIDTH, HIDDEN), nn.Linear(WIDTH, HIDDEN)
        self.score = nn.Linear(HIDDEN, 1, bias=False)
        self.classifier = nn.Linear(WIDTH, classes)

    def forward(self, images: Pixels, rows: Int[Tensor, " B"] | None = None) -> Float[Tensor, "B C"]:
        """Return the logits of the images ``rows`` (default: all)."""
        rows = torch.arange(len(images), device=images.device) if rows is None else rows
        embeddings = self.embed(images, rows)
        return self.classifier((self.attention(embeddings)[..., None] * embeddings).sum(1))

    def loss(
        self, images: Pixels, rows: Int[Tensor, " B"], labels: Int[Tensor, " B"], generator: Generator
    ) -> Float[Tensor, ""]:
        """Return the cross-entropy of the images ``rows``, in nats. Nothing is drawn from ``generator``."""
        return F.cross_entropy(self(images, rows), labels)

    def pixels_read(self, images: Pixels, rows: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Return 1 for each image, because the patches of the grid cover it."""
        return torch.ones(len(rows), device=rows.device)

    def attention(self, embeddings: Float[Tensor, "B L e"]) -> Float[Tensor, "B L"]:
        """Return the weight a_n of each patch, which sum to 1 over the patches."""
        gated = self.content(embeddings).tanh() * self.gate(embeddings).sigmoid()
        return self.score(gated)[..., 0].softmax(-1)

    def embed(self, images: Pixels, rows: Int[Tensor, " B"]) -> Float[Tensor, "B L e"]:
        """Return the features of every patch of the images ``rows``."""
        chunks = torch.arange(len(self.grid), device=rows.device).split(CHUNK)
        if len(chunks) == 1 or not torch.is_grad_enabled():
            return torch.cat([self._embed_chunk(images, rows, chunk) for chunk in chunks], dim=1)
        embedded = [checkpoint(self._embed_chunk, images, rows, chunk, use_reentrant=False) for chunk in chunks]
        return torch.cat(embedded, dim=1)

    def _embed_chunk(self, images: Pixels, rows: Int[Tensor, " B"], cells: Int[Tensor, " n"]) -> Float[Tensor, "B n e"]:
        patches = to_unit(look(images, self.grid, cells.expand(len(rows), -1), rows).patches)
        return self.encoder(patches.flatten(0, 1)).relu().unflatten(0, (len(rows), len(cells)))
