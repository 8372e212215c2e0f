"""Information in nats, against sums over a world small enough to enumerate and against plain loops."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from nogs.glimpses.fovea import look
from nogs.information import (
    empirical_entropy,
    entropy,
    expected_posterior_entropy,
    information_gain_by_completion,
    mixture,
    mixture_information_gain,
)
from world import OVERLAPPING, TILES, ExactPosterior, Seen, World
from world import entropy as entropy_of


class Situation(NamedTuple):
    """The glimpses of an image, and the exact posteriors after one more glimpse of each completion."""

    world: World
    seen: Seen
    log_probs: Tensor
    """[N, L, C]"""
    weights: Tensor
    """[N]"""


def situations() -> list[Situation]:
    """Both worlds, images at random, 0 to 3 glimpses at random cells."""
    chance = random.Random(0)
    found = []
    for world in (TILES, OVERLAPPING):
        for glimpses in (0, 1, 1, 2, 2, 3):
            atom = chance.randrange(len(world.images))
            seen = world.look(atom, chance.sample(list(world.cells), glimpses))
            completions = world.completions(seen)
            after = [
                [world.posterior((*seen, *world.look(atom, [cell]))) for cell in world.cells] for atom, _ in completions
            ]
            log_probs = torch.tensor(after, dtype=torch.float64).log()
            weights = torch.tensor([weight for _, weight in completions], dtype=torch.float64)
            found.append(Situation(world, seen, log_probs, weights))
    return found


SITUATIONS = situations()


def assert_equal(got: Tensor, expected: Tensor) -> None:
    """Equal in float64, up to the order of summation."""
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)


def random_posteriors(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Log-probabilities [*batch, N, L, C] that no world stands behind, and weights [*batch, N]; float64."""
    generator = torch.Generator().manual_seed(seed)
    log_probs = (3 * torch.randn(*shape, generator=generator, dtype=torch.float64)).log_softmax(-1)
    weights = torch.rand(*shape[:-2], generator=generator, dtype=torch.float64)
    return log_probs, weights / weights.sum(-1, keepdim=True)


def test_the_worlds_are_worth_testing_on() -> None:
    for world in (TILES, OVERLAPPING):
        assert world.classes == 3
        assert sum(world.prior) == pytest.approx(1)
        # Some label stays open even when every pixel is seen, and some glimpse tells, but not everything.
        assert 0 < world.posterior_entropy(world.look(len(world.images) - 1, world.cells)) < math.log(2) + 1e-9
        gains = [world.mutual_information((), cell) for cell in world.cells]
        assert max(gains) > 0.1 > min(gains)
        assert max(gains) < world.posterior_entropy(())
    assert any(len(s.weights) > 2 for s in SITUATIONS if len(s.seen) == 2)


@pytest.mark.parametrize("world", [TILES, OVERLAPPING], ids=["tiles", "overlapping"])
def test_the_world_and_the_exact_posterior_agree(world: World) -> None:
    cells = torch.tensor([[0, 4, 5]]).expand(len(world.images), -1)
    glimpses = look(world.image_tensor(), world.grid(), cells)
    by_glimpse = ExactPosterior(world).by_glimpse(glimpses).probs
    for atom in range(len(world.images)):
        for t in range(3):
            expected = world.posterior(world.look(atom, [0, 4, 5][: t + 1]))
            assert by_glimpse[atom, t].tolist() == pytest.approx(expected)
    assert_equal(ExactPosterior(world)(glimpses).probs, by_glimpse[:, -1])


