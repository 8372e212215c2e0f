"""Policy losses, against expectations enumerated over every location sequence and against sums by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Generator, Tensor

from given import following
from nogs.attention.choosers import greedy
from nogs.attention.network import HardAttention, Rollout, location_log_probs, previous_states
from nogs.attention.objectives import (
    entropy_loss,
    label_loss,
    partially_supervised_loss,
    reinforce_loss,
    supervised_loss,
    wake_sleep_loss,
    wake_sleep_weights,
)
from nogs.glimpses.grid import Grid

LOCATIONS, CLASSES = 3, 3
SEQUENCES = torch.tensor(list(itertools.product(range(LOCATIONS), repeat=2)))
LABELS = (0, 2)


class Table:
    """A policy small enough to enumerate, T = 2: logits of l_1, and of l_2 given l_1; float64.

    Which class an image is taken for is a table over its sequences. Shares no code with `nogs`.
    """

    def __init__(self) -> None:
        generator = Generator().manual_seed(0)
        self.first = torch.randn(LOCATIONS, generator=generator, dtype=torch.float64).requires_grad_()
        self.second = torch.randn(LOCATIONS, LOCATIONS, generator=generator, dtype=torch.float64).requires_grad_()
        self.said = torch.randn(len(LABELS), LOCATIONS, LOCATIONS, CLASSES, generator=generator, dtype=torch.float64)

    @property
    def parameters(self) -> tuple[Tensor, Tensor]:
        return self.first, self.second

    def expected_reward(self, image: int) -> Tensor:
        """Σ_{l_1, l_2} p(l_1) p(l_2 | l_1) R(l_1, l_2)."""
        total = torch.zeros((), dtype=torch.float64)
        for a, b in SEQUENCES.tolist():
            likely = self.first.softmax(0)[a] * self.second[a].softmax(0)[b]
            best = max(range(CLASSES), key=lambda c: self.said[image, a, b, c].item())
            total = total + likely * float(best == LABELS[image])
        return total

    def entropy(self) -> Tensor:
        """-Σ_{l_1, l_2} p(l_1, l_2) log p(l_1, l_2), in nats."""
        total = torch.zeros((), dtype=torch.float64)
        for a, b in SEQUENCES.tolist():
            likely = self.first.softmax(0)[a] * self.second[a].softmax(0)[b]
            total = total - likely * likely.log()
        return total

    def rollouts(self, image: int, baselines: Tensor) -> tuple[Rollout, Tensor]:
        """Every sequence as a row, and how likely it is."""
        a, b = SEQUENCES.unbind(1)
        logits = torch.stack((self.first.expand(len(a), -1), self.second[a]), dim=1)
        before = torch.zeros_like(self.said[image, a, b])  # what is said at t = 1 earns nothing
        said = torch.stack((before, self.said[image, a, b]), dim=1)
        probability = (self.first.softmax(0)[a] * self.second.softmax(1)[a, b]).detach()
        log_policy = location_log_probs(SEQUENCES, logits)
        return Rollout(SEQUENCES, log_policy, baselines, said, torch.zeros(*SEQUENCES.shape, 1)), probability

    def log_marginal(self, image: int) -> Tensor:
        """log Σ_{l_1, l_2} p(l_1) p(l_2 | l_1) p(θ | l_1, l_2), a term at a time."""
        total = torch.zeros((), dtype=torch.float64)
        for a, b in SEQUENCES.tolist():
            likely = self.first.softmax(0)[a] * self.second[a].softmax(0)[b]
            total = total + likely * self.said[image, a, b].softmax(0)[LABELS[image]]
        return total.log()

    def proposed(self, image: int, which: Tensor) -> Rollout:
        """Sequences number ``which`` as rows; what is said at the end is said at t = 1 too: the mean over t is it."""
        rollout, _ = self.rollouts(image, baselines("none"))
        a, b = SEQUENCES[which].unbind(1)
        said = self.said[image, a, b][:, None].expand(-1, 2, -1)
        return Rollout(*(column[which] for column in rollout))._replace(class_logits=said)


def baselines(kind: str) -> Tensor:
    """b_t may depend on what was seen before t, and on nothing else: b_2 is a function of l_1."""
    b = torch.zeros(len(SEQUENCES), 2, dtype=torch.float64)
    if kind == "constant":
        b += 0.7
    if kind == "of the past":
        b[:, 0] = -1.3
        b[:, 1] = torch.tensor([0.2, 5.0, -2.0], dtype=torch.float64)[SEQUENCES[:, 0]]
    return b


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
    said = torch.tensor([[[0.0, 0.0], [-1.0, 1.0]]])
    cells = torch.tensor([[0, 1]])
    rollout = Rollout(cells, location_log_probs(cells, logits), b, said, torch.zeros(1, 2, 1))
    reinforce_loss(rollout, torch.tensor([1])).sum().backward()
    torch.testing.assert_close(b.grad, torch.tensor([[-0.75, -0.5]]))


FOUR_CELLS = torch.tensor(list(itertools.product(range(4), repeat=2)))


def small_network() -> HardAttention:
    """4 locations and 3 classes; what it says is made to differ between glimpses, which untrained it hardly does."""
    torch.manual_seed(2)
    grid = Grid(image_px=6, glimpse_px=3, stride_px=3)
    network = HardAttention(grid, channels=1, classes=3, hidden=6)
    with torch.no_grad():
        network.locator[0].weight.mul_(6)
        network.locator[2].weight.mul_(4)
        images = noise(16)
        said = network(images, glimpses=2, choose=following(FOUR_CELLS, greedy)).class_logits[:, -1]
        network.classifier.bias.sub_(said.mean(0))
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
        said = [max(range(3), key=logits[-1].__getitem__) for logits in rollout.class_logits.tolist()]
        right = torch.tensor([float(said[0] == 0), float(said[1] == 1)])
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


P_FIRST, P_SECOND = (0.5, 0.25, 0.25), (0.1, 0.7, 0.2)


def policy_by_hand(B: int) -> Tensor:
    """Logits of a policy with the probabilities above whatever the image, shifted by a constant."""
    where = torch.tensor([P_FIRST, P_SECOND]).log() + torch.tensor([[3.0], [-4.0]])
    return where.expand(B, -1, -1).clone().requires_grad_()


def by_hand(cells: list[list[int]], where: Tensor | None = None) -> Rollout:
    B = len(cells)
    where = policy_by_hand(B) if where is None else where
    said = torch.tensor([[[0.2, 0.8], [0.9, 0.1]]]).log() + 2
    return Rollout(
        torch.tensor(cells),
        location_log_probs(torch.tensor(cells), where),
        torch.zeros(B, 2),
        said.expand(B, -1, -1).clone().requires_grad_(),
        torch.zeros(B, 2, 1),
    )


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
    # Last said: class 0. The first image earns 1, the second nothing; baselines are 0.
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


TIMES = (5, 1, 2, 1, 3, 1, 2, 4, 1)
"""A proposal that is far from the policy: how often it draws each of the nine sequences, of 20 draws."""


def worlds() -> tuple[Table, Tensor]:
    """A policy and a classifier as tables, and logits of a proposal over whole sequences; all can learn."""
    table = Table()
    table.said.requires_grad_()
    return table, torch.tensor(TIMES, dtype=torch.float64).log().requires_grad_()


def log_proposal(logits: Tensor, which: Tensor) -> Tensor:
    """log r of whole sequences, as if it were all of l_1."""
    chosen = logits.log_softmax(0)[which]
    return torch.stack((chosen, torch.zeros_like(chosen)), dim=1)


def wake_sleep(
    table: Table,
    proposal: Tensor,
    image: int,
    which: Tensor,
    samples: int,
    *,
    drawn: Tensor | None = None,
    entropy_bonus: float = 0.0,
) -> Tensor:
    """The loss of the sequences ``which``, ``samples`` of each image; the label's term is its mean over resampling.

    ``drawn``: logits of the distribution that the sequences were drawn from, by default the proposal's.
    """
    rollout, labels = table.proposed(image, which), torch.full((len(which),), LABELS[image])
    log_policy, log_r = (
        terms.unflatten(0, (-1, samples)) for terms in (rollout.log_policy, log_proposal(proposal, which))
    )
    log_drawn = log_r if drawn is None else log_proposal(drawn, which).unflatten(0, (-1, samples))
    log_likelihood = -torch.nn.functional.cross_entropy(rollout.class_logits[:, -1], labels, reduction="none")
    weights = wake_sleep_weights(log_likelihood.unflatten(0, (-1, samples)), log_policy, log_r, log_drawn)
    label = (weights.posterior * label_loss(rollout.class_logits, labels).unflatten(0, (-1, samples))).sum(1)
    return label + wake_sleep_loss(log_policy, log_r, weights, entropy_bonus=entropy_bonus)


EXPLORING = (1, 4, 3, 2, 5, 2, 1, 1, 4)
"""Another distribution to draw from, of 23 draws: neither the policy's nor the proposal's."""


@pytest.mark.parametrize("entropy_bonus", [0.0, 0.3])
@pytest.mark.parametrize("exploring", [False, True])
@pytest.mark.parametrize("image", range(len(LABELS)))
def test_the_wake_sleep_gradient_is_that_of_the_log_marginal(image: int, exploring: bool, entropy_bonus: float) -> None:
    """Each sequence as often as it is drawn: the self-normalised sums are then exact, control variates included.

    With a bonus it is the gradient of the log-marginal plus the weighted entropy of the policy's sequences.
    """
    table, proposal = worlds()
    parameters = (*table.parameters, table.said)
    objective = table.log_marginal(image) + entropy_bonus * table.entropy()
    expected = torch.autograd.grad(-objective, parameters)
    times = torch.tensor(EXPLORING if exploring else TIMES)
    drawn = times.double().log() if exploring else None
    which = torch.repeat_interleave(torch.arange(len(SEQUENCES)), times)
    loss = wake_sleep(table, proposal, image, which, len(which), drawn=drawn, entropy_bonus=entropy_bonus)
    got = torch.autograd.grad(loss.sum(), parameters)
    assert min(g.abs().max().item() for g in expected) > 0.01
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("exploring", [False, True])
@pytest.mark.parametrize("image", range(len(LABELS)))
def test_the_proposal_is_drawn_to_the_sequences_that_tell_the_label(image: int, exploring: bool) -> None:
    """d/d logits of -Σ_l p(l | θ) log r(l) is r - p(l | θ), by hand."""
    table, proposal = worlds()
    joint = []
    for a, b in SEQUENCES.tolist():
        likely = table.first.softmax(0)[a] * table.second[a].softmax(0)[b]
        joint.append((likely * table.said[image, a, b].softmax(0)[LABELS[image]]).item())
    expected = torch.tensor([n / sum(TIMES) - p / sum(joint) for n, p in zip(TIMES, joint, strict=True)])
    times = torch.tensor(EXPLORING if exploring else TIMES)
    drawn = times.double().log() if exploring else None
    which = torch.repeat_interleave(torch.arange(len(SEQUENCES)), times)
    loss = wake_sleep(table, proposal, image, which, len(which), drawn=drawn)
    (got,) = torch.autograd.grad(loss.sum(), proposal)
    torch.testing.assert_close(got, expected.double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("samples", "tends"), [(4000, True), (1, False)])
def test_a_sample_of_sequences_tends_to_the_same_gradient(samples: int, tends: bool) -> None:
    """60 estimates of M samples; each of 12 coordinates of their mean within 5 standard errors of the exact
    gradient: a false alarm once in 10^5 seeds. The bias of self-normalising, of order 1/M, is far below that for
    4,000 samples; with one sample every weight is 1, and the test must see it."""
    table, proposal = worlds()
    parameters = (*table.parameters, table.said)
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(-table.log_marginal(0), parameters)])
    generator, estimates = Generator().manual_seed(0), []
    for _ in range(60):
        which = torch.multinomial(proposal.detach().exp(), samples, replacement=True, generator=generator)
        loss = wake_sleep(table, proposal, 0, which, samples).sum()
        estimates.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    found = torch.stack(estimates)
    off = (found.mean(0) - exact).abs() / (found.std(0) / len(found) ** 0.5 + 1e-12)
    assert (off.max().item() < 5) == tends


def test_control_variates_lessen_the_spread_of_the_policy_gradient() -> None:
    """Four sequences an image, 400 images: the summed variance of Σ_m w_m ∇ log q is more than twice as large."""
    table, proposal = worlds()
    generator = Generator().manual_seed(0)
    kept: dict[bool, list[Tensor]] = {True: [], False: []}
    for _ in range(400):
        which = torch.multinomial(proposal.detach().exp(), 4, replacement=True, generator=generator)
        for varied, found in kept.items():
            rollout = table.proposed(0, which)
            log_policy, log_r = rollout.log_policy[None], log_proposal(proposal, which)[None]
            labels = torch.full((4,), LABELS[0])
            likelihood = -torch.nn.functional.cross_entropy(rollout.class_logits[:, -1], labels, reduction="none")
            weights = wake_sleep_weights(likelihood[None], log_policy, log_r, log_r)
            if not varied:
                weights = weights._replace(policy=torch.zeros_like(weights.policy))
            loss = wake_sleep_loss(log_policy, log_r, weights).sum()
            found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, table.parameters)]))
    with_variates, without = (torch.stack(kept[varied]).var(0).sum().item() for varied in (True, False))
    assert with_variates < without / 2


def test_the_samples_of_an_image_are_weighed_among_themselves() -> None:
    """By hand. Labels 0, 1; last said 0.9, 0.1. Of the first image both sequences are proposed with 0.5: weights
    go by q(l) = 0.5 x 0.2 and 0.25 x 0.7. Of the second both are the same, proposed with 0.5 and 0.25: 1 to 2."""
    rollout = by_hand([[0, 2], [2, 1], [1, 1], [1, 1]])
    log_policy = rollout.log_policy.unflatten(0, (2, 2))
    log_r = torch.tensor([[[0.5, 1.0], [0.5, 1.0]], [[0.5, 1.0], [0.25, 1.0]]]).log()
    weights = wake_sleep_weights(torch.tensor([[0.9, 0.9], [0.1, 0.1]]).log(), log_policy, log_r, log_r)
    first = 0.1 / (0.1 + 0.175)
    expected = torch.tensor([[first, 1 - first], [1 / 3, 2 / 3]])
    torch.testing.assert_close(weights.posterior, expected)
    torch.testing.assert_close(weights.policy, expected)  # all answers are the same: they cancel
    torch.testing.assert_close(weights.proposal, torch.full((2, 2), 0.5))
    loss = wake_sleep_loss(log_policy, log_r, weights)
    by_r = -(first - 0.5) * math.log(0.5) - (0.5 - first) * math.log(0.5)
    torch.testing.assert_close(loss, torch.tensor([by_r, (math.log(0.5) - math.log(0.25)) / 6]))


def test_a_hopeless_sequence_makes_no_nan() -> None:
    cells, where = torch.tensor([[0], [1]]), torch.tensor([[[0.0, -300.0]], [[0.0, -300.0]]], requires_grad=True)
    log_policy = location_log_probs(cells, where)[None]
    log_r = torch.full((1, 2, 1), -0.7)
    weights = wake_sleep_weights(torch.full((1, 2), -200.0), log_policy, log_r, log_r)
    torch.testing.assert_close(weights.posterior, torch.tensor([[1.0, 0.0]]))  # all on the policy's own cell
    wake_sleep_loss(log_policy, log_r, weights).sum().backward()
    assert where.grad is not None
    assert torch.isfinite(where.grad).all()
    assert where.grad.abs().max() < 1e-6
