"""Initial weights after He et al. 2015: their moments, and that features keep the scale of their input."""

from __future__ import annotations

import torch
from torch import Generator, nn

from nogs.glimpses.embedding import GlimpseEmbedding, convolutional
from nogs.glimpses.grid import Grid
from nogs.glimpses.initial import initialise


def test_weights_have_the_variance_two_by_fan_in() -> None:
    """Of 32,000 weights each: the sample variance has a relative standard deviation of 0.8 %, five of them are 4 %."""
    torch.manual_seed(0)
    linear, convolution = nn.Linear(160, 200), nn.Conv2d(20, 64, 5)
    initialise(nn.Sequential(linear, nn.Sequential(convolution)))
    for layer, fan_in in ((linear, 160), (convolution, 20 * 25)):
        assert layer.bias is not None
        assert not layer.bias.any()
        torch.testing.assert_close(layer.weight.var() * fan_in / 2, torch.tensor(1.0), rtol=0.04, atol=0)


def test_features_of_glimpses_vary_as_much_as_pixels() -> None:
    """Over random glimpses, within a factor of ten; with torch's own weights it is less than a hundredth."""
    grid = Grid(image_px=64, glimpse_px=32, stride_px=32)
    chance = Generator().manual_seed(0)
    patches = torch.randint(0, 256, (100, 1, 32, 32), dtype=torch.uint8, generator=chance)
    cells = torch.zeros(100, dtype=torch.long)
    torch.manual_seed(0)
    embedding = GlimpseEmbedding(grid, convolutional(grid, 1, width=64), width=64)
    with torch.no_grad():
        small = embedding(patches, cells).std(0).mean()
        initialise(embedding)
        large = embedding(patches, cells).std(0).mean()
    pixels = (patches.float() / 127.5 - 1).std()
    assert small < pixels / 100
    assert pixels / 10 < large < pixels * 10
