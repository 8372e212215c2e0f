"""A policy over the sequences of two glimpses at three locations: every expectation is a sum of nine terms."""

from __future__ import annotations

import itertools

import torch
from torch import Generator, Tensor

from nogs.attention.network import Rollout, location_log_probs

LOCATIONS, CLASSES = 3, 3
SEQUENCES = torch.tensor(list(itertools.product(range(LOCATIONS), repeat=2)))
LABELS = (0, 2)


class Table:
    """A policy small enough to enumerate, T = 2: logits of l_1, and of l_2 given l_1; float64.

    The logits of the classes are a table over images and sequences.
    """

    def __init__(self) -> None:
        generator = Generator().manual_seed(0)
        self.first = torch.randn(LOCATIONS, generator=generator, dtype=torch.float64).requires_grad_()
        self.second = torch.randn(LOCATIONS, LOCATIONS, generator=generator, dtype=torch.float64).requires_grad_()
        self.class_logits = torch.randn(
            len(LABELS), LOCATIONS, LOCATIONS, CLASSES, generator=generator, dtype=torch.float64
        )

    @property
    def parameters(self) -> tuple[Tensor, Tensor]:
        return self.first, self.second

    def expected_reward(self, image: int) -> Tensor:
        """Σ_{l_1, l_2} p(l_1) p(l_2 | l_1) R(l_1, l_2)."""
        total = torch.zeros((), dtype=torch.float64)
        for a, b in SEQUENCES.tolist():
            likely = self.first.softmax(0)[a] * self.second[a].softmax(0)[b]
            best = max(range(CLASSES), key=lambda c: self.class_logits[image, a, b, c].item())
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
        """All sequences as rows, and their probabilities."""
        a, b = SEQUENCES.unbind(1)
        logits = torch.stack((self.first.expand(len(a), -1), self.second[a]), dim=1)
        before = torch.zeros_like(self.class_logits[image, a, b])  # the answer at t = 1 earns nothing
        class_logits = torch.stack((before, self.class_logits[image, a, b]), dim=1)
        probability = (self.first.softmax(0)[a] * self.second.softmax(1)[a, b]).detach()
        log_policy = location_log_probs(SEQUENCES, logits)
        return Rollout(SEQUENCES, log_policy, baselines, class_logits, torch.zeros(*SEQUENCES.shape, 1)), probability

    def log_marginal(self, image: int) -> Tensor:
        """log Σ_{l_1, l_2} p(l_1) p(l_2 | l_1) p(θ | l_1, l_2), a term at a time."""
        total = torch.zeros((), dtype=torch.float64)
        for a, b in SEQUENCES.tolist():
            likely = self.first.softmax(0)[a] * self.second[a].softmax(0)[b]
            total = total + likely * self.class_logits[image, a, b].softmax(0)[LABELS[image]]
        return total.log()

    def proposed(self, image: int, which: Tensor) -> Rollout:
        """Sequences number ``which`` as rows. The last answer is that at t = 1 too, so it is also the mean over t."""
        rollout, _ = self.rollouts(image, baselines("none"))
        a, b = SEQUENCES[which].unbind(1)
        class_logits = self.class_logits[image, a, b][:, None].expand(-1, 2, -1)
        return Rollout(*(column[which] for column in rollout))._replace(class_logits=class_logits)


def baselines(kind: str) -> Tensor:
    """b_t may depend on what was seen before t, and on nothing else: b_2 is a function of l_1."""
    b = torch.zeros(len(SEQUENCES), 2, dtype=torch.float64)
    if kind == "constant":
        b += 0.7
    if kind == "of the past":
        b[:, 0] = -1.3
        b[:, 1] = torch.tensor([0.2, 5.0, -2.0], dtype=torch.float64)[SEQUENCES[:, 0]]
    return b


P_FIRST, P_SECOND = (0.5, 0.25, 0.25), (0.1, 0.7, 0.2)
"""Probabilities of the first cell and of the second."""


def policy_by_hand(B: int) -> Tensor:
    """Logits of a policy with these probabilities for every image, shifted by a constant."""
    where = torch.tensor([P_FIRST, P_SECOND]).log() + torch.tensor([[3.0], [-4.0]])
    return where.expand(B, -1, -1).clone().requires_grad_()


def by_hand(cells: list[list[int]], where: Tensor | None = None) -> Rollout:
    """A rollout along ``cells`` of a policy with logits ``where``; all images have the same class logits."""
    B = len(cells)
    where = policy_by_hand(B) if where is None else where
    class_logits = torch.tensor([[[0.2, 0.8], [0.9, 0.1]]]).log() + 2
    return Rollout(
        torch.tensor(cells),
        location_log_probs(torch.tensor(cells), where),
        torch.zeros(B, 2),
        class_logits.expand(B, -1, -1).clone().requires_grad_(),
        torch.zeros(B, 2, 1),
    )
