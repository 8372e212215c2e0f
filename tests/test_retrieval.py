"""Completion by retrieval, against loops over pixels and against a world small enough to enumerate."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from itertools import pairwise

import pytest
import torch
from torch import Generator, Tensor

from nogs.completion.bank import Bank, Selection
from nogs.completion.pca import principal_components, project
from nogs.completion.protocol import Completions
from nogs.completion.retrieval import Retrieval, _resample, _sliding, temper
from nogs.config.groups import RetrievalOptions
from nogs.errors import UserError
from nogs.glimpses.fovea import Glimpses, look
from nogs.glimpses.grid import Grid
from world import TILES

IMAGE_PX = 8
GRID = Grid(image_px=IMAGE_PX, glimpse_px=3, stride_px=2)
"""Offsets 0, 2, 4, 5; 16 cells."""
OFFSETS = (0, 2, 4, 5)
Pixels = list[list[int]]


def chance(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def noise(count: int, channels: int = 1, *, px: int = IMAGE_PX, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (count, channels, px, px), dtype=torch.uint8, generator=chance(seed))


def bank_of(images: Tensor, *, mirror: bool = True, components: int = 1000, groups: Tensor | None = None) -> Bank:
    """A bank as build-bank writes it, but with latents in full precision."""
    mean, basis = principal_components(images, components=components, generator=chance())
    groups = torch.arange(len(images)) if groups is None else groups
    return Bank(
        lambda rows: Selection(images, rows), groups, mirror, mean, basis, project(images, mean, basis).split(7)
    )


def no_groups(count: int) -> Tensor:
    """Groups that no image of the bank belongs to."""
    return torch.full((count,), -1)


def shifted(picture: Pixels, dy: int, dx: int) -> Pixels:
    """The picture moved down and right by (dy, dx); the border pixel repeats."""
    H, W = len(picture), len(picture[0])
    return [[picture[min(max(r - dy, 0), H - 1)][min(max(c - dx, 0), W - 1)] for c in range(W)] for r in range(H)]


def mirrored(picture: Pixels) -> Pixels:
    return [line[::-1] for line in picture]


def window(picture: Pixels, cell: int) -> list[int]:
    top, left = OFFSETS[cell // 4], OFFSETS[cell % 4]
    return [picture[top + r][left + c] for r in range(3) for c in range(3)]


def squared(a: list[int], b: list[int]) -> int:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def tuned(distances: list[int], target: float) -> list[float]:
    """exp(-d / 2σ²), normalised, with the σ² whose effective sample size is the target; by bisection in floats."""
    least = min(distances)
    low, high = 1e-9, 1e12
    weights: list[float] = []
    for _ in range(300):
        middle = math.sqrt(low * high)
        weights = [math.exp(-(d - least) / middle) for d in distances]
        total = sum(weights)
        weights = [w / total for w in weights]
        low, high = (middle, high) if 1 / sum(w * w for w in weights) < target else (low, middle)
    return weights


def key(picture: Pixels) -> tuple[tuple[int, ...], ...]:
    return tuple(map(tuple, picture))


def weight_by_image(found: Completions) -> dict[tuple[tuple[int, ...], ...], float]:
    total: Counter[tuple[tuple[int, ...], ...]] = Counter()
    for image, weight in zip(found.images[:, 0].tolist(), found.weights.tolist(), strict=True):
        total[key(image)] += weight
    return dict(total)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("cells", [[5], [0, 15, 6]], ids=len)
def test_with_all_components_proposals_are_ranked_by_their_pixels(mirror: bool, cells: list[int]) -> None:
    images, others = noise(80), noise(3, seed=1)
    bank = bank_of(images, mirror=mirror)
    options = RetrievalOptions(proposals=80 * (1 + mirror))
    seen = look(others, GRID, torch.tensor([cells] * 3))
    ranked = Retrieval(bank, GRID, options)._propose(seen, no_groups(3))
    views = (lambda picture: picture, mirrored)[: 1 + mirror]
    pictures = [view(picture) for picture in images[:, 0].tolist() for view in views]
    for row, other in enumerate(others[:, 0].tolist()):
        distances = [sum(squared(window(picture, cell), window(other, cell)) for cell in cells) for picture in pictures]
        along = [distances[index] for index in torch.as_tensor(ranked[row]).tolist()]
        assert sorted(torch.as_tensor(ranked[row]).tolist()) == list(range(len(pictures)))
        # Distances of millions, in float32.
        assert all(a <= b * (1 + 1e-4) for a, b in pairwise(along))


def test_images_may_be_looked_at_in_different_places() -> None:
    images = noise(40)
    retrieval = Retrieval(bank_of(images), GRID, RetrievalOptions(proposals=10))
    cells = torch.tensor([[5, 0], [0, 5], [5, 7]])
    seen = look(images[:3], GRID, cells)
    together = retrieval._propose(seen, no_groups(3))
    for row in range(3):
        assert int(together[row][0]) == 2 * row  # itself, exactly; its mirror image would be one more
        alone = retrieval._propose(Glimpses(seen.patches[[row]], seen.cells[[row]]), no_groups(1))
        assert torch.as_tensor(alone[0]).tolist() == torch.as_tensor(together[row]).tolist()


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_weights_are_those_of_the_summed_distances(shift: int, mirror: bool) -> None:
    """Every candidate at every shift by loops over pixels, two glimpses, and weights tuned by an own bisection."""
    images, other = noise(12), noise(1, seed=1)
    images //= 2
    cells, N, target = [0, 10], 4000, 6.0
    options = RetrievalOptions(completions=N, proposals=100, shift=shift, effective=target / N)
    found = Retrieval(bank_of(images, mirror=mirror), GRID, options)(
        look(other, GRID, torch.tensor([cells])), groups=no_groups(1), generator=chance()
    )
    pictures = images[:, 0].tolist()
    pictures += [mirrored(picture) for picture in pictures] if mirror else []
    moves = [(dy, dx) for dy in (-shift, 0, shift) for dx in (-shift, 0, shift)] if shift else [(0, 0)]
    candidates = [shifted(picture, dy, dx) for picture in pictures for dy, dx in moves]
    seen = other[0, 0].tolist()
    distances = [sum(squared(window(c, cell), window(seen, cell)) for cell in cells) for c in candidates]
    weights = tuned(distances, target)
    expected: Counter[tuple[tuple[int, ...], ...]] = Counter()
    for candidate, weight in zip(candidates, weights, strict=True):
        expected[key(candidate)] += weight
    got = weight_by_image(found)
    assert got.keys() <= expected.keys()
    # Systematic resampling gives each its share of N, to the next whole number.
    assert all(abs(got.get(k, 0.0) - w) < 1.5 / N + 1e-4 for k, w in expected.items())
    assert found.effective.item() == pytest.approx(target, rel=0.01)


def test_every_glimpse_has_its_say() -> None:
    """Log weights add: agreeing with all a little less beats agreeing with one perfectly."""
    true = torch.full((1, 1, IMAGE_PX, IMAGE_PX), 100, dtype=torch.uint8)
    left, right, near = true.clone(), true.clone(), true + 20
    left[..., 4:] = 200  # right at the left glimpse, far off at the right one
    right[..., :4] = 200
    bank = bank_of(torch.cat((left, right, near, noise(5))), mirror=False)
    options = RetrievalOptions(completions=100, shift=0, effective=0.011)
    found = Retrieval(bank, GRID, options)(
        look(true, GRID, torch.tensor([[0, 3]])), groups=no_groups(1), generator=chance()
    )
    assert found.weights[(found.images == near).flatten(1).all(1)].sum() > 0.9


def test_completions_of_an_enumerable_world_are_its_posterior() -> None:
    """With exact matches and an effective sample size of one, only the atoms that agree with the glimpses are left."""
    bank = bank_of(TILES.image_tensor(), mirror=False)
    N = 960
    retrieval = Retrieval(bank, TILES.grid(), RetrievalOptions(completions=N, shift=0, effective=1 / N))
    ambiguous = 0
    for atom in range(len(TILES.images)):
        for cells in ([4], [0, 5], [8, 2, 3]):
            seen = look(TILES.image_tensor()[[atom]], TILES.grid(), torch.tensor([cells]))
            found = weight_by_image(retrieval(seen, groups=no_groups(1), generator=chance(atom)))
            agree = [TILES.images[other] for other, _ in TILES.completions(TILES.look(atom, cells))]
            expected = {key: count / len(agree) for key, count in Counter(agree).items()}
            assert found.keys() == expected.keys()
            assert all(abs(found[image] - share) < 2 / N for image, share in expected.items())
            ambiguous += len(agree) > 1
    assert ambiguous > 10


def smooth(count: int, *, seed: int = 0) -> Tensor:
    """16 px pictures with room to move: noise in the middle of grey."""
    images = torch.full((count, 1, 16, 16), 128, dtype=torch.uint8)
    images[..., 4:12, 4:12] = noise(count, px=8, seed=seed)
    return images


SPACIOUS = Grid(image_px=16, glimpse_px=5, stride_px=1)


@pytest.mark.parametrize("move", [(-2, -2), (-2, 0), (-2, 2), (0, -2), (0, 2), (2, -2), (2, 0), (2, 2)])
def test_an_image_that_was_moved_is_found_and_moved_back(move: tuple[int, int]) -> None:
    images = smooth(10)
    true = torch.tensor(shifted(images[3, 0].tolist(), *move), dtype=torch.uint8)[None, None]
    seen = look(true, SPACIOUS, torch.tensor([[5 * 12 + 5, 3 * 12 + 7]]))
    options = RetrievalOptions(completions=8, shift=2, effective=1 / 8)
    bank = bank_of(images)
    found = Retrieval(bank, SPACIOUS, options)(seen, groups=no_groups(1), generator=chance())
    assert torch.equal(found.images, true)
    assert found.weights.tolist() == [1.0]
    for other in (0, 1):  # neither without shifts, nor with others
        options = RetrievalOptions(completions=8, shift=other, effective=1 / 8)
        found = Retrieval(bank, SPACIOUS, options)(seen, groups=no_groups(1), generator=chance())
        assert not (found.images == true).flatten(1).all(1).any()


@pytest.mark.parametrize("cells", [[0], [5, 8]], ids=len)
def test_the_mirror_image_of_a_bank_image_is_found_by_its_pixels(cells: list[int]) -> None:
    images = noise(30)
    true = torch.tensor(mirrored(images[7, 0].tolist()), dtype=torch.uint8)[None, None]
    seen = look(true, GRID, torch.tensor([cells]))
    options = RetrievalOptions(completions=8, shift=0, effective=1 / 8, proposals=5)
    found = Retrieval(bank_of(images), GRID, options)(seen, groups=no_groups(1), generator=chance())
    assert torch.equal(found.images, true)
    found = Retrieval(bank_of(images, mirror=False), GRID, options)(seen, groups=no_groups(1), generator=chance())
    assert not torch.equal(found.images[:1], true)


@pytest.mark.parametrize("proposals", [4, 60, 1000])
def test_an_image_of_the_same_group_never_completes_it(proposals: int) -> None:
    """Also with more proposals than there are images of other groups."""
    images, groups = noise(30), torch.arange(30) // 3
    options = RetrievalOptions(completions=500, proposals=proposals, shift=0, effective=1.0)
    retrieval = Retrieval(bank_of(images, groups=groups), GRID, options)
    wanted = torch.tensor([0, 13, 29])
    found = retrieval(look(images[wanted], GRID, torch.tensor([[5, 9]] * 3)), groups=groups[wanted], generator=chance())
    known = {key(p): int(g) for p, g in zip(images[:, 0].tolist(), groups, strict=True)}
    known |= {key(mirrored(p)): int(g) for p, g in zip(images[:, 0].tolist(), groups, strict=True)}
    for row, own in enumerate(groups[wanted].tolist()):
        others = [known[key(image)] for image in found.images[found.owners == row, 0].tolist()]
        assert others
        assert own not in others


def test_a_bank_of_one_group_is_refused_in_one_line() -> None:
    images = noise(5)
    retrieval = Retrieval(bank_of(images, groups=torch.full((5,), 7)), GRID, RetrievalOptions())
    seen = look(images[:2], GRID, torch.tensor([[5], [5]]))
    with pytest.raises(
        UserError, match=r"^`bank` holds only images of the same group .*: build the bank from more images$"
    ):
        retrieval(seen, groups=torch.tensor([3, 7]), generator=chance())
    assert len(retrieval(seen, groups=torch.tensor([3, 4]), generator=chance()).images)


def test_completions_have_the_types_shapes_and_order_of_the_protocol() -> None:
    images = noise(40, 3)
    retrieval = Retrieval(bank_of(images), GRID, RetrievalOptions(completions=24, proposals=20, shift=1))
    seen = look(images[:4], GRID, torch.tensor([[5, 9]] * 4))
    found = retrieval(seen, groups=torch.arange(4), generator=chance())
    assert found.images.dtype == torch.uint8
    assert found.images.shape == (len(found.owners), 3, IMAGE_PX, IMAGE_PX)
    assert found.owners.tolist() == sorted(found.owners.tolist())
    assert found.effective.tolist() == pytest.approx([6.0] * 4, rel=0.03)
    for owner in range(4):
        selected = found.owners == owner
        assert found.weights[selected].sum().item() == pytest.approx(1, abs=1e-6)
        assert (found.weights[selected] > 0).all()
        assert len(found.images[selected].unique(dim=0)) == selected.sum()
    again = retrieval(seen, groups=torch.arange(4), generator=chance())
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def test_scales_and_colours_are_compared_too() -> None:
    grid = Grid(image_px=IMAGE_PX, glimpse_px=3, stride_px=2, scales=2)
    images = noise(30, 3)
    options = RetrievalOptions(completions=8, shift=1, effective=1 / 8, proposals=5)
    found = Retrieval(bank_of(images), grid, options)(
        look(images[[4]], grid, torch.tensor([[5, 9]])), groups=no_groups(1), generator=chance()
    )
    assert torch.equal(found.images, images[[4]])


def test_the_order_of_the_bank_does_not_matter() -> None:
    images, groups = noise(50), torch.arange(50)
    bank = bank_of(images, groups=groups)
    order = torch.randperm(50, generator=chance(3))
    latents = torch.cat(bank.latents)[order]
    shuffled = bank._replace(
        select=lambda rows: Selection(images[order], rows), groups=groups[order], latents=(latents,)
    )
    options = RetrievalOptions(completions=32, proposals=20, shift=1)
    seen = look(images[:3], GRID, torch.tensor([[5, 9]] * 3))
    found, again = (
        Retrieval(b, GRID, options)(seen, groups=torch.arange(3), generator=chance()) for b in (bank, shuffled)
    )
    for owner in range(3):
        multisets = [
            sorted(
                (key(image), round(weight, 6))
                for image, weight in zip(
                    f.images[f.owners == owner, 0].tolist(), f.weights[f.owners == owner].tolist(), strict=True
                )
            )
            for f in (found, again)
        ]
        assert multisets[0] == multisets[1]


def test_unconditional_completions_are_distinct_images_of_the_bank() -> None:
    images = noise(20)
    retrieval = Retrieval(bank_of(images), GRID, RetrievalOptions())
    found = retrieval.unconditional(8, generator=chance())
    known = {key(image) for image in images[:, 0].tolist()}
    assert len(weight_by_image(found)) == 8
    assert weight_by_image(found).keys() <= known
    assert found.owners.tolist() == [0] * 8
    assert found.weights.tolist() == [1 / 8] * 8
    everything = retrieval.unconditional(1000, generator=chance())
    assert weight_by_image(everything).keys() == known
    assert everything.weights.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("target", [1.5, 4.0, 16.0, 60.0])
@pytest.mark.parametrize("scale", [30.0, 1e4, 1e7])
def test_tempering_reaches_the_effective_sample_size(target: float, scale: float) -> None:
    distance = scale * torch.rand(200, generator=chance()).square()
    weights = temper(distance, target).double()
    assert weights.sum().item() == pytest.approx(1, abs=1e-5)
    assert 1 / weights.square().sum().item() == pytest.approx(target, rel=0.02)
    # A Gaussian: the log weights fall with the distance along a line.
    near = weights > 1e-6
    log_weights, excess = (weights / weights.max()).log()[near], (distance - distance.min()).double()[near]
    slope = log_weights.min() / excess.max()
    assert slope < 0
    torch.testing.assert_close(log_weights, slope * excess, rtol=1e-3, atol=1e-3)


def test_tempering_ends_at_indifference() -> None:
    torch.testing.assert_close(
        temper(torch.tensor([0.0, 1e3, 1e5, 2e6]), 10.0), torch.full((4,), 0.25), rtol=1e-3, atol=0
    )


def test_tempering_ends_at_exact_matches() -> None:
    # The least effective sample size is three, of the exact matches, where two are wanted.
    weights = temper(torch.tensor([0.0, 1.0, 0.0, 400.0, 0.0]), 2.0)
    torch.testing.assert_close(weights, torch.tensor([1 / 3, 0, 1 / 3, 0, 1 / 3]))
    assert temper(torch.tensor([7.0, 8.0, 9.0]), 1.0).tolist() == [1.0, 0.0, 0.0]


def test_resampling_is_systematic_and_unbiased() -> None:
    """Each count is its expectation rounded down or up, so a mean of R counts is within ε of it but for
    2 exp(-2 R ε²) (Hoeffding): 2e-7 for each of 7 weights, a false-alarm rate of 1.4e-6."""
    weights = torch.tensor([0.4, 0.02, 0.13, 0.2, 0.005, 0.2, 0.045])
    n, R, generator = 10, 4000, chance()
    counts = torch.stack([_resample(weights, n, generator).bincount(minlength=7) for _ in range(R)])
    assert (counts.sum(1) == n).all()
    assert ((counts - n * weights).abs() < 1 + 1e-5).all()
    epsilon = math.sqrt(math.log(2 / 2e-7) / (2 * R))
    assert ((counts.double().mean(0) - n * weights).abs() < epsilon).all()


@pytest.mark.parametrize("step", [1, 2, 3])
def test_sliding_distances_are_sums_of_squares(step: int) -> None:
    """In whole numbers, which floats of this size hold to a few units."""
    generator = torch.Generator().manual_seed(0)
    squares = torch.randint(0, 256, (5, 6, 4 + 2 * step, 4 + 2 * step), dtype=torch.uint8, generator=generator)
    patch = torch.randint(0, 256, (6, 4, 4), dtype=torch.uint8, generator=generator)
    squares[2, :, step : step + 4, step : step + 4] = patch
    got = _sliding(squares, patch, step=step)
    assert got.shape == (5, 3, 3)
    for m, i, j in itertools.product(range(5), range(3), range(3)):
        part = squares[m, :, step * i : step * i + 4, step * j : step * j + 4].long()
        assert got[m, i, j].item() == pytest.approx(int((part - patch.long()).square().sum()), rel=1e-5, abs=2)


@pytest.mark.parametrize("glimpse_px", [5, IMAGE_PX])
def test_an_image_of_the_bank_completes_itself_at_every_glimpse_size(glimpse_px: int) -> None:
    """With shifts that reach over the border, too: a glimpse as wide as the image leaves no room for one."""
    images = noise(20, px=IMAGE_PX)
    grid = Grid(image_px=IMAGE_PX, glimpse_px=glimpse_px, stride_px=1)
    complete = Retrieval(bank_of(images), grid, RetrievalOptions(completions=8, proposals=20, rank=20, effective=0.125))
    cells = torch.zeros(1, 1, dtype=torch.long)
    seen = Glimpses(look(images[3:4], grid, cells).patches, cells)
    found = complete(seen, groups=no_groups(1), generator=chance())
    assert torch.equal(found.images[found.weights.argmax()], images[3])
    assert found.weights.max() > 0.9
