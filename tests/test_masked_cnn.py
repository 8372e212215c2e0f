"""The masked-CNN posterior: the order of glimpses, the paper's backbone, and backbones that cannot be had."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import nn

from nogs.glimpses.fovea import Glimpses
from nogs.glimpses.grid import Grid
from nogs.posterior.masked_cnn import AVPCNN
from posteriors import make, noise, observe


@pytest.mark.parametrize("cells", [[0, 15, 5], [5, 6, 9]], ids=["apart", "overlapping"])
def test_the_avp_cnn_does_not_mind_the_order(cells: list[int]) -> None:
    posterior, images = make("avp-cnn"), noise(2)
    with torch.inference_mode():
        said = [posterior(observe(images, list(order))).logits for order in permutations(cells)]
        other = posterior(observe(images, [*cells[:2], 3])).logits
    for again in said[1:]:
        torch.testing.assert_close(again, said[0], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(other, said[0])


def test_the_papers_backbone_takes_the_mask_as_a_fourth_channel() -> None:
    torch.manual_seed(0)
    grid = Grid(image_px=32, glimpse_px=8, stride_px=8)
    posterior = AVPCNN(grid, channels=3, classes=2, multilabel=False, backbone="densenet121").eval()
    first = next(layer for layer in posterior.backbone.modules() if isinstance(layer, nn.Conv2d))
    assert first.in_channels == 4
    patches = torch.randint(0, 256, (2, 1, 3, 8, 8), dtype=torch.uint8)
    with torch.inference_mode():
        said = posterior(Glimpses(patches, torch.tensor([[0], [5]])))
    assert said.probs.shape == (2, 2)
    assert torch.isfinite(said.logits).all()
