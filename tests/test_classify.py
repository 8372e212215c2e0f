"""Many images through a trained network: by hand, one at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

import nogs.attention.classify
from nogs.attention.choosers import greedy
from nogs.attention.network import HardAttention
from nogs.glimpses.grid import Grid


def test_a_batch_gives_the_answers_of_single_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nogs.attention.classify, "BATCH", 2)
    torch.manual_seed(0)
    network = HardAttention(Grid(image_px=9, glimpse_px=3, stride_px=3), channels=1, classes=2, hidden=4).eval()
    pixels = torch.randint(0, 256, (6, 1, 9, 9), dtype=torch.uint8, generator=Generator().manual_seed(0))
    images = torch.tensor([5, 0, 3, 1, 4])
    seen = nogs.attention.classify.look_at_all(network, pixels, images, glimpses=3, choose=greedy)
    assert not seen.class_logits.requires_grad
    for row, image in enumerate(images):
        alone = network(pixels[image : image + 1], glimpses=3, choose=greedy)
        assert torch.equal(seen.cells[row], alone.cells[0])
        torch.testing.assert_close(seen.class_logits[row], alone.class_logits[0])
