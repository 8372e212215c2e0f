"""Proposals against reconstruction glimpse by glimpse, against sorting, and against exact pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Generator, Tensor

from nogs.completion.pca import principal_components, project
from nogs.completion.proposals import Query, Viewer, nearest, squared_distances
from nogs.glimpses.fovea import Glimpses, look
from nogs.glimpses.grid import Grid

GRID = Grid(image_px=12, glimpse_px=4, stride_px=4, scales=1)
COARSE = Grid(image_px=12, glimpse_px=4, stride_px=4, scales=2)
EVERYTHING = 1000
"""A rank that no glimpse exceeds."""


def chance(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def faces(count: int, *, channels: int = 3, px: int = 12, seed: int = 0) -> Tensor:
    """Smooth pictures, as photographs are: waves of falling strength, and a little noise; uint8."""
    rng = np.random.default_rng(seed)
    waves = np.cos(np.outer(np.arange(6), (np.arange(px) + 0.5) * np.pi / px))
    strength = 60 / (1 + np.add.outer(np.arange(6), np.arange(6)))
    amplitudes = rng.normal(size=(count, channels, 6, 6)) * strength
    pictures = 128 + waves.T @ amplitudes @ waves + rng.normal(size=(count, channels, px, px))
    return torch.from_numpy(pictures.clip(0, 255).astype(np.uint8))


def pixels_seen(pictures: np.ndarray, grid: Grid, cell: int) -> np.ndarray:
    """The squares of one cell, cut out by slices; the second scale averaged by twos, the border repeated."""
    top, left = (int(x) for x in divmod(cell, grid.side))
    top, left = grid.offsets_px[top], grid.offsets_px[left]
    squares = [pictures[..., top : top + 4, left : left + 4]]
    if grid.scales == 2:
        padded = np.pad(pictures, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge")
        wide = padded[..., top : top + 8, left : left + 8]
        squares.append(wide.reshape(*wide.shape[:2], 4, 2, 4, 2).mean((3, 5)))
    return np.concatenate(squares, axis=1)


def query_of(viewer: Viewer, images: Tensor, cells: list[list[int]]) -> Query:
    return viewer.query(look(images, viewer.grid, torch.tensor(cells)))


@pytest.mark.parametrize("grid", [GRID, COARSE], ids=["sharp", "scales"])
@pytest.mark.parametrize("mirror", [False, True])
def test_at_full_rank_the_form_is_the_distance_to_the_reconstruction(grid: Grid, mirror: bool) -> None:
    """Whole images rebuilt in float64, and every glimpse cut out of them; cells shared, apart, and seen twice."""
    bank, others = faces(70), faces(3, seed=1)
    mean, components = principal_components(bank, components=20, generator=chance())
    latents = project(bank, mean, components)
    viewer = Viewer(mean, components, grid, EVERYTHING)
    cells = [[4, 0, 8], [0, 4, 2], [7, 7, 3]]
    seen = look(others, grid, torch.tensor(cells))
    query = (viewer.mirrored() if mirror else viewer).query(seen)
    found = squared_distances(latents, query)
    rebuilt = mean.double().numpy() + np.einsum("nk,kchw->nchw", latents.double(), components.double())
    rebuilt = rebuilt[..., ::-1] if mirror else rebuilt
    for row, path in enumerate(cells):
        expected = np.zeros(len(bank))
        for t, cell in enumerate(path):
            difference = pixels_seen(rebuilt, grid, cell) - seen.patches[row, t].double().numpy()
            expected += (difference**2).sum((1, 2, 3))
        np.testing.assert_allclose(found[row].numpy(), expected, rtol=1e-3, atol=1e-3 * expected.max())


def test_a_lower_rank_keeps_the_directions_in_which_images_differ_most() -> None:
    """The part of a glimpse's variance that r directions keep is that of its r largest principal components."""
    bank = faces(300)
    mean, components = principal_components(bank, components=60, generator=chance())
    z = project(bank, mean, components)
    for cell in (0, 4):
        shown = pixels_seen(np.einsum("nk,kchw->nchw", z, components), GRID, cell).reshape(len(bank), -1)
        spectrum = np.linalg.svd(shown - shown.mean(0), compute_uv=False) ** 2
        kept = (z @ Viewer(mean, components, GRID, 5).view(cell).forms).var(0, correction=0).sum() * len(bank)
        assert float(kept) == pytest.approx(spectrum[:5].sum(), rel=1e-3)


