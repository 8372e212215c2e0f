"""The glimpse embedding: a product of what and where, for any glimpse size."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nogs.glimpses.embedding import GlimpseEmbedding, convolutional, perceptron, to_unit
from nogs.glimpses.grid import Grid

SIZES = [1, 2, 3, 5, 6, 7, 8, 10, 16]
What = Callable[..., nn.Module]
WHATS = pytest.mark.parametrize("what", [convolutional, perceptron])


class Constant(nn.Module):
    """A network whose output is the same for every row."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, rows: Tensor) -> Tensor:
        return self.logits.expand(len(rows), -1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def make(grid: Grid, *, what: What = convolutional, channels: int = 1, width: int = 6) -> GlimpseEmbedding:
    torch.manual_seed(0)
    return GlimpseEmbedding(grid, what(grid, channels, width=width), width=width)


def test_pixels_are_scaled_to_minus_one_and_one() -> None:
    pixels = torch.tensor([0, 51, 204, 255], dtype=torch.uint8)
    torch.testing.assert_close(to_unit(pixels), torch.tensor([-1.0, -0.6, 0.6, 1.0]))


def test_it_is_the_rectified_product_of_what_and_where() -> None:
    # φ = (2, -3, 2, -3) and ψ = (row, row, column, column) of the centre: worked by hand for the four
    # quadrants of an 8 px image, whose centres are 2 and 6 of 8 pixels in, -1/2 and 1/2 of [-1, 1].
    embedding = make(Grid(image_px=8, glimpse_px=4, stride_px=4), width=4)
    embedding.what = nn.Sequential(Constant([2.0, -3.0, 2.0, -3.0]))
    embedding.where = nn.Sequential(nn.Linear(2, 4, bias=False))
    with torch.no_grad():
        embedding.where[0].weight.copy_(torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]]))
    expected = torch.tensor([[0, 1.5, 0, 1.5], [0, 1.5, 1, 0], [1, 0, 0, 1.5], [1, 0, 1, 0]])
    for cells in (torch.arange(4), torch.arange(4)[:2]):  # as many as there are cells, and fewer
        got = embedding(noise(len(cells), 1, 4, 4), cells)
        torch.testing.assert_close(got, expected[: len(cells)])


@WHATS
def test_few_glimpses_and_many_are_embedded_alike(what: What) -> None:
    grid = Grid(image_px=9, glimpse_px=3, stride_px=3)
    embedding, cells = (
        make(grid, what=what),
        torch.randint(len(grid), (20,), generator=torch.Generator().manual_seed(1)),
    )
    patches = noise(20, 1, 3, 3)
    alone = torch.cat([embedding(patches[[i]], cells[[i]]) for i in range(20)])
    torch.testing.assert_close(embedding(patches, cells), alone)
    in_rows = embedding(patches.unflatten(0, (4, 5)), cells.unflatten(0, (4, 5)))
    torch.testing.assert_close(in_rows.flatten(0, 1), alone)


@WHATS
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 6])
def test_every_pixel_of_any_glimpse_counts(what: What, size: int, channels: int) -> None:
    embedding = make(Grid(image_px=20, glimpse_px=size, stride_px=4), what=what, channels=channels)
    shown = to_unit(noise(24, channels, size, size)).requires_grad_()
    features = embedding.what(shown)
    assert features.shape == (24, 6)
    sensitivity = torch.autograd.grad(features.square().sum(), shown)[0].abs().amax(0)
    assert (sensitivity > 0).all()


@WHATS
@pytest.mark.parametrize("size", SIZES)
def test_gradient_reaches_every_parameter(what: What, size: int) -> None:
    grid = Grid(image_px=20, glimpse_px=size, stride_px=4)
    embedding = make(grid, what=what, channels=3)
    embedding(noise(64, 3, size, size), torch.arange(64) % len(grid)).square().sum().backward()
    for name, parameter in embedding.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@WHATS
def test_the_state_holds_parameters_alone(what: What) -> None:
    # Centres follow from the grid: they are not saved.
    embedding = make(Grid(image_px=8, glimpse_px=4, stride_px=4), what=what)
    assert set(embedding.state_dict()) == {name for name, _ in embedding.named_parameters()}
