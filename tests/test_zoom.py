"""Zoom levels: a location is a place and a level, against loops over pixels; training, prediction and refusals."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator, Tensor

import nogs
from nogs.attention.choosers import greedy, sampling
from nogs.attention.network import HardAttention, stack_states
from nogs.attention.overview import LocationMap, Overview, Scene, cells_of_detail
from nogs.data.canvases import Canvases
from nogs.errors import UserError
from nogs.glimpses.fovea import look, pixels_read_share
from nogs.glimpses.grid import Grid
from nogs.report.figures.maps import greatest_at_places
from staged import silent
from tiny import GLIMPSE_PX, STRIDE_PX, T, write_npz

GRIDS = [Grid(20, 4, 3, zoom=3), Grid(13, 3, 5, zoom=2), Grid(8, 4, 4, zoom=2)]
"""The last has one cell on its second level."""


def squares(grid: Grid) -> list[tuple[int, int, int]]:
    """(row, column, side) of every cell, by its definition: level after level, row after row."""
    found = []
    for k in range(grid.zoom):
        side, last = grid.glimpse_px * 2**k, grid.image_px - grid.glimpse_px * 2**k
        along = sorted({*range(0, last + 1, grid.stride_px * 2**k), last})
        found += [(row, column, side) for row, column in itertools.product(along, along)]
    return found


def noise(count: int, side: int, channels: int = 2) -> Tensor:
    return torch.randint(0, 256, (count, channels, side, side), generator=Generator().manual_seed(0)).to(torch.uint8)


@pytest.mark.parametrize("grid", GRIDS)
def test_cells_are_numbered_level_after_level(grid: Grid) -> None:
    expected = squares(grid)
    assert len(grid) == len(expected)
    cells = torch.arange(len(grid))
    assert grid.squares_px(cells).tolist() == [list(square) for square in expected]
    assert grid.top_left_px(cells).tolist() == [[row, column] for row, column, _ in expected]
    centres = [[2 * (at + side / 2) / grid.image_px - 1 for at in (row, column)] for row, column, side in expected]
    torch.testing.assert_close(grid.centres(cells), torch.tensor(centres))
    assert torch.equal(grid.squares_px(cells.view(1, -1)), grid.squares_px(cells)[None])


@pytest.mark.parametrize("grid", GRIDS)
def test_a_glimpse_is_the_mean_over_the_pixels_of_its_square(grid: Grid) -> None:
    images, g = noise(3, grid.image_px), grid.glimpse_px
    patches = look(images, grid, torch.arange(len(grid)).expand(2, -1), torch.tensor([2, 0])).patches
    for b, image in enumerate((images[2], images[0])):
        for cell, (top, left, side) in enumerate(squares(grid)):
            square = image[:, top : top + side, left : left + side].double()
            mean = square.reshape(2, g, side // g, g, side // g).mean((2, 4)).round()
            assert torch.equal(patches[b, cell].double(), mean), cell


def test_images_that_are_drawn_show_the_same() -> None:
    pictures = torch.randint(1, 256, (1, 9, 9), generator=Generator().manual_seed(1)).to(torch.uint8)
    stamps = torch.tensor([[[0, 0, 0, 9, 5, 7]], [[0, 0, 0, 9, 0, 11]]])
    canvases, grid = Canvases(pictures, stamps, image_px=20), GRIDS[0]
    cells = torch.arange(len(grid)).expand(2, -1)
    assert torch.equal(look(canvases, grid, cells).patches, look(canvases[:], grid, cells).patches)


@pytest.mark.parametrize("grid", GRIDS)
def test_pixels_are_those_of_reduced_images_each_once(grid: Grid) -> None:
    generator = Generator().manual_seed(2)
    cells, every = torch.randint(len(grid), (6, 5), generator=generator), squares(grid)
    for row, shares in zip(cells.tolist(), pixels_read_share(cells, grid, overview_px=2).tolist(), strict=True):
        read = set[tuple[int, int, int]]()
        for cell, share in zip(row, shares, strict=True):
            top, left, side = every[cell]
            read |= {(side, top + i, left + j) for i, j in itertools.product(range(side), range(side))}
            pixels = sum((grid.glimpse_px / side) ** 2 for side, *_ in read)
            assert share == pytest.approx(min(1, (pixels + 4) / grid.image_px**2))


@pytest.mark.parametrize("grid", GRIDS)
def test_a_cell_covers_those_whose_centres_its_square_has(grid: Grid) -> None:
    """Against the pixels of each square, doubled so that a centre between two pixels is one."""
    cells, every = torch.arange(len(grid)), squares(grid)
    for cell, (top, left, side) in enumerate(every):
        pixels = {(2 * top + i, 2 * left + j) for i in range(2 * side) for j in range(2 * side)}
        expected = [(2 * row + size, 2 * column + size) in pixels for row, column, size in every]
        assert grid.covers(torch.full_like(cells, cell), cells).tolist() == expected


def test_what_was_seen_in_less_detail_counts_less() -> None:
    grid, px = Grid(24, 4, 4, zoom=3), 6
    overview = Overview(grid, px, channels=1, width=8)
    every = squares(grid)
    for cell, mask in enumerate(overview.glimpsed(torch.arange(len(grid)))):
        top, left, side = every[cell]
        for i, j in itertools.product(range(px), range(px)):
            row, column = ((k + 0.5) * grid.image_px / px for k in (i, j))
            inside = top <= row < top + side and left <= column < left + side
            assert mask[i, j] == inside * grid.glimpse_px / side


def test_each_level_has_a_map_of_its_own() -> None:
    """A bias of one level's channel raises the logits of its cells alone, and parameters do not grow with places."""
    grid = Grid(24, 4, 4, zoom=2)
    head = LocationMap(grid, 6, hidden=8)
    h, scene = torch.randn(2, 8), Scene(torch.randn(2, 16, 6, 6), torch.zeros(2, 6, 6))
    before = head(h, scene)
    assert before.shape == (2, len(grid))
    with torch.no_grad():
        head.out.bias[head.finer**2 :] += 1
    raised = head(h, scene) - before
    first = grid.side**2
    torch.testing.assert_close(raised[:, :first], torch.zeros(2, first))
    torch.testing.assert_close(raised[:, first:], torch.ones(2, len(grid) - first))


