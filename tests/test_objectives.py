"""Policy losses, against expectations enumerated over every location sequence and against sums by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Generator, Tensor

from enumerated import (
    LABELS,
    LOCATIONS,
    P_FIRST,
    P_SECOND,
    SEQUENCES,
    Table,
    baselines,
    by_hand,
    policy_by_hand,
)
from given import following
from nogs.attention.choosers import greedy
from nogs.attention.network import HardAttention, Rollout, location_log_probs, previous_states
from nogs.attention.objectives import (
    entropy_loss,
    label_loss,
    partially_supervised_loss,
    reinforce_loss,
    supervised_loss,
)
from nogs.glimpses.grid import Grid


def test_the_table_is_worth_testing_on() -> None:
    rewards = [Table().expected_reward(image).item() for image in range(len(LABELS))]
    assert all(0.05 < reward < 0.95 for reward in rewards)


@pytest.mark.parametrize("kind", ["none", "constant", "of the past"])
def test_the_mean_reinforce_gradient_is_that_of_the_expected_reward(kind: str) -> None:
    table = Table()
    expected = torch.autograd.grad(-sum(table.expected_reward(i) for i in range(len(LABELS))), table.parameters)
    loss = torch.zeros((), dtype=torch.float64)
    for image, label in enumerate(LABELS):
        rollout, probability = table.rollouts(image, baselines(kind))
        loss = loss + (probability * reinforce_loss(rollout, torch.full((len(SEQUENCES),), label))).sum()
    got = torch.autograd.grad(loss, table.parameters)
    assert max(g.abs().max().item() for g in got) > 0.01
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_a_baseline_of_the_future_would_be_noticed() -> None:
    table, biased = Table(), baselines("none")
    biased[:, 1] = SEQUENCES[:, 1].double()  # depends on l_2 itself
    expected = torch.autograd.grad(-table.expected_reward(0), table.parameters)
    rollout, probability = table.rollouts(0, biased)
    got = torch.autograd.grad(
        (probability * reinforce_loss(rollout, torch.full((len(SEQUENCES),), LABELS[0]))).sum(),
        table.parameters,
    )
    assert (got[1] - expected[1]).abs().max() > 0.01


def test_the_baseline_learns_the_reward_and_nothing_else() -> None:
    # R = 1 and b = (0.25, 0.5): d/db mean_t (R - b_t)² = -2 (R - b_t) / T, by hand (-0.75, -0.5).
    b = torch.tensor([[0.25, 0.5]], requires_grad=True)
    logits = torch.tensor([[[1.0, 2.0], [0.5, 0.1]]])
    predicted = torch.tensor([[[0.0, 0.0], [-1.0, 1.0]]])
    cells = torch.tensor([[0, 1]])
    rollout = Rollout(cells, location_log_probs(cells, logits), b, predicted, torch.zeros(1, 2, 1))
    reinforce_loss(rollout, torch.tensor([1])).sum().backward()
    torch.testing.assert_close(b.grad, torch.tensor([[-0.75, -0.5]]))


FOUR_CELLS = torch.tensor(list(itertools.product(range(4), repeat=2)))


def small_network() -> HardAttention:
    """4 locations and 3 classes; its answers are made to differ between glimpses, which untrained ones hardly do."""
    torch.manual_seed(2)
    grid = Grid(image_px=6, glimpse_px=3, stride_px=3)
    network = HardAttention(grid, channels=1, classes=3, hidden=6)
    with torch.no_grad():
        network.locator[0].weight.mul_(6)
        network.locator[2].weight.mul_(4)
        images = noise(16)
        class_logits = network(images, glimpses=2, choose=following(FOUR_CELLS, greedy)).class_logits[:, -1]
        network.classifier.bias.sub_(class_logits.mean(0))
    return network


def noise(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 1, 6, 6), dtype=torch.uint8, generator=Generator().manual_seed(5))


@pytest.mark.parametrize("bias", [0.0, 0.6])
def test_the_network_climbs_its_expected_reward(bias: float) -> None:
    """The same through the network itself, over all 16 sequences of 4 locations, for two images."""
    network = small_network()
    with torch.no_grad():
        network.baseline.bias.fill_(bias)
    parameters = list(network.locator.parameters())
    images, labels = noise(2), torch.tensor([0, 1])
    objective, loss, rewards = torch.zeros(()), torch.zeros(()), []
    for a, b in FOUR_CELLS.tolist():
        rollout = network(images, glimpses=2, choose=following(torch.tensor([[a, b], [a, b]]), greedy))
        policy = network.locator(previous_states(rollout.states, torch.zeros_like(rollout.states[:, 0]))).softmax(-1)
        likely = policy[:, 0, a] * policy[:, 1, b]
        predicted = [max(range(3), key=logits[-1].__getitem__) for logits in rollout.class_logits.tolist()]
        right = torch.tensor([float(predicted[0] == 0), float(predicted[1] == 1)])
        rewards.append(right)
        objective = objective + (likely * right).sum()
        loss = loss + (likely.detach() * reinforce_loss(rollout, labels)).sum()
    assert torch.stack(rewards).std(0).min() > 0
    expected = torch.autograd.grad(-objective, parameters, retain_graph=True)
    got = torch.autograd.grad(loss, parameters)
    assert max(g.abs().max().item() for g in expected) > 0.01
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2])
def test_the_mean_entropy_gradient_is_that_of_the_entropy_of_sequences(batch: int) -> None:
    """Over every batch of one or two sequences, each weighted by its probability: the baseline is enumerated too."""
    table = Table()
    expected = torch.autograd.grad(-table.entropy(), table.parameters, retain_graph=True)
    rollout, probability = table.rollouts(0, baselines("none"))
    a = SEQUENCES[:, 0]
    logits = torch.stack((table.first.expand(len(a), -1), table.second[a]), dim=1)
    value, loss = 0.0, torch.zeros((), dtype=torch.float64)
    for rows in itertools.product(range(len(SEQUENCES)), repeat=batch):
        drawn = torch.tensor(rows)
        per_sequence = entropy_loss(rollout.log_policy[drawn], logits[drawn])
        loss = loss + probability[drawn].prod() * per_sequence.mean()
        missing = math.log(LOCATIONS) - torch.distributions.Categorical(logits=logits[drawn]).entropy()
        value += (probability[drawn].prod() * missing.sum(1).mean()).item()
    assert value == pytest.approx(2 * math.log(LOCATIONS) - table.entropy().item())
    got = torch.autograd.grad(loss, table.parameters)
    assert min(g.abs().max().item() for g in expected) > 0.01
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_the_entropy_gradient_needs_the_entropy_of_later_glimpses() -> None:
    """The sum of the gradients of H[q(l_t | h_t-1)] alone is another one in this world."""
    table = Table()
    expected = torch.autograd.grad(table.entropy(), table.first, retain_graph=True)[0]
    p = table.first.softmax(0)
    alone = torch.autograd.grad(-(p * p.log()).sum(), table.first)[0]
    assert (expected - alone).abs().max() > 0.01


def test_the_entropy_of_a_certain_policy_makes_no_nan() -> None:
    where = torch.tensor([[[0.0, -300.0]], [[400.0, 0.0]]], requires_grad=True)
    loss = entropy_loss(location_log_probs(torch.tensor([[0], [1]]), where), where)
    loss.sum().backward()
    assert where.grad is not None
    assert torch.isfinite(loss).all()
    assert torch.isfinite(where.grad).all()


def test_losses_by_hand() -> None:
    rollout = by_hand([[0, 2], [2, 1]])
    torch.testing.assert_close(
        rollout.log_policy,
        torch.tensor([[math.log(0.5), math.log(0.2)], [math.log(0.25), math.log(0.7)]]),
    )
    torch.testing.assert_close(supervised_loss(rollout), torch.tensor([-math.log(0.5 * 0.2), -math.log(0.25 * 0.7)]))
    torch.testing.assert_close(
        label_loss(rollout.class_logits, torch.tensor([0, 1])),
        torch.tensor([-(math.log(0.2) + math.log(0.9)) / 2, -(math.log(0.8) + math.log(0.1)) / 2]),
    )
    # The last answer is class 0: the first image earns 1, the second nothing. Baselines are 0.
    torch.testing.assert_close(
        reinforce_loss(rollout, torch.tensor([0, 1])),
        torch.tensor([-math.log(0.5 * 0.2) + 1, 0.0]),
    )


def test_an_unlikely_target_still_pulls() -> None:
    logits = torch.tensor([[[200.0, 0.0, -200.0]]], requires_grad=True)
    log_policy = location_log_probs(torch.tensor([[2]]), logits)
    rollout = Rollout(torch.tensor([[2]]), log_policy, torch.zeros(1, 1), torch.zeros(1, 1, 2), torch.zeros(1, 1, 1))
    supervised_loss(rollout).sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[[1.0, 0.0, -1.0]]]))


CELLS = [[0, 2], [2, 1], [1, 1], [0, 0], [2, 0]]


@pytest.mark.parametrize("supervised_labels", [True, False])
@pytest.mark.parametrize("mask", [(0, 0, 1, 1, 1), (1, 0, 0, 0, 0), (0, 0, 0, 0, 0), (1, 1, 1, 1, 1)])
def test_the_sum_of_three_means(mask: tuple[int, ...], supervised_labels: bool) -> None:
    where, y = policy_by_hand(len(CELLS)), torch.tensor([0, 1, 1, 0, 0])
    rollout = by_hand(CELLS, where)
    terms: dict[str, list[float]] = {"label": [], "policy": [], "supervised": []}
    for (a, b), label, supervised in zip(CELLS, y.tolist(), mask, strict=True):
        surprise = -math.log(P_FIRST[a] * P_SECOND[b])
        if supervised:
            terms["supervised"].append(surprise)
        else:
            terms["policy"].append(surprise + 1 if label == 0 else 0.0)
        if supervised_labels or not supervised:
            terms["label"].append(-(math.log((0.2, 0.8)[label]) + math.log((0.9, 0.1)[label])) / 2)
    expected = sum(sum(values) / len(values) for values in terms.values() if values)
    loss = partially_supervised_loss(
        rollout, y, torch.tensor(mask, dtype=torch.bool), supervised_labels=supervised_labels
    )
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    for logits in (where, rollout.class_logits):
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()


def parts(network: HardAttention, loss: Tensor) -> dict[str, Tensor]:
    """The gradient of each part of the network, as one vector; zeros where there is none."""
    names, parameters = zip(*network.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    vectors: dict[str, list[Tensor]] = {}
    for name, parameter, gradient in zip(names, parameters, found, strict=True):
        zero = torch.zeros_like(parameter)
        vectors.setdefault(name.split(".")[0], []).append((zero if gradient is None else gradient).flatten())
    return {part: torch.cat(pieces) for part, pieces in vectors.items()}


def test_supervised_labels_change_the_classifier_and_what_feeds_it_alone() -> None:
    network = small_network()
    images = noise(5)
    labels, supervised = torch.tensor([0, 1, 2, 1, 0]), torch.tensor([True, False, False, True, False])
    cells = torch.tensor([[0, 2], [1, 3], [2, 2], [3, 0], [1, 0]])
    rollout = network(images, glimpses=2, choose=following(cells, greedy))
    with_labels, without = (
        parts(network, partially_supervised_loss(rollout, labels, supervised, supervised_labels=flag))
        for flag in (True, False)
    )
    every, free = (
        parts(network, label_loss(rollout.class_logits, labels)[rows].mean()) for rows in (slice(None), ~supervised)
    )
    for part in ("locator", "baseline"):
        assert with_labels[part].abs().sum() > 0
        torch.testing.assert_close(with_labels[part], without[part], rtol=0, atol=0)
    for part in ("classifier", "core", "embedding"):
        assert not torch.allclose(with_labels[part], without[part])
        torch.testing.assert_close(with_labels[part], every[part])
        torch.testing.assert_close(without[part], free[part])


def test_without_free_images_and_supervised_labels_the_classifier_rests() -> None:
    network = small_network()
    images = noise(2)
    rollout = network(images, glimpses=2, choose=following(torch.tensor([[0, 2], [1, 3]]), greedy))
    loss = partially_supervised_loss(rollout, torch.tensor([0, 1]), torch.tensor([True, True]), supervised_labels=False)
    found = parts(network, loss)
    assert found["locator"].abs().sum() > 0
    for part in ("classifier", "core", "embedding", "baseline"):
        assert found[part].abs().sum() == 0


def test_no_term_grows_with_the_batch() -> None:
    mask = torch.tensor([True, False, False, True, False])
    y = torch.tensor([0, 1, 1, 0, 0])
    once = partially_supervised_loss(by_hand(CELLS), y, mask, supervised_labels=True)
    thrice = partially_supervised_loss(by_hand(CELLS * 3), y.repeat(3), mask.repeat(3), supervised_labels=True)
    torch.testing.assert_close(thrice, once)
