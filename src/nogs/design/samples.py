"""Estimates of gains from the first n completions of each image, in a random order.

Unequal weights make a uniform sample of completions a poor one: the order favours heavy completions (sequential
Poisson sampling, Ohlsson 1998), and the estimate divides by their inclusion probability (Hájek 1971).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from nogs.completion.protocol import Completions
from nogs.glimpses.fovea import Glimpses
from nogs.information import expected_posterior_entropy, mixture_information_gain
from nogs.posterior.protocol import Candidates, Posterior


class Entries(NamedTuple):
    """F pairs of image and cell in the race, with the posterior on the first n completions of the image."""

    images: Int[Tensor, " F"]
    cells: Int[Tensor, " F"]
    log_probs: Float[Tensor, "F n C"]

    def where(self, kept: Bool[Tensor, " F"]) -> Entries:
        """Return the entries where ``kept`` is true."""
        return Entries(*(column[kept] for column in self))


@dataclass
class Samples:
    """The posterior evaluated on completions in a random order.

    ``rows``: the completions of each image in that order; the first n are its sample of size n. ``weights``: those of
    ``rows``, 0 where an image has fewer than N completions. ``evaluations``: evaluations of the posterior so far.
    """

    posterior: Posterior
    seen: Glimpses
    completions: Completions
    rows: Int[Tensor, "B N"]
    weights: Float[Tensor, "B N"]
    evaluations: int = field(default=0, init=False)

    @property
    def count(self) -> int:
        return self.rows.shape[1]

    def evaluate(
        self, images: Int[Tensor, " F"], cells: Int[Tensor, " F"], start: int, stop: int
    ) -> Float[Tensor, "F n C"]:
        """Return the log-probabilities on completions ``start`` to ``stop`` of each image, one more glimpse at a cell.

        They are 0 where an image has no such completion.
        """
        real = self.weights[images, start:stop] > 0
        self.evaluations += int(real.sum())
        candidates = Candidates(
            self.completions.images,
            self.completions.owners,
            rows=self.rows[images, start:stop][real],
            cells=cells[:, None].expand_as(real)[real],
        )
        log_probs = self.posterior.lookahead(self.seen, candidates).logits
        return log_probs.new_zeros(*real.shape, log_probs.shape[-1]).masked_scatter(real[..., None], log_probs)

    def enter(self, cells: Bool[Tensor, "B L"], n: int) -> Entries:
        """Return the entries where ``cells`` is true, evaluated on the first n completions."""
        images, numbers = cells.nonzero(as_tuple=True)
        return Entries(images, numbers, self.evaluate(images, numbers, 0, n))


def ordered(
    completions: Completions, owners: int, *, generator: Generator
) -> tuple[Int[Tensor, "B N"], Float[Tensor, "B N"]]:
    """Return the completions of B = ``owners`` images in a random order that favours heavy ones, and their weights.

    Sequential Poisson sampling (Ohlsson 1998): in the order of u / w, u uniform, the first n contain completion i with
    a probability nearly proportional to its weight. Owners with fewer than N completions are padded with weights of 0.
    """
    device = completions.owners.device
    keys = torch.rand(len(completions.owners), generator=generator).to(device) / completions.weights
    order = keys.argsort()
    order = order[completions.owners[order].argsort(stable=True)]
    counts = completions.owners.bincount(minlength=owners)
    slot = torch.arange(len(order), device=device) - (counts.cumsum(0) - counts)[completions.owners]
    shape = owners, int(counts.max())
    rows = torch.zeros(shape, dtype=torch.long, device=device)
    weights = completions.weights.new_zeros(shape)
    rows[completions.owners, slot] = order
    weights[completions.owners, slot] = completions.weights[order]
    return rows, weights


def estimation_weights(weights: Float[Tensor, "B N"], n: int) -> Float[Tensor, "B n"]:
    """Return the estimation weights of the first n completions: w over their inclusion probability, normalised.

    This is Hájek's estimator. The inclusion probability is min(1, c w), with c such that n are expected.
    """
    capped = torch.zeros_like(weights, dtype=torch.bool)
    for _ in range(n):
        rest = weights.masked_fill(capped, 0).sum(-1, keepdim=True)
        scale = (n - capped.sum(-1, keepdim=True)) / rest.clamp_min(1e-12)
        more = (scale * weights >= 1) & ~capped
        if not more.any():
            break
        capped |= more
    chance = (scale * weights).masked_fill(capped, 1)
    shares = torch.where(weights > 0, weights / chance, 0)[:, :n]
    return shares / shares.sum(-1, keepdim=True)


def gains(entries: Entries, weights: Float[Tensor, "B N"]) -> tuple[Float[Tensor, " F"], Float[Tensor, " F"]]:
    """Return the estimates, in nats, of EPE and mixture EIG of each entry."""
    log_probs = entries.log_probs[:, :, None]
    shares = estimation_weights(weights, log_probs.shape[1])[entries.images]
    return expected_posterior_entropy(log_probs, shares)[:, 0], mixture_information_gain(log_probs, shares)[:, 0]