def test_the_heads_along_given_cells_are_those_of_the_rollout_itself() -> None:
    torch.manual_seed(0)
    net = HardAttention(Grid(24, 4, 4, zoom=3), channels=2, classes=4, hidden=8, overview_px=6).eval()
    images, rows = noise(5, 24), torch.arange(5)
    begin = net.begin(images, rows)
    steps = list(net.unroll(images, rows, begin=begin, glimpses=4, choose=sampling(Generator().manual_seed(1))))
    cells, states = stack_states(steps)
    assert (cells >= net.grid.side**2).any()
    assert (cells < net.grid.side**2).any()
    torch.testing.assert_close(net.encode(look(images, net.grid, cells), begin), states)
    along = net.logits_along(cells, states, begin)
    torch.testing.assert_close(along, torch.stack([step.location_logits for step in steps], dim=1))


def test_where_a_glimpse_is_on_its_level_reaches_the_embedding() -> None:
    """Two squares with the same centre and the same pixels differ in their embedding by their level alone."""
    torch.manual_seed(0)
    grid = Grid(8, 4, 2, zoom=2)
    net = HardAttention(grid, channels=1, classes=2, hidden=8)
    cells = torch.tensor([4, 9])
    assert grid.centres(cells).tolist() == [[0, 0], [0, 0]]
    same = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    one, other = net.embedding(same, cells)
    assert not torch.allclose(one, other)


