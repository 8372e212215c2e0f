"""Iterative patch selection: all patches of an image are scored, and the M most salient are classified.

After Bergner, Lippert and Mahendran 2023, *Iterative Patch Selection for High-Resolution Image Recognition*. The
patches of a regular grid are embedded in chunks without a gradient; after each chunk, the M patches of the greatest
score among those in memory and those of the chunk are kept. The score is the attention of a
cross-attention with one learned query, averaged over its heads. The M patches are then embedded again with a gradient,
pooled by the same cross-attention and a perceptron, and classified.

The sizes are those of the authors' experiment on megapixel MNIST: the first half of a ResNet-18, 8 heads of 16
features, sinusoidal positions, dropout of 0.1, and in training a new order of the patches in each batch, which breaks
ties of equal scores at random. At evaluation the embeddings in memory are pooled directly, because embedding the same
patches again would give the same.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from nogs.data.pixels import Pixels
from nogs.glimpses.embedding import ChannelsLast, to_unit
from nogs.glimpses.fovea import look
from nogs.glimpses.grid import Grid

WIDTH = 128
"""Features of a patch."""
HEADS, OF_HEAD, INNER = 8, 16, 512
"""Heads of the cross-attention, features of each, and hidden units of the perceptron."""
DROPOUT = 0.1
CHUNK = 100
"""Patches of an image that are scored at a time (I)."""


class Memory(NamedTuple):
    """M patches of each of B images: their cells and their embeddings, positions included."""

    cells: Int[Tensor, "B M"]
    embeddings: Float[Tensor, "B M e"]


class PatchSelection(nn.Module):
    """Logits of C = ``classes`` classes from the M = ``memory`` most salient patches among the cells of ``grid``."""

    def __init__(self, grid: Grid, *, memory: int, channels: int, classes: int, heads: int = HEADS) -> None:
        super().__init__()
        self.grid, self.memory = grid, memory
        self.pixels_at_once = CHUNK * grid.glimpse_px**2
        self.encoder = _half_resnet18(channels)
        self.pooling = CrossAttention(heads)
        self.classifier = nn.Linear(WIDTH, classes)
        self.register_buffer("positions", sinusoids(len(grid)), persistent=False)
        self.positions: Tensor

    def forward(self, images: Pixels, rows: Int[Tensor, " B"] | None = None) -> Float[Tensor, "B C"]:
        """Return the logits of the images ``rows`` (default: all)."""
        rows = torch.arange(len(images), device=images.device) if rows is None else rows
        every = torch.arange(len(self.grid), device=rows.device)
        return self.classifier(self.pooling(self.select(images, rows, every).embeddings))

    def loss(
        self, images: Pixels, rows: Int[Tensor, " B"], labels: Int[Tensor, " B"], generator: Generator
    ) -> Float[Tensor, ""]:
        """Return the cross-entropy of the images ``rows``, in nats."""
        order = torch.randperm(len(self.grid), generator=generator, device=generator.device)
        cells = self.select(images, rows, order).cells
        logits = self.classifier(self.pooling(self.embed(images, rows, cells), generator))
        return F.cross_entropy(logits, labels)

    def pixels_read(self, images: Pixels, rows: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Return 1 for each image, because the patches of the grid cover it."""
        return torch.ones(len(rows), device=rows.device)

    @torch.no_grad()
    def select(self, images: Pixels, rows: Int[Tensor, " B"], order: Int[Tensor, " n"]) -> Memory:
        """Return the most salient of the cells ``order``, read in that order, as the network has it in eval mode."""
        training = self.training
        self.eval()
        kept: Memory | None = None
        for chunk in order.split(CHUNK):
            cells = chunk.expand(len(rows), -1)
            read = Memory(cells, self.embed(images, rows, cells))
            kept = read if kept is None else Memory(*(torch.cat(pair, dim=1) for pair in zip(kept, read, strict=True)))
            if kept.cells.shape[1] > self.memory:
                best = self.pooling.attention(kept.embeddings).mean(1).topk(self.memory, dim=1).indices
                kept = Memory(kept.cells.gather(1, best), kept.embeddings.take_along_dim(best[..., None], 1))
        self.train(training)
        assert kept is not None
        return kept

    def embed(self, images: Pixels, rows: Int[Tensor, " B"], cells: Int[Tensor, "B M"]) -> Float[Tensor, "B M e"]:
        """Return the embeddings of the patches of the images ``rows`` at ``cells``."""
        patches = to_unit(look(images, self.grid, cells, rows).patches)
        return self.encoder(patches.flatten(0, 1)).unflatten(0, cells.shape) + self.positions[cells]


