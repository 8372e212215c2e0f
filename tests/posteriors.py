"""Small posteriors of both kinds with weights as after training, and glimpses cut out without `nogs.glimpses`."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from nogs.glimpses.fovea import Glimpses
from nogs.glimpses.grid import Grid
from nogs.posterior.lookahead import LookaheadPosterior
from nogs.posterior.masked_cnn import AVPCNN

IMAGE_PX, SIZE, CLASSES = 12, 4, 3
OFFSETS = (0, 3, 6, 8)
"""First pixels of cells: stride 3, and the last cell touches the border."""
L = len(OFFSETS) ** 2
Posteriors = LookaheadPosterior | AVPCNN


def make(kind: str, *, multilabel: bool = False, channels: int = 1, scales: int = 1, seed: int = 0) -> Posteriors:
    torch.manual_seed(seed)
    grid = Grid(image_px=IMAGE_PX, glimpse_px=SIZE, stride_px=3, scales=scales)
    if kind == "lookahead":
        posterior: Posteriors = LookaheadPosterior(
            grid, channels=channels, classes=CLASSES, multilabel=multilabel, hidden=16
        )
        with torch.no_grad():  # as training would
            posterior.start.normal_()
    else:
        posterior = AVPCNN(grid, channels=channels, classes=CLASSES, multilabel=multilabel)
        as_if_trained(posterior, channels)
    return posterior.eval()


def as_if_trained(posterior: AVPCNN, channels: int) -> None:
    """Set batch statistics from images, and weights of residual blocks whose output is not 0, as training would."""
    posterior.train()
    with torch.no_grad():
        for name, parameter in posterior.named_parameters():
            if name.endswith("bn2.weight"):
                parameter.uniform_(0.5, 1.5)  # timm starts them at 0
        for seed in range(3):
            posterior(observe(noise(8, channels, seed=seed), [0, 5, 10, 15], scales=posterior.grid.scales))


def noise(count: int, channels: int = 1, *, seed: int = 0) -> Tensor:
    shape = (count, channels, IMAGE_PX, IMAGE_PX)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=Generator().manual_seed(seed))


def observe(images: Tensor, cells: list[int], *, scales: int = 1) -> Glimpses:
    """The images at the same cells, cut out by slicing; averaged and with repeated borders where coarser."""
    patches = []
    for cell in cells:
        top, left = OFFSETS[cell // 4], OFFSETS[cell % 4]
        squares = [images[:, :, top : top + SIZE, left : left + SIZE]]
        if scales == 2:
            wide = nn.functional.pad(images.float(), (2, 2, 2, 2), mode="replicate")
            wide = wide[:, :, top : top + 2 * SIZE, left : left + 2 * SIZE]
            squares.append(nn.functional.avg_pool2d(wide, 2).round().to(torch.uint8))
        patches.append(torch.cat(squares, dim=1))
    g = (len(images), 0, images.shape[1] * scales, SIZE, SIZE)
    stacked = torch.stack(patches, dim=1) if patches else torch.empty(g, dtype=torch.uint8)
    return Glimpses(stacked, torch.tensor(cells, dtype=torch.long).expand(len(images), -1))


def join(seen: Glimpses, more: Glimpses) -> Glimpses:
    return Glimpses(*(torch.cat(pair, dim=1) for pair in zip(seen, more, strict=True)))
