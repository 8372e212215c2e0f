"""Gain maps: the expected gain of every location in one state of knowledge, in nats."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nogs.completion.protocol import Completions
from nogs.glimpses.fovea import Glimpses
from nogs.information import expected_posterior_entropy, mixture_information_gain
from nogs.posterior.protocol import Posterior, class_log_probs, lookahead_everywhere

Criterion = Literal["epe", "eig"]


class Maps(NamedTuple):
    """What one more glimpse at each location is expected to tell, in nats: B images, L locations.

    ``effective`` is the effective sample size of the completions behind a map; ``evaluations`` counts what the
    posterior was asked, one for each location of each completion.
    """

    epe: Float[Tensor, "B L"]
    eig: Float[Tensor, "B L"]
    effective: Float[Tensor, " B"]
    evaluations: int

    def gain(self, criterion: Criterion) -> Float[Tensor, "B L"]:
        """What is maximised: the mixture EIG, or minus the EPE."""
        return self.eig if criterion == "eig" else -self.epe

    def to(self, device: torch.device) -> Maps:
        """The same on another device."""
        return Maps(self.epe.to(device), self.eig.to(device), self.effective.to(device), self.evaluations)


def map_next(posterior: Posterior, seen: Glimpses, completions: Completions, *, label: int | None = None) -> Maps:
    """EPE and mixture EIG of every location, for each image of ``seen``.

    ``label`` picks one of a multi-label posterior's labels. All is done where the posterior is; the maps come back
    to where the glimpses are.
    """
    home, device = seen.cells.device, posterior.focus.device
    seen, completions = seen.to(device), completions.to(device)
    logits = lookahead_everywhere(posterior, seen, completions.images, completions.owners)
    log_probs = class_log_probs(logits, multilabel=posterior.multilabel, label=label)
    epes, eigs = [], []
    for row in range(len(seen.cells)):
        mine = completions.owners == row
        epes.append(expected_posterior_entropy(log_probs[mine], completions.weights[mine]))
        eigs.append(mixture_information_gain(log_probs[mine], completions.weights[mine]))
    evaluations = len(completions.owners) * len(posterior.grid)
    return Maps(torch.stack(epes), torch.stack(eigs), completions.effective, evaluations).to(home)


def pooled(
    gain: Float[Tensor, "B L"], *, population: Float[Tensor, " L"] | None = None, pooling: float
) -> Float[Tensor, "B L"]:
    """The score of every cell: (1 - c) of its own gain and c of the ``population``'s mean, by default of these."""
    return (1 - pooling) * gain + pooling * (gain.mean(0) if population is None else population)
