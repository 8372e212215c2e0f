"""The halting unit of Adaptive Computation Time (Graves 2016), for a network that is trained jointly with it.

After glimpse t the unit reads the hidden state s_t: h_t = σ(w · s_t + b). With N and p_t of `nogs.stopping.rules.halt`,
the image stops after N glimpses, and its answer is the mean field Σ_t p_t q_t(θ) (eqs. 5-13). The heads of
`nogs.stopping.heads` are fitted to a frozen network instead.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nogs.stopping.rules import halt, mean_field

INITIAL_BIAS = 1.0
"""b before training: the network starts with few glimpses and has to learn to take more (Graves 2016, section 3)."""


class HaltingUnit(nn.Module):
    """A linear unit from the hidden state to the halting probability."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, 1)
        nn.init.constant_(self.linear.bias, INITIAL_BIAS)

    def forward(self, states: Float[Tensor, "*batch h"]) -> Float[Tensor, "*batch"]:
        """Return h_t for the hidden states s_t. The gradient flows into the states."""
        return self.linear(states)[..., 0].sigmoid()


class Halted(NamedTuple):
    """Log-probabilities of the answer of n images if at most t = 1..T glimpses are allowed, and their steps N."""

    log_probs: Float[Tensor, "n T C"]
    steps: Int[Tensor, " n"]


def answers(halting: Float[Tensor, "n T"], class_logits: Float[Tensor, "n T C"]) -> Halted:
    """Return the mean field for each limit on the number of glimpses; the last one is the answer without a limit.

    ``halting``: halting probabilities. ``class_logits``: of q_t(θ), after each glimpse.
    """
    log_probs = class_logits.log_softmax(-1)
    limited = [halt(halting[:, :t]) for t in range(1, halting.shape[1] + 1)]
    fields = [mean_field(at.weights, log_probs[:, :t]) for t, at in enumerate(limited, start=1)]
    return Halted(torch.stack(fields, dim=1), limited[-1].steps)
