"""The masked-CNN posterior (AVP-CNN): a CNN on the image times its mask of observed pixels, the mask a channel.

The posterior of *Near-Optimal Glimpse Sequences* (section 4.2), there a DenseNet-121. It does not depend on the order
of the glimpses, and needs one pass of the CNN for each location of each completion.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.distributions import Bernoulli, Categorical

from nogs.glimpses.fovea import Glimpses, look
from nogs.glimpses.grid import Grid
from nogs.glimpses.masked import masked_image
from nogs.posterior.backbones import build_backbone
from nogs.posterior.protocol import Candidates, OneLabel, Posterior, distribution
from nogs.runs.device import design_precision

CANDIDATES = 256
"""Candidate glimpses in one pass. Each becomes a whole masked image."""


class AVPCNN(nn.Module):
    """A timm classifier on the masked image. ``backbone``: small-resnet, or the name of any timm model."""

    maps_are_cheap = False

    def __init__(
        self,
        grid: Grid,
        *,
        channels: int,
        classes: int,
        multilabel: bool,
        backbone: str = "small-resnet",
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.channels = channels
        self.multilabel = multilabel
        self.focus: Tensor
        self.register_buffer("focus", torch.full((len(grid),), 1 / len(grid)))
        network = build_backbone(backbone, channels + 1, classes, image_px=grid.image_px, pretrained=pretrained)
        self.backbone = network.to(memory_format=torch.channels_last)  # a quarter to a half faster, also on a CPU

    @property
    def device(self) -> torch.device:
        return self.focus.device

    def forward(self, glimpses: Glimpses) -> Categorical | Bernoulli:
        return self._distribution(self._logits(glimpses))

    def by_glimpse(self, glimpses: Glimpses) -> Categorical | Bernoulli:
        T = glimpses.cells.shape[1]
        return self._distribution(torch.stack([self._logits(_first(glimpses, t)) for t in range(1, T + 1)], dim=1))

    def for_training(self, glimpses: Glimpses, *, generator: Generator) -> Categorical | Bernoulli:
        """Return the distribution of one t, drawn uniformly from 1..T: each t costs a pass."""
        T = glimpses.cells.shape[1]
        t = int(torch.randint(1, T + 1, (), generator=generator, device=glimpses.cells.device))
        return self._distribution(self._logits(_first(glimpses, t))[:, None])

    def for_label(self, label: int) -> Posterior:
        return OneLabel(self, label)

    def features(self, glimpses: Glimpses) -> Float[Tensor, "B T h"]:
        """Return the pooled features of the backbone after each glimpse."""
        features = []
        for t in range(1, glimpses.cells.shape[1] + 1):
            masked = masked_image(_first(glimpses, t), self.grid)
            maps = self.backbone.forward_features(masked)  # type: ignore[operator] # a timm classifier
            features.append(self.backbone.forward_head(maps, pre_logits=True))  # type: ignore[operator]
        return torch.stack(features, dim=1)

    def lookahead(self, seen: Glimpses, candidates: Candidates) -> Categorical | Bernoulli:
        completions, owners, *pairs = candidates
        logits = []
        with design_precision(completions.device):
            for rows, cells in zip(*(column.split(CANDIDATES) for column in pairs), strict=True):
                new = look(completions, self.grid, cells[:, None], rows)
                row_of = owners[rows]
                both = zip((seen.patches[row_of], seen.cells[row_of]), new, strict=True)
                logits.append(self._logits(Glimpses(*(torch.cat(column, dim=1) for column in both))))
        return self._distribution(torch.cat(logits).float())

    def _distribution(self, logits: Float[Tensor, "*batch C"]) -> Categorical | Bernoulli:
        return distribution(logits, multilabel=self.multilabel)

    def _logits(self, glimpses: Glimpses) -> Float[Tensor, "B C"]:
        if glimpses.cells.shape[1]:
            return self.backbone(masked_image(glimpses, self.grid))
        H = self.grid.image_px
        unseen = torch.zeros(len(glimpses.cells), self.channels + 1, H, H, device=glimpses.cells.device)
        return self.backbone(unseen)


def _first(glimpses: Glimpses, t: int) -> Glimpses:
    return Glimpses(glimpses.patches[:, :t], glimpses.cells[:, :t])
