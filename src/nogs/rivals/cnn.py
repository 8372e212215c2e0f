"""Whole-image CNNs for comparison: small ShuffleNetV2 and MobileNetV2, and a large network as an upper bound.

A glimpse network is useful only if it is more accurate than a small CNN of the same cost on a smaller image
(*Near-Optimal Glimpse Sequences*, section 5, and its poster). ShuffleNetV2 (Ma et al. 2018, table 5) and MobileNetV2
(Sandler et al. 2018, table 2) are torchvision's, at any width and any resolution of the input.

Where we differ from the published networks, which makes them more accurate below a million multiply-adds:

- They halve a 224-pixel image five times, which leaves less than a pixel of a small one. Halvings are therefore removed
  until the last map has 2 x 2 pixels: first the second (max pool, or first strided block), then that of the stem.
- Channels are multiples of 4, at least 4. The last 1,280 channels of MobileNetV2 are scaled with the width too.
"""

from __future__ import annotations

from typing import overload

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from nogs.data.drawn import Drawn
from nogs.data.memory import check_memory
from nogs.data.pixels import Pixels
from nogs.errors import UserError
from nogs.glimpses.embedding import to_unit
from nogs.posterior.backbones import small_resnet

UPPER_BOUND = "small-resnet"
ARCHITECTURES = ("shufflenet-v2", "mobilenet-v2")
LAST_MAP_PX = 2
"""Side of the last feature map in pixels, which halvings are removed for."""
MULTIPLE = 4
"""Divisor of all numbers of channels."""
MIN_PX = 8
"""Side of the smallest input in pixels, of which three halvings leave one pixel."""
CHUNK = 512
"""Images that are resized at a time."""


class WholeImageCNN(nn.Module):
    """Logits of C = ``classes`` classes from whole images of ``resolution_px`` x ``resolution_px`` pixels.

    ``width``: number of channels, as a share of the published architecture's. The upper bound, ``small-resnet``,
    ignores it.
    """

    def __init__(self, architecture: str, *, resolution_px: int, width: float, channels: int, classes: int) -> None:
        super().__init__()
        self.resolution_px = resolution_px
        self.pixels_at_once = resolution_px**2
        self.backbone: nn.Module
        if architecture == UPPER_BOUND:
            self.backbone = small_resnet(channels, classes)
        elif architecture == "shufflenet-v2":
            self.backbone = _shufflenet(halvings(resolution_px), width, channels, classes)
        elif architecture == "mobilenet-v2":
            self.backbone = _mobilenet(halvings(resolution_px), width, channels, classes)
        else:
            raise UserError(f"architectures={architecture}: choose among {', '.join(ARCHITECTURES)}")

    def forward(self, images: Pixels, rows: Int[Tensor, " B"] | None = None) -> Float[Tensor, "B C"]:
        """Return the logits of the images ``rows`` (default: all), which have the network's resolution."""
        pixels = images[slice(None) if rows is None else rows]
        # Depthwise convolutions are up to twice as fast with channels last.
        return self.backbone(to_unit(pixels).contiguous(memory_format=torch.channels_last))

    def loss(
        self, images: Pixels, rows: Int[Tensor, " B"], labels: Int[Tensor, " B"], generator: Generator
    ) -> Float[Tensor, ""]:
        """Return the cross-entropy of the images ``rows``, in nats; nothing is drawn from ``generator``."""
        return F.cross_entropy(self(images, rows), labels)

    def pixels_read(self, images: Pixels, rows: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Return 1 for each image, because the whole image is reduced to the network's resolution."""
        return torch.ones(len(rows), device=rows.device)


def halvings(resolution_px: int) -> int:
    """Return how often a network halves its input: 5 times as published, or fewer so that 2 pixels are left."""
    for times in (5, 4):
        if -(-resolution_px // 2**times) >= LAST_MAP_PX:
            return times
    return 3


def check_resolution(image_px: int, resolution_px: int) -> None:
    """Raise UserError unless images of ``image_px`` can be reduced to an input of ``resolution_px``."""
    if not MIN_PX <= resolution_px <= image_px:
        raise UserError(f"resolutions={resolution_px}: choose {MIN_PX} to {image_px}, the size of the images")


@overload
def shrink(
    images: UInt8[Tensor, "N c H H"], resolution_px: int, *, device: torch.device | None = None
) -> UInt8[Tensor, "N c R R"]: ...
@overload
def shrink(
    images: Pixels, resolution_px: int, *, device: torch.device | None = None
) -> UInt8[Tensor, "N c R R"] | Drawn: ...
def shrink(
    images: Pixels, resolution_px: int, *, device: torch.device | None = None
) -> UInt8[Tensor, "N c R R"] | Drawn:
    """Return the images reduced to ``resolution_px`` with antialiasing, or unchanged if they have that size.

    ``device``: where they are reduced, a few at a time; by default their own device, which the result is on. Raises
    UserError if the reduced ones exceed the memory.
    """
    N, channels, image_px, _ = images.shape
    if resolution_px == image_px:
        return images
    check_memory(N, channels=channels, image_px=resolution_px)
    small = torch.empty(N, channels, resolution_px, resolution_px, dtype=torch.uint8, device=images.device)
    size, done = (resolution_px, resolution_px), 0
    for chunk in images.chunks(resolution_px) if isinstance(images, Drawn) else images.split(CHUNK):
        reduced = F.interpolate(chunk.to(device or chunk.device).float(), size, mode="bilinear", antialias=True).round()
        small[done : done + len(chunk)] = reduced.to(torch.uint8)
        done += len(chunk)
    return small


def _shufflenet(times: int, width: float, channels: int, classes: int) -> nn.Module:
    from torchvision.models import ShuffleNetV2  # takes seconds to import, and only this file needs it

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
    # Without dropout, because a resumed training would not repeat its random draws.
    network.classifier = nn.Linear(features, classes)
    return network


def _stem(times: int, channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, stride=1 if times < 4 else 2, padding=1, bias=False)


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width / MULTIPLE)) * MULTIPLE