class CrossAttention(nn.Module):
    """Pool a set of patches by multi-head attention with one learned query, then a perceptron."""

    def __init__(self, heads: int = HEADS) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.empty(WIDTH).uniform_(-(OF_HEAD**-0.5), OF_HEAD**-0.5))
        self.to_query, self.to_key, self.to_value = (nn.Linear(WIDTH, heads * OF_HEAD, bias=False) for _ in range(3))
        self.mix = nn.Linear(heads * OF_HEAD, WIDTH, bias=False)
        self.mixed, self.out = nn.LayerNorm(WIDTH, eps=1e-6), nn.LayerNorm(WIDTH, eps=1e-6)
        self.perceptron = nn.Sequential(nn.Linear(WIDTH, INNER), nn.ReLU(), nn.Linear(INNER, WIDTH))

    def attention(self, embeddings: Float[Tensor, "B n e"]) -> Float[Tensor, "B h n"]:
        """Return the attention of each head to each patch, which sums to 1 over the patches."""
        query = self.to_query(self.query).unflatten(0, (self.heads, OF_HEAD))
        keys = self.to_key(embeddings).unflatten(-1, (self.heads, OF_HEAD))
        return torch.einsum("hd,bnhd->bhn", query, keys).mul(OF_HEAD**-0.5).softmax(-1)

    def forward(self, embeddings: Float[Tensor, "B n e"], generator: Generator | None = None) -> Float[Tensor, "B e"]:
        """Return the features of each set. ``generator``: of dropout; None: without dropout."""
        attention = _dropped(self.attention(embeddings), generator)
        values = self.to_value(embeddings).unflatten(-1, (self.heads, OF_HEAD))
        pooled = torch.einsum("bhn,bnhd->bhd", attention, values).flatten(1)
        mixed = self.mixed(_dropped(self.mix(pooled), generator) + self.query)
        return self.out(_dropped(self.perceptron(mixed), generator) + mixed)


def sinusoids(places: int) -> Float[Tensor, "L e"]:
    """Return the encoding of each place by sines and cosines (Vaswani et al. 2017, section 3.5)."""
    # On the CPU, because arithmetic on a default device "meta" would import torch's compiler.
    rate = torch.exp(torch.arange(0, WIDTH, 2, device="cpu") * (-math.log(10_000) / WIDTH))
    angle = torch.arange(places, device="cpu")[:, None] * rate
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)


def _dropped(values: Float[Tensor, "*shape"], generator: Generator | None) -> Float[Tensor, "*shape"]:
    """Return the values with dropout. torch's draws from the global generator, which a resumed run does not restore."""
    if generator is None:
        return values
    kept = torch.rand(values.shape, generator=generator, device=values.device) >= DROPOUT
    return values * kept / (1 - DROPOUT)


def _half_resnet18(channels: int) -> nn.Module:
    """Return ResNet-18 up to its second stage of blocks, with its mean over all pixels: ``WIDTH`` features."""
    from torchvision.models import resnet18  # takes seconds to import, and only this file needs it

    network = resnet18(weights=None)
    network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "avgpool")
    return ChannelsLast(*(getattr(network, name) for name in names), nn.Flatten())