def test_candidates_of_detail_are_on_every_level() -> None:
    grid = Grid(32, 4, 4, zoom=3)
    overview = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    overview[0, 0, 2, 5] = 255
    cells = cells_of_detail(grid, overview, 300, Generator().manual_seed(0))[0]
    found = grid.squares_px(cells).tolist()
    assert {side for *_, side in found} == {4, 8, 16}
    # The bright pixel of the overview covers 8..12 by 20..24, and has 98 % of the detail.
    around = [row <= 10 <= row + side and column <= 22 <= column + side for row, column, side in found]
    assert sum(around) > 0.93 * len(around)


def test_a_picture_of_a_map_has_the_greatest_of_all_levels() -> None:
    grid = Grid(16, 4, 4, zoom=2)
    values = torch.zeros(len(grid))
    values[16 + 1] = 1  # the second square of 8 pixels of four in a line
    values[0] = 2
    greatest = greatest_at_places(values, grid).view(4, 4)
    expected = torch.zeros(4, 4)
    expected[:2, 2:] = 1
    expected[0, 0] = 2
    assert torch.equal(greatest, expected)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ((8, 4, 1, 3), "^zoom=3 with glimpse_px=8 makes squares of 32 px on image_px=20: choose at most 2$"),
        ((4, 4, 2, 2), "^zoom=2 with scales=2: choose one of the two, and 1 for the other$"),
        ((4, 4, 1, 0), "^zoom=0: must be at least 1$"),
    ],
)
def test_levels_that_make_no_grid_are_refused(options: tuple[int, int, int, int], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        Grid(20, *options)


def test_cells_of_several_levels_are_drawn_by_their_probabilities() -> None:
    """13 cells are no square: no draw falls outside, and shares are those of the softmax within 5 standard errors."""
    n = 20_000
    logits = torch.randn(1, 13, generator=Generator().manual_seed(3))
    drawn = sampling(Generator().manual_seed(4))(logits.expand(n, -1), 0)
    expected = logits[0].softmax(-1)
    shares = drawn.bincount(minlength=13) / n
    assert len(shares) == 13
    assert ((shares - expected).abs() < 5 * (expected * (1 - expected) / n).sqrt()).all()


def test_designed_sequences_have_one_level(tmp_path: Path) -> None:
    source = nogs.Source(f"npz:{write_npz(tmp_path / 'images.npz')}")
    geometry = nogs.Geometry(glimpse_size=GLIMPSE_PX, stride=STRIDE_PX, glimpses=T, zoom=2)
    with pytest.raises(UserError, match=r"^zoom=2: designed and imported sequences have one level; give zoom=1$"):
        nogs.run(nogs.Run(nogs.Machine(tmp_path / "run"), source, geometry, methods=("ps-nogs",)))
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="zoom=2"):
        nogs.fit_posterior(nogs.FitPosterior(nogs.Machine(tmp_path / "posterior"), source, geometry), silent)


@pytest.mark.parametrize("overview", [0, 4])
def test_a_trained_network_looks_on_both_levels_and_says_so(tmp_path: Path, overview: int) -> None:
    """The answer for a file has the squares of the cells, in its own pixels."""
    source = nogs.Source(f"npz:{write_npz(tmp_path / 'images.npz')}")
    geometry = nogs.Geometry(glimpse_size=GLIMPSE_PX, stride=STRIDE_PX, glimpses=3, overview=overview, zoom=2)
    fit = nogs.Optimisation(iterations=20, batch_size=16, validate_every=10)
    machine = nogs.Machine(tmp_path / "model")
    nogs.train(nogs.Train(machine, source, geometry, fit, method="gain", network=nogs.AttentionNetwork(8)), silent)
    model = nogs.load_model(tmp_path / "model")
    rng = np.random.default_rng(0)
    files = [Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)) for _ in range(8)]
    small = [np.array(file.resize((16, 16), Image.Resampling.LANCZOS)) for file in files]
    with torch.inference_mode():
        cells = model.network(torch.from_numpy(np.stack(small))[:, None], glimpses=3, choose=greedy).cells
    every = [tuple(2 * px for px in square) for square in squares(model.network.grid)]
    for answer, of_image in zip(model.predict(files), cells.tolist(), strict=True):
        assert [tuple(square) for square in answer.glimpses] == [every[cell] for cell in of_image]
