"""Glimpses, against naive loops and under shifts and mirrors."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
from torch import Tensor

import nogs.glimpses.fovea
from nogs.errors import UserError
from nogs.glimpses.fovea import Glimpses, fovea, look, pixels_read_share
from nogs.glimpses.grid import Grid
from nogs.glimpses.masked import masked_image
from world import OVERLAPPING, TILES, World

GRIDS = [
    Grid(image_px=12, glimpse_px=4, stride_px=4),
    Grid(image_px=12, glimpse_px=4, stride_px=3),  # 8 / 3 leaves a rest
    Grid(image_px=13, glimpse_px=3, stride_px=4),
    Grid(image_px=9, glimpse_px=9, stride_px=5),  # one cell
    Grid(image_px=10, glimpse_px=1, stride_px=1),
]
SCALED = [Grid(image_px=12, glimpse_px=g, stride_px=3, scales=3) for g in (2, 3)]


def images_of(grid: Grid, *, batch: int = 3, channels: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, channels, grid.image_px, grid.image_px)
    return torch.randint(0, 256, shape, generator=generator).to(torch.uint8)


def cells_of(grid: Grid, *, batch: int = 3, glimpses: int = 4, seed: int = 1) -> Tensor:
    return torch.randint(0, len(grid), (batch, glimpses), generator=torch.Generator().manual_seed(seed))


def look_everywhere(images: Tensor, grid: Grid) -> Tensor:
    """Every glimpse of the grid, of each image, in cell order."""
    return look(images, grid, torch.arange(len(grid)).expand(len(images), -1)).patches


def naive_fovea(image: Tensor, grid: Grid, top: int, left: int) -> list[float]:
    """One glimpse of one image [c, H, W], pixel by pixel: the definition. Returns cs * g * g values."""
    g, (_, H, W) = grid.glimpse_px, image.shape
    values: list[float] = []
    for scale, channel in itertools.product(range(grid.scales), range(len(image))):
        width = 2**scale
        margin = math.floor((g * width - g) / 2)  # concentric; where it cannot be, half a pixel up and left
        for row, column in itertools.product(range(g), range(g)):
            total = 0.0
            for i, j in itertools.product(range(width), range(width)):
                r = min(max(top - margin + row * width + i, 0), H - 1)
                c = min(max(left - margin + column * width + j, 0), W - 1)
                total += float(image[channel, r, c])
            mean = total / width**2
            values.append(mean if image.is_floating_point() else float(round(mean)))
    return values


@pytest.mark.parametrize("grid", [*GRIDS[:3], *SCALED])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_fovea_against_a_naive_loop(grid: Grid, dtype: torch.dtype) -> None:
    images = images_of(grid).to(dtype)
    chance = random.Random(0)
    # On the grid, off the grid, and outside of the image on every side.
    places = [[(chance.randint(-6, 15), chance.randint(-6, 15)) for _ in range(5)] for _ in range(3)]
    places[0][0], places[0][1], places[0][2] = (0, 0), (-40, 60), (grid.offsets_px[-1], grid.offsets_px[0])
    patches = fovea(images, grid, torch.tensor(places))
    assert patches.dtype == dtype
    assert patches.shape == (3, 5, 2 * grid.scales, grid.glimpse_px, grid.glimpse_px)
    for b, t in itertools.product(range(3), range(5)):
        expected = torch.tensor(naive_fovea(images[b], grid, *places[b][t]))
        torch.testing.assert_close(patches[b, t].flatten().float(), expected, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("grid", [*GRIDS[:3], *SCALED])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_squares_copied_a_line_at_a_time_are_those_taken_a_pixel_at_a_time(grid: Grid, dtype: torch.dtype) -> None:
    """In one piece lie lines of images that are contiguous, of squares between left and right; above and below may do.

    ``rows`` holds the last image, whose last pixel ends the memory, and images that begin elsewhere in theirs.
    """
    images, H, g = images_of(grid).to(dtype), grid.image_px, grid.glimpse_px
    apart = images.transpose(2, 3).contiguous().transpose(2, 3)
    chance, rows = random.Random(5), torch.tensor([2, 0, 2, 1])
    places = [[(chance.randint(-9, H + 9), chance.randint(0, H - g)) for _ in range(7)] for _ in rows]
    places[0][0], places[2][1] = (H - g, H - g), (0, 0)
    expected = fovea(apart, grid, torch.tensor(places), rows)
    assert torch.equal(fovea(images, grid, torch.tensor(places), rows), expected)
    assert torch.equal(fovea(images[1:], grid, torch.tensor(places[2:3]), rows[2:3] - 1), expected[2:3])


@pytest.mark.parametrize("grid", SCALED)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_many_glimpses_of_an_image_are_as_few_of_it(
    grid: Grid, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For glimpses inside and outside of the image, and of some images only."""
    images, rows = images_of(grid).to(dtype), torch.tensor([1, 0, 1])
    places = torch.randint(-grid.image_px, 2 * grid.image_px, (3, 200, 2), generator=torch.Generator().manual_seed(2))
    few = torch.cat([fovea(images, grid, some, rows) for some in places.split(1, dim=1)], dim=1)
    cut = []
    real = nogs.glimpses.fovea._averaged_first
    monkeypatch.setattr(nogs.glimpses.fovea, "_averaged_first", lambda *how: cut.append(how) or real(*how))
    many = fovea(images, grid, places, rows)
    assert len(cut) == grid.scales - 1
    torch.testing.assert_close(many, few, rtol=0, atol=0 if dtype == torch.uint8 else 1e-4)


