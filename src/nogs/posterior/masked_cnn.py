"""The masked-CNN posterior of the paper (AVP-CNN): a CNN on the image times its mask of observed pixels."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical

from nogs.glimpses.fovea import Glimpses, look, masked_image
from nogs.glimpses.grid import Grid
from nogs.posterior.protocol import distribution
from nogs.runs.device import design_precision

AVP_CANDIDATES = 256
"""And of the AVP-CNN, which makes a whole image of each."""


class AVPCNN(nn.Module):
    """Any timm classifier on the masked image, its mask a channel; blind to the order of glimpses."""

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
        network = _backbone(backbone, channels + 1, classes, pretrained=pretrained)
        self.backbone = network.to(memory_format=torch.channels_last)  # a quarter to a half faster, also on a CPU

    def forward(self, glimpses: Glimpses) -> Categorical | Bernoulli:
        return distribution(self._logits(glimpses), multilabel=self.multilabel)

    def logits_by_glimpse(self, glimpses: Glimpses) -> Float[Tensor, "B T C"]:
        patches, cells = glimpses
        return torch.stack(
            [self._logits(Glimpses(patches[:, : t + 1], cells[:, : t + 1])) for t in range(cells.shape[1])], dim=1
        )

    def lookahead(
        self,
        seen: Glimpses,
        completions: UInt8[Tensor, "P c H H"],
        owners: Int[Tensor, " P"],
        *,
        rows: Int[Tensor, " Q"],
        cells: Int[Tensor, " Q"],
    ) -> Float[Tensor, "Q C"]:
        passes = []
        with design_precision(completions.device):
            for some, at in zip(rows.split(AVP_CANDIDATES), cells.split(AVP_CANDIDATES), strict=True):
                new = look(completions, self.grid, at[:, None], some)
                mine = owners[some]
                pairs = zip((seen.patches[mine], seen.cells[mine]), new, strict=True)
                passes.append(self._logits(Glimpses(*(torch.cat(pair, dim=1) for pair in pairs))))
        return torch.cat(passes).float()

    def _logits(self, glimpses: Glimpses) -> Float[Tensor, "B C"]:
        if glimpses.cells.shape[1]:
            return self.backbone(masked_image(glimpses, self.grid))
        H = self.grid.image_px
        unseen = torch.zeros(len(glimpses.cells), self.channels + 1, H, H, device=glimpses.cells.device)
        return self.backbone(unseen)


def _backbone(name: str, channels: int, classes: int, *, pretrained: bool) -> nn.Module:
    import timm  # seconds to import, and the lookahead posterior needs none of it

    if name == "small-resnet":
        return small_resnet(channels, classes)
    return timm.create_model(name, pretrained=pretrained, in_chans=channels, num_classes=classes)


def small_resnet(channels: int, classes: int) -> nn.Module:
    """A residual network of 0.7 M parameters for images of 32 to 128 pixels: timm's ResNet, a block a stage."""
    import timm

    return timm.models.resnet.ResNet(
        timm.models.resnet.BasicBlock,  # type: ignore[arg-type] # timm's annotation is of an instance
        layers=(1, 1, 1, 1),
        channels=(32, 64, 96, 128),
        in_chans=channels,
        num_classes=classes,
        stem_width=32,
    )