def test_entropy_against_a_loop_and_closed_forms() -> None:
    log_probs, _ = random_posteriors(2, 5, 7, 4)
    expected = [[[entropy_of([math.exp(v) for v in row]) for row in rows] for rows in maps] for maps in log_probs]
    assert_equal(entropy(log_probs), torch.tensor(expected, dtype=torch.float64))
    uniform = torch.full((10,), 0.1, dtype=torch.float64).log()
    assert entropy(uniform).item() == pytest.approx(math.log(10), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_certainty_has_no_entropy_and_no_nan(dtype: torch.dtype) -> None:
    certain = torch.tensor([1.0, 0.0, 0.0], dtype=dtype).log().requires_grad_()
    value = entropy(certain)
    assert value.item() == 0
    assert torch.isfinite(torch.autograd.grad(value, certain)[0]).all()


@pytest.mark.parametrize("situation", SITUATIONS)
def test_expected_posterior_entropy_is_the_enumerated_one(situation: Situation) -> None:
    world, seen, log_probs, weights = situation
    expected = [world.expected_posterior_entropy(seen, cell) for cell in world.cells]
    got = expected_posterior_entropy(log_probs, weights)
    assert_equal(got, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("situation", SITUATIONS)
def test_mixture_information_gain_is_the_enumerated_one(situation: Situation) -> None:
    world, seen, log_probs, weights = situation
    got = mixture_information_gain(log_probs, weights)
    for oracle in (world.mixture_information_gain, world.mutual_information):
        expected = torch.tensor([oracle(seen, cell) for cell in world.cells], dtype=torch.float64)
        assert_equal(got, expected)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_both_gains_agree_where_the_posterior_is_exact(situation: Situation) -> None:
    world, seen, log_probs, weights = situation
    now = torch.tensor(world.posterior(seen), dtype=torch.float64)
    # A posterior's expectation over the next glimpse is the posterior now.
    assert_equal(mixture(log_probs, weights).exp(), now.expand(len(world.cells), -1))
    gain = entropy(now.log()) - expected_posterior_entropy(log_probs, weights)
    assert_equal(gain, mixture_information_gain(log_probs, weights))


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_greedy_choice_is_the_enumerated_one(situation: Situation) -> None:
    world, seen, log_probs, weights = situation
    best = world.expected_posterior_entropy(seen, world.greedy_cell(seen))
    by_epe = int(expected_posterior_entropy(log_probs, weights).argmin())
    by_eig = int(mixture_information_gain(log_probs, weights).argmax())
    for cell in (by_epe, by_eig):  # of cells that tie, any
        assert world.expected_posterior_entropy(seen, cell) == pytest.approx(best, abs=1e-9)


def test_mixture_gain_against_a_loop_on_random_posteriors() -> None:
    log_probs, weights = random_posteriors(2, 3, 4, 5)
    got = mixture_information_gain(log_probs, weights)
    for b in range(2):
        for cell in range(4):
            g = [[math.exp(v) for v in log_probs[b, n, cell]] for n in range(3)]
            w = weights[b].tolist()
            mean = [sum(w[n] * g[n][c] for n in range(3)) for c in range(5)]
            expected = entropy_of(mean) - sum(w[n] * entropy_of(g[n]) for n in range(3))
            assert got[b, cell].item() == pytest.approx(expected, abs=1e-9)


def test_mixture_gain_is_never_negative_and_at_most_the_entropy_of_the_completions() -> None:
    for seed in range(20):
        log_probs, weights = random_posteriors(6, 9, 4, seed=seed)
        gain = mixture_information_gain(log_probs, weights)
        assert (gain >= -1e-12).all()
        assert (gain <= entropy(weights.log()) + 1e-12).all()
    same = log_probs[:1].expand(6, -1, -1)
    assert_equal(mixture_information_gain(same, weights), torch.zeros(9, dtype=torch.float64))


def test_gain_by_completion_is_a_divergence_whose_weighted_mean_is_the_mixture_gain() -> None:
    log_probs, weights = random_posteriors(2, 6, 9, 4)
    parts = information_gain_by_completion(log_probs, weights)
    assert (parts >= -1e-12).all()
    mean = (parts * weights[..., None]).sum(-2)
    assert_equal(mean, mixture_information_gain(log_probs, weights))
    g, m = log_probs[1, 2, 3].exp().tolist(), mixture(log_probs, weights)[1, 3].exp().tolist()
    divergence = sum(p * math.log(p / q) for p, q in zip(g, m, strict=True))
    assert parts[1, 2, 3].item() == pytest.approx(divergence, abs=1e-9)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_gain_by_completion_holds_for_certain_posteriors(situation: Situation) -> None:
    parts = information_gain_by_completion(situation.log_probs, situation.weights)
    mean = (parts * situation.weights[:, None]).sum(0)
    assert_equal(mean, mixture_information_gain(situation.log_probs, situation.weights))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_certain_posteriors_that_differ_have_the_full_gain(dtype: torch.dtype) -> None:
    log_probs = torch.eye(2, dtype=dtype)[:, None].log()  # two completions, one cell: label 0, label 1
    weights = torch.tensor([0.5, 0.5], dtype=dtype)
    assert expected_posterior_entropy(log_probs, weights).tolist() == [0]
    assert mixture_information_gain(log_probs, weights).item() == pytest.approx(math.log(2))
    parts = information_gain_by_completion(log_probs, weights)
    assert parts.flatten().tolist() == pytest.approx([math.log(2)] * 2)


@pytest.mark.parametrize("certain", [False, True])
def test_a_completion_of_weight_zero_changes_nothing(certain: bool) -> None:
    log_probs, weights = random_posteriors(4, 9, 3)
    if certain:
        log_probs = torch.nn.functional.one_hot(log_probs.argmax(-1), 3).double().log()
    stranger = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).log().expand(1, 9, 3)
    more, zero = torch.cat((log_probs, stranger)), torch.cat((weights, torch.zeros(1, dtype=torch.float64)))
    for function in (mixture, expected_posterior_entropy, mixture_information_gain):
        assert_equal(function(more, zero), function(log_probs, weights))
    parts = information_gain_by_completion(more, zero)
    assert_equal(parts[:4], information_gain_by_completion(log_probs, weights))
    assert (parts[4] * zero[4] == 0).all()


def test_permuting_the_completions_changes_nothing() -> None:
    log_probs, weights = random_posteriors(5, 9, 3)
    order = torch.tensor([3, 0, 4, 1, 2])
    for function in (mixture, expected_posterior_entropy, mixture_information_gain):
        assert_equal(function(log_probs[order], weights[order]), function(log_probs, weights))


def test_empirical_entropy_of_each_column() -> None:
    """One value: 0. Two halves: log 2. Shares 1/2, 1/4, 1/4: 3/2 log 2. All different: log n."""
    values = torch.tensor([[7, 0, 3, 0], [7, 0, 3, 1], [7, 5, 9, 2], [7, 5, 1, 3]])
    expected = torch.tensor([0.0, 1.0, 1.5, 2.0]) * math.log(2)
    found = empirical_entropy(values)
    torch.testing.assert_close(found, expected)
    assert not found.signbit().any()  # 0, where one value is certain, is not written as -0.0
