"""The losses of wake-sleep, against gradients enumerated over every location sequence and against sums by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor

from enumerated import LABELS, SEQUENCES, Table, by_hand
from nogs.attention.network import location_log_probs
from nogs.attention.objectives import label_loss, wake_sleep_loss, wake_sleep_weights

TIMES = (5, 1, 2, 1, 3, 1, 2, 4, 1)
"""A proposal that is far from the policy: how often it draws each of the nine sequences, of 20 draws."""


def worlds() -> tuple[Table, Tensor]:
    """A policy and a classifier as tables, and logits of a proposal over whole sequences; all can learn."""
    table = Table()
    table.class_logits.requires_grad_()
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
    parameters = (*table.parameters, table.class_logits)
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
        joint.append((likely * table.class_logits[image, a, b].softmax(0)[LABELS[image]]).item())
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
    parameters = (*table.parameters, table.class_logits)
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
