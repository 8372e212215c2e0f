"""A linear discriminant at every location, against least squares as another library does it, and planted labels."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LinearRegression
from torch import Generator, Tensor

from nogs.glimpses.grid import Grid
from nogs.posterior.head_start import linear_gain

N = 400


def noise(image_px: int, channels: int = 1) -> Tensor:
    shape = (N, channels, image_px, image_px)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=Generator().manual_seed(0))


@pytest.mark.parametrize("classes", [2, 3])
def test_it_is_the_adjusted_share_of_least_squares(classes: int) -> None:
    """scikit-learn's regression of the one-hot label on each glimpse's 9 pixels; the ridge takes a few per cent."""
    images, grid = noise(9), Grid(9, 3, 3)
    brightness = images[:, 0, 3:6, 6:9].float().mean((1, 2))
    labels = (brightness.argsort().argsort() * classes) // N
    got = linear_gain(images, torch.arange(N), labels, grid)
    one_hot = torch.nn.functional.one_hot(labels).double().numpy()
    for cell in range(9):
        top, left = 3 * (cell // 3), 3 * (cell % 3)
        pixels = images[:, 0, top : top + 3, left : left + 3].flatten(1).double().numpy()
        residual = one_hot - LinearRegression().fit(pixels, one_hot).predict(pixels)
        share = 1 - residual.var(0).sum() / one_hot.var(0).sum()
        adjusted = torch.tensor(1 - (1 - share) * (N - 1) / (N - 1 - 9))
        assert got[cell].item() == pytest.approx(-torch.log1p(-adjusted).item() / 2, rel=0.05, abs=2e-3)
    assert int(got.argmax()) == 5
    assert got[5] > 0.2


def test_it_finds_where_each_of_many_labels_is_decided() -> None:
    """Two labels, each of one corner's 8 x 8 pixels, which are averaged down; elsewhere nothing, on average."""
    images, grid = noise(24, channels=3), Grid(24, 8, 4)
    corners = images[:, 0, :8, :8].float().mean((1, 2)), images[:, 1, 16:, 16:].float().mean((1, 2))
    labels = torch.stack([corner > corner.median() for corner in corners], dim=1).long()
    got = linear_gain(images, torch.arange(N), labels, grid)
    assert set(got.topk(2).indices.tolist()) == {0, len(grid) - 1}
    far = torch.tensor([grid.side - 1, len(grid) - grid.side, len(grid) // 2])
    assert got[far].abs().max() < 0.05


def test_only_the_given_rows_count() -> None:
    images, grid = noise(9), Grid(9, 3, 3)
    rows = torch.arange(0, N, 2)
    labels = (images[:, 0, 4, 4] > 128).long()
    expected = linear_gain(images[rows], torch.arange(len(rows)), labels[rows], grid)
    images[1::2] = 0
    torch.testing.assert_close(linear_gain(images, rows, labels[rows], grid), expected)


def test_constant_pixels_and_labels_have_no_gain() -> None:
    images, labels = torch.full((20, 1, 9, 9), 7, dtype=torch.uint8), torch.tensor([0, 1] * 10)
    assert linear_gain(images, torch.arange(20), labels, Grid(9, 3, 3)).max() <= 0
    assert linear_gain(noise(9), torch.arange(N), torch.zeros(N, dtype=torch.long), Grid(9, 3, 3)).max() <= 0
