"""Gain maps: the expected gain of every location in one state of knowledge, in nats.

The state of knowledge is the set of glimpses seen so far. `CompletionGainMap` estimates the map from completions of
what was seen and a posterior (*Near-Optimal Glimpse Sequences*, section 3, eq. 4), by an `Estimator`: `exhaustive`
evaluates every location on every completion; `nogs.design.race` needs fewer evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from nogs.completion.protocol import Completion, Completions
from nogs.glimpses.fovea import Glimpses
from nogs.information import expected_posterior_entropy, mixture_information_gain
from nogs.posterior.protocol import Posterior, every_candidate

Criterion = Literal["epe", "eig"]


class Maps(NamedTuple):
    """Expected effect of one more glimpse at each of L locations, for B states of knowledge, in nats.

    ``effective`` is the effective sample size of the completions behind each map; ``evaluations`` counts evaluations
    of the posterior, one for each pair of location and completion.
    """

    epe: Float[Tensor, "B L"]
    eig: Float[Tensor, "B L"]
    effective: Float[Tensor, " B"]
    evaluations: int

    def gain(self, criterion: Criterion) -> Float[Tensor, "B L"]:
        """Return the map to maximise: the mixture EIG, or minus the EPE."""
        return self.eig if criterion == "eig" else -self.epe

    def to(self, device: torch.device) -> Maps:
        """Return the same maps on another device."""
        return Maps(self.epe.to(device), self.eig.to(device), self.effective.to(device), self.evaluations)

    def expand(self, count: int) -> Maps:
        """Return the one map of B = 1 for ``count`` states that are equal, at no further evaluations."""
        epe, eig, effective = (column.expand(count, *column.shape[1:]) for column in self[:3])
        return Maps(epe, eig, effective, evaluations=0)


@runtime_checkable
class GainMap(Protocol):
    """A function from states of knowledge to the expected gain of every location."""

    def __call__(self, seen: Glimpses, *, groups: Int[Tensor, " B"], generator: Generator) -> Maps:
        """Return the maps of B states, of T ≥ 0 glimpses each, on the device of ``seen``.

        ``groups``: the group (person) of each image; the map is made without other images of the same group.
        """
        ...


@runtime_checkable
class Estimator(Protocol):
    """A function from completions of partly observed images to maps."""

    def __call__(self, posterior: Posterior, seen: Glimpses, completions: Completions, *, generator: Generator) -> Maps:
        """Return the maps of the B states of ``seen``, on its device."""
        ...


@dataclass(frozen=True)
class CompletionGainMap:
    """The gain map of a posterior of one label and a completion.

    ``unconditional``: the number of completions that are drawn before the first glimpse.
    """

    posterior: Posterior
    completion: Completion
    estimator: Estimator
    unconditional: int

    def __call__(self, seen: Glimpses, *, groups: Int[Tensor, " B"], generator: Generator) -> Maps:
        completions = self.complete(seen, groups=groups, generator=generator)
        return self.estimator(self.posterior, seen, completions, generator=generator)

    def complete(self, seen: Glimpses, *, groups: Int[Tensor, " B"], generator: Generator) -> Completions:
        """Return completions of each state. Before the first glimpse all states are equal, so B must be 1."""
        if seen.cells.shape[1]:
            return self.completion(seen, groups=groups, generator=generator)
        if len(seen.cells) != 1:
            raise ValueError(f"seen has {len(seen.cells)} equal states without a glimpse: give one")
        return self.completion.unconditional(self.unconditional, generator=generator)


def exhaustive(posterior: Posterior, seen: Glimpses, completions: Completions, *, generator: Generator) -> Maps:
    """Return the EPE and mixture EIG of every location on every completion. ``generator`` is not used.

    The posterior is evaluated on its own device.
    """
    home, device = seen.cells.device, posterior.device
    seen, completions = seen.to(device), completions.to(device)
    P, L = len(completions.owners), len(posterior.grid)
    candidates = every_candidate(completions.images, completions.owners, locations=L)
    log_probs = posterior.lookahead(seen, candidates).logits.unflatten(0, (P, L))
    epe, eig = [], []
    for row in range(len(seen.cells)):
        of_row = completions.owners == row
        epe.append(expected_posterior_entropy(log_probs[of_row], completions.weights[of_row]))
        eig.append(mixture_information_gain(log_probs[of_row], completions.weights[of_row]))
    return Maps(torch.stack(epe), torch.stack(eig), completions.effective, P * L).to(home)


def pooled(
    gain: Float[Tensor, "B L"], *, population: Float[Tensor, " L"] | None = None, pooling: float
) -> Float[Tensor, "B L"]:
    """Return (1 - c) gain + c population, with c = ``pooling`` in [0, 1].

    ``population``: the mean gain of all images (default: of the B images of ``gain``).
    """
    return (1 - pooling) * gain + pooling * (gain.mean(0) if population is None else population)