def test_fovea_of_images_that_are_not_square() -> None:
    grid = Grid(image_px=12, glimpse_px=4, stride_px=4, scales=2)
    image = images_of(grid)[:1, :, :, :7]
    patch = fovea(image, grid, torch.tensor([[[8, 2]]]))
    assert patch.flatten().tolist() == naive_fovea(image[0], grid, 8, 2)


@pytest.mark.parametrize("grid", SCALED)
def test_fovea_is_linear_in_float_images(grid: Grid) -> None:
    a, b = images_of(grid, seed=2).double(), images_of(grid, seed=3).double()
    where = grid.top_left_px(cells_of(grid))
    together = fovea(2 * a - 3 * b, grid, where)
    torch.testing.assert_close(
        together.double(),
        2 * fovea(a, grid, where).double() - 3 * fovea(b, grid, where).double(),
        rtol=1e-5,
        atol=1e-3,
    )


@pytest.mark.parametrize("world", [TILES, OVERLAPPING], ids=["tiles", "overlapping"])
def test_look_sees_what_the_enumerated_world_shows(world: World) -> None:
    grid, images = world.grid(), world.image_tensor()
    assert grid.offsets_px == world.offsets_px
    patches = look_everywhere(images, grid)
    for atom, cell in itertools.product(range(len(images)), world.cells):
        assert tuple(patches[atom, cell].flatten().tolist()) == world.patch(world.images[atom], cell)


@pytest.mark.parametrize("grid", [*GRIDS, *SCALED])
def test_looking_everywhere_is_looking_at_each_cell(grid: Grid) -> None:
    images = images_of(grid)
    everywhere = look_everywhere(images, grid)
    assert everywhere.shape[1] == len(grid) == grid.side**2
    cells = cells_of(grid)
    seen = look(images, grid, cells)
    assert torch.equal(seen.cells, cells)
    assert torch.equal(seen.patches, everywhere[torch.arange(3)[:, None], cells])


@pytest.mark.parametrize("grid", GRIDS)
def test_the_grid_covers_the_image_to_its_last_pixel(grid: Grid) -> None:
    offsets = grid.offsets_px
    assert offsets[0] == 0
    assert offsets[-1] + grid.glimpse_px == grid.image_px
    steps = [after - before for before, after in itertools.pairwise(offsets)]
    assert all(step == grid.stride_px for step in steps[:-1])
    assert all(0 < step <= grid.stride_px for step in steps[-1:])


@pytest.mark.parametrize("image_px", range(1, 14))
def test_every_grid_of_small_images_has_no_repeats_and_no_gaps_longer_than_the_stride(image_px: int) -> None:
    for glimpse_px, stride_px in itertools.product(range(1, image_px + 1), range(1, image_px + 2)):
        offsets = Grid(image_px, glimpse_px, stride_px).offsets_px
        assert offsets[0] == 0
        assert offsets[-1] == image_px - glimpse_px
        assert all(0 < b - a <= stride_px for a, b in itertools.pairwise(offsets))


@pytest.mark.parametrize("grid", GRIDS)
def test_cells_to_pixels_and_back(grid: Grid) -> None:
    cells = torch.arange(len(grid))
    top_left = grid.top_left_px(cells)
    rows_then_columns = list(itertools.product(grid.offsets_px, grid.offsets_px))
    assert [tuple(place) for place in top_left.tolist()] == rows_then_columns
    assert torch.equal(grid.nearest_cells(top_left), cells)
    assert torch.equal(grid.nearest_cells(top_left.reshape(grid.side, grid.side, 2)).flatten(), cells)