def test_a_cell_that_is_equal_in_all_images_gives_equal_distances() -> None:
    bank = faces(40)
    bank[..., :4, :4] = 0
    mean, components = principal_components(bank, components=10, generator=chance())
    query = query_of(Viewer(mean, components, GRID, 16), faces(1, seed=1), [[0]])
    distances = squared_distances(project(bank, mean, components), query)
    torch.testing.assert_close(distances, distances[:, :1].expand_as(distances), rtol=1e-4, atol=0)


@pytest.mark.parametrize("sizes", [[90], [1, 50, 3, 36], [30] * 3], ids=str)
@pytest.mark.parametrize("count", [1, 7, 400])
def test_the_best_of_all_blocks_are_the_best_of_all(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], count: int
) -> None:
    monkeypatch.setattr("nogs.completion.proposals.ROWS", 8)
    bank, others = faces(90), faces(4, seed=1)
    mean, components = principal_components(bank, components=20, generator=chance())
    latents, viewer = project(bank, mean, components), Viewer(mean, components, GRID, 8)
    queries = [query_of(view, others, [[4], [4], [0], [8]]) for view in (viewer, viewer.mirrored())]
    groups = torch.tensor([0, 3, -1, 29])
    groups_of_bank = torch.arange(90) // 3
    found = nearest(latents.split(sizes), queries, count=count, groups=groups, groups_of_bank=groups_of_bank)
    every = torch.stack([squared_distances(latents, query) for query in queries], -1).numpy()
    every[groups.numpy()[:, None] == groups_of_bank.numpy()] = np.inf
    for row, distances in enumerate(every.reshape(4, 180)):
        order = np.argsort(distances)[:count]
        np.testing.assert_allclose(found.distances[row].numpy(), distances[order], rtol=1e-4)
        usable = np.isfinite(distances[order])
        assert found.indices[row].tolist()[: usable.sum()] == order[usable].tolist()
        assert usable.sum() == min(count, 180 - 6 * (groups[row] >= 0))


def test_half_precision_from_a_memory_map_is_as_near_as_its_rounding_allows(tmp_path: Path) -> None:
    """Numbers z, w and their product each rounded to 8 bits: |δ(z·w)| ≤ 3 ε Σ |z||w| to first order, ε = 2^-8."""
    bank, others = faces(500), faces(5, seed=1)
    mean, components = principal_components(bank, components=40, generator=chance())
    latents = project(bank, mean, components)
    save_file({"latents": latents.bfloat16()}, tmp_path / "bank.safetensors")
    with safe_open(tmp_path / "bank.safetensors", "pt") as file:
        mapped = file.get_tensor("latents")
    query = query_of(Viewer(mean, components, GRID, 16), others, [[4, 1]] * 5)
    exact, rough = squared_distances(latents, query), squared_distances(mapped, query)
    error = 3 * 2**-8 * latents.abs() @ query.forms.abs()
    for b in range(5):
        off = (latents @ query.forms - query.targets[:, b]).abs()
        bound = (2 * off * error + error.square()).sum(1)
        assert ((rough[b] - exact[b]).abs() <= 1.1 * bound + 1e-3 * exact[b]).all()
    assert (rough / exact - 1).abs().mean() < 0.02


@pytest.mark.parametrize("t", [1, 2, 4])
def test_the_images_that_are_nearest_by_their_pixels_are_proposed(t: int) -> None:
    """Of the 16 nearest of 2,000, mirror images too, among 64 proposals in half precision, at the default rank."""
    bank, others = faces(1000, px=24), faces(10, px=24, seed=1)
    grid = Grid(image_px=24, glimpse_px=8, stride_px=4)
    mean, components = principal_components(bank, components=64, generator=chance())
    latents = project(bank, mean, components).bfloat16()
    cells = torch.stack([torch.randperm(len(grid), generator=chance(b))[:t] for b in range(10)])
    seen = look(others, grid, cells)
    viewer = Viewer(mean, components, grid, 16)
    queries = [viewer.query(seen), viewer.mirrored().query(seen)]
    no_groups = torch.full((10,), -1)
    found = nearest((latents,), queries, count=64, groups=no_groups, groups_of_bank=None).indices
    views = torch.stack((bank, bank.flip(-1)), dim=1).flatten(0, 1)
    recalled = 0
    for row in range(10):
        shown = look(views, grid, cells[row].expand(2000, -1)).patches
        distances = (shown.float() - Glimpses(*seen).patches[row].float()).square().flatten(1).sum(1)
        best = distances.topk(16, largest=False).indices.tolist()
        recalled += len(set(best) & set(found[row].tolist()))
    assert recalled / 160 >= 0.95
