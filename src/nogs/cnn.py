"""Whole-image CNNs to be measured against: ShuffleNetV2 and MobileNetV2 made small, and an upper bound.

A glimpse network is worth its trouble only where it is better than a small CNN of the same cost on a smaller
image (*Near-Optimal Glimpse Sequences*, section 5, and its poster). ShuffleNetV2 (Ma et al. 2018, table 5) and
MobileNetV2 (Sandler et al. 2018, table 2) are torchvision's, at any width and any resolution of the input.

Where we differ from the published ones, so that they are at their best under a million multiply-adds:

- They halve a 224-pixel image five times. Of a small one nothing would be left, so the first halvings are
  given up until a map of 2 x 2 is: first the second (max pool, or first strided block), then the stem's.
- Channels are multiples of 4, at least 4; MobileNetV2's last 1,280 shrink with the width too.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from nogs.errors import UserError
from nogs.glimpses.embedding import to_unit
from nogs.posterior.backbones import small_resnet

UPPER_BOUND = "small-resnet"
ARCHITECTURES = ("shufflenet-v2", "mobilenet-v2")
LAST_MAP_PX = 2
MULTIPLE = 4
SMALLEST_PX = 8
"""Three halvings of 8 pixels leave one."""
CHUNK = 512


class WholeImageCNN(nn.Module):
    """Logits of a whole image of ``resolution_px``, by an architecture that is ``width`` times as wide as published.

    The upper bound, ``small-resnet``, has one width.
    """

    def __init__(self, architecture: str, *, resolution_px: int, width: float, channels: int, classes: int) -> None:
        super().__init__()
        self.resolution_px = resolution_px
        self.backbone: nn.Module
        if architecture == UPPER_BOUND:
            self.backbone = small_resnet(channels, classes)
        elif architecture == "shufflenet-v2":
            self.backbone = _shufflenet(halvings(resolution_px), width, channels, classes)
        elif architecture == "mobilenet-v2":
            self.backbone = _mobilenet(halvings(resolution_px), width, channels, classes)
        else:
            raise UserError(f"architectures={architecture}: choose among {', '.join(ARCHITECTURES)}")

    def forward(self, images: UInt8[Tensor, "B c R R"]) -> Float[Tensor, "B C"]:
        # Depthwise convolutions are up to twice as fast with channels last.
        return self.backbone(to_unit(images).contiguous(memory_format=torch.channels_last))


def halvings(resolution_px: int) -> int:
    """How often a network halves the image: 5 times as published, less where fewer than 2 pixels would be left."""
    for times in (5, 4):
        if -(-resolution_px // 2**times) >= LAST_MAP_PX:
            return times
    return 3


def shrinkable(image_px: int, resolution_px: int) -> None:
    """Raise UserError where a CNN cannot be given images of ``image_px`` at ``resolution_px``."""
    if not SMALLEST_PX <= resolution_px <= image_px:
        raise UserError(f"resolutions={resolution_px}: choose {SMALLEST_PX} to {image_px}, the size of the images")


def shrink(images: UInt8[Tensor, "N c H H"], resolution_px: int) -> UInt8[Tensor, "N c R R"]:
    """The images averaged down to ``resolution_px``, antialiased; themselves where they have that size."""
    image_px = images.shape[-1]
    if resolution_px == image_px:
        return images
    small = images.new_empty(*images.shape[:2], resolution_px, resolution_px)
    for some, into in zip(images.split(CHUNK), small.split(CHUNK), strict=True):
        size = (resolution_px, resolution_px)
        into.copy_(F.interpolate(some.float(), size, mode="bilinear", antialias=True).round())
    return small


def _shufflenet(times: int, width: float, channels: int, classes: int) -> nn.Module:
    from torchvision.models import ShuffleNetV2  # seconds to import, for this file alone

    network = ShuffleNetV2([4, 8, 4], [_scaled(of, width) for of in (24, 116, 232, 464, 1024)], classes)
    network.conv1[0] = _stem(times, channels, network.conv1[0].out_channels)
    if times < 5:
        network.maxpool = nn.Identity()
    return network


def _mobilenet(times: int, width: float, channels: int, classes: int) -> nn.Module:
    from torchvision.models import MobileNetV2
    from torchvision.ops import Conv2dNormActivation

    blocks = [  # expansion, channels, blocks, stride
        *([1, 16, 1, 1], [6, 24, 2, 1 if times < 5 else 2], [6, 32, 3, 2], [6, 64, 4, 2]),
        *([6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]),
    ]
    network = MobileNetV2(classes, width, blocks, round_nearest=MULTIPLE)
    stem, last = network.features[0], network.features[-1]
    stem[0] = _stem(times, channels, stem[0].out_channels)
    features = _scaled(1280, width)
    network.features[-1] = Conv2dNormActivation(last[0].in_channels, features, kernel_size=1, activation_layer=nn.ReLU6)
    # Without dropout: its draws would not be repeated by a training that resumes.
    network.classifier = nn.Linear(features, classes)
    return network


def _stem(times: int, channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, stride=1 if times < 4 else 2, padding=1, bias=False)


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width / MULTIPLE)) * MULTIPLE