def test_the_nearest_cell_is_nearest() -> None:
    grid = Grid(image_px=13, glimpse_px=3, stride_px=4)  # offsets 0, 4, 8, 10
    places = torch.tensor([[1, 3], [7, 10], [-5, 99]])
    assert grid.top_left_px(grid.nearest_cells(places)).tolist() == [[0, 4], [8, 10], [0, 10]]


@pytest.mark.parametrize("grid", GRIDS)
def test_centres_span_the_image_symmetrically(grid: Grid) -> None:
    centres = grid.centres(torch.arange(len(grid)))
    edge = grid.glimpse_px / grid.image_px
    torch.testing.assert_close(centres[0], torch.full((2,), edge - 1))
    torch.testing.assert_close(centres[-1], torch.full((2,), 1 - edge))
    for cell in (0, len(grid) // 2, len(grid) - 1):
        row, column = grid.offsets_px[cell // grid.side], grid.offsets_px[cell % grid.side]
        middle = [2 * (first + grid.glimpse_px / 2) / grid.image_px - 1 for first in (row, column)]
        assert centres[cell].tolist() == pytest.approx(middle, abs=1e-6)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_masked_image_is_the_image_times_the_mask(grid: Grid) -> None:
    images, cells = images_of(grid), cells_of(grid)
    mask = torch.zeros(3, 1, grid.image_px, grid.image_px)
    for b, cell in itertools.product(range(3), range(4)):
        row, column = divmod(int(cells[b, cell]), grid.side)
        top, left = grid.offsets_px[row], grid.offsets_px[column]
        mask[b, 0, top : top + grid.glimpse_px, left : left + grid.glimpse_px] = 1
    expected = torch.cat((images.float() / 255 * mask, mask), dim=1)
    assert torch.equal(masked_image(look(images, grid, cells), grid), expected)


@pytest.mark.parametrize("grid", [GRIDS[1], *SCALED])
def test_the_masked_image_does_not_depend_on_the_order_of_the_glimpses(grid: Grid) -> None:
    seen = look(images_of(grid), grid, cells_of(grid))
    for order in itertools.permutations(range(4)):
        permuted = Glimpses(seen.patches[:, order], seen.cells[:, order])
        assert torch.equal(masked_image(seen, grid), masked_image(permuted, grid))


@pytest.mark.parametrize("glimpses", [1, 4])
@pytest.mark.parametrize("grid", SCALED)
def test_the_masked_image_shows_the_sharpest_scale_and_the_mean_of_squares_that_overlap(
    grid: Grid, glimpses: int
) -> None:
    g, images, cells = grid.glimpse_px, images_of(grid), cells_of(grid, glimpses=glimpses)
    seen = look(images, grid, cells)
    got = masked_image(seen, grid)
    expected = torch.zeros_like(got)
    overlaps = 0
    for b, r, c in itertools.product(range(3), range(grid.image_px), range(grid.image_px)):
        for scale in range(grid.scales):
            width = 2**scale
            margin = math.floor((g * width - g) / 2)
            shown = []
            for t, (top, left) in enumerate(grid.top_left_px(cells[b]).tolist()):
                row, column = r - (top - margin), c - (left - margin)
                if 0 <= row < g * width and 0 <= column < g * width:
                    shown.append(seen.patches[b, t, 2 * scale : 2 * scale + 2, row // width, column // width].tolist())
            if shown:
                means = [sum(values) / len(shown) / 255 for values in zip(*shown, strict=True)]
                expected[b, :, r, c] = torch.tensor([*means, 1 / width])
                overlaps += scale > 0 and len(shown) > 1
                break
    torch.testing.assert_close(got, expected)
    assert (overlaps > 0) == (glimpses > 1)


@pytest.mark.parametrize("scales", [1, 3])
def test_shift_the_image_by_a_stride_and_the_glimpses_shift_by_a_cell(scales: int) -> None:
    grid = Grid(image_px=40, glimpse_px=4, stride_px=3, scales=scales)
    images = images_of(grid)
    shifted = images.roll((3, 3), dims=(2, 3))
    before = look_everywhere(images, grid).reshape(3, grid.side, grid.side, -1)
    after = look_everywhere(shifted, grid).reshape(3, grid.side, grid.side, -1)
    # Away from the border, where pixels repeat or roll around: coarse squares reach 6 px further out.
    assert torch.equal(after[:, 4:-2, 4:-2], before[:, 3:-3, 3:-3])
    assert not torch.equal(after[:, 4:-2, 4:-2], before[:, 4:-2, 4:-2])


@pytest.mark.parametrize("grid", [*GRIDS, Grid(image_px=12, glimpse_px=2, stride_px=3, scales=2)])
def test_mirror_the_image_and_the_places_and_the_glimpses_are_mirrored(grid: Grid) -> None:
    images = images_of(grid)
    places = grid.top_left_px(cells_of(grid))
    mirrored_places = torch.stack((places[..., 0], grid.image_px - grid.glimpse_px - places[..., 1]), dim=-1)
    mirrored = fovea(images.flip(-1), grid, mirrored_places)
    # A glimpse of even size has the same margin on both sides at every scale, so it mirrors exactly too.
    assert torch.equal(mirrored, fovea(images, grid, places).flip(-1))


@pytest.mark.parametrize("grid", [*GRIDS, *SCALED])
def test_what_is_seen_of_an_image_does_not_depend_on_its_batch(grid: Grid) -> None:
    images, cells = images_of(grid), cells_of(grid)
    seen = look(images, grid, cells)
    alone = look(images[1:2], grid, cells[1:2])
    assert torch.equal(alone.patches, seen.patches[1:2])
    if grid.scales == 1:
        assert torch.equal(masked_image(alone, grid), masked_image(seen, grid)[1:2])


@pytest.mark.parametrize(
    ("image_px", "glimpse_px", "stride_px", "complaint"),
    [
        (8, 0, 1, "glimpse_px=0: must be at least 1"),
        (8, 4, 0, "stride_px=0: must be at least 1"),
        (8, 4, -3, "stride_px=-3: must be at least 1"),
        (8, 9, 1, "glimpse_px=9 exceeds image_px=8: choose at most 8"),
    ],
)
def test_an_invalid_grid_names_the_flag(image_px: int, glimpse_px: int, stride_px: int, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        Grid(image_px=image_px, glimpse_px=glimpse_px, stride_px=stride_px)


def test_shapes_are_checked_in_tests() -> None:
    """The import hook of conftest.py is on: a wrong shape or dtype is refused at the door."""
    grid = GRIDS[0]
    with pytest.raises(TypeError, match="top_left_px"):
        fovea(images_of(grid), grid, torch.zeros(3, 4, 3, dtype=torch.int64))
    with pytest.raises(TypeError, match="cells"):
        look(images_of(grid), grid, torch.zeros(3, 4))
    with pytest.raises(TypeError):
        Grid(image_px="12", glimpse_px=4, stride_px=4)  # type: ignore[arg-type]


@pytest.mark.parametrize("overview_px", [0, 2])
@pytest.mark.parametrize("grid", [*GRIDS, *SCALED])
def test_the_share_of_pixels_read_counts_each_pixel_once(
    grid: Grid, overview_px: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a set of (row, column) after each glimpse, in batches of two images; an overview adds its own pixels."""
    monkeypatch.setattr(nogs.glimpses.fovea, "SHARE_BATCH", 2)
    cells = cells_of(grid, batch=5)
    found = pixels_read_share(cells, grid, overview_px=overview_px)
    wide = 2 ** (grid.scales - 1)
    for row, shares in zip(cells.tolist(), found.tolist(), strict=True):
        read = set[tuple[int, int]]()
        for cell, share in zip(row, shares, strict=True):
            top, left = (grid.offsets_px[k] - grid.glimpse_px * (wide - 1) // 2 for k in divmod(cell, grid.side))
            side = range(grid.glimpse_px * wide)
            read |= {(top + i, left + j) for i, j in itertools.product(side, side)}
            inside = [pixel for pixel in read if all(0 <= k < grid.image_px for k in pixel)]
            assert share == pytest.approx(min(1, (len(inside) + overview_px**2) / grid.image_px**2))


def test_a_grid_of_too_many_locations_is_refused_with_the_stride_that_fits() -> None:
    assert len(Grid(image_px=16_384, glimpse_px=1, stride_px=5)) < 2**24
    with pytest.raises(UserError, match=r"^stride_px=1 makes 268435456 locations: choose at least 5$"):
        Grid(image_px=16_384, glimpse_px=1, stride_px=1)


@pytest.mark.parametrize(("glimpse_px", "widest"), [(16, 2), (9, 3), (8, 3), (4, 4), (1, 6)])
def test_scales_stop_where_a_square_covers_the_image_from_everywhere(glimpse_px: int, widest: int) -> None:
    grid = Grid(image_px=16, glimpse_px=glimpse_px, stride_px=1, scales=widest)
    assert glimpse_px * 2 ** (grid.scales - 1) >= 32 > glimpse_px * 2 ** (grid.scales - 2)
    with pytest.raises(UserError, match=rf"^scales={widest + 1} .*choose at most {widest}$"):
        Grid(image_px=16, glimpse_px=glimpse_px, stride_px=1, scales=widest + 1)
