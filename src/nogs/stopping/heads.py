"""Stopping heads: small perceptrons that predict expected gains and halting from the class probabilities."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from nogs.information import entropy
from nogs.stopping.rules import Stop, best_rate

HEAD_WIDTH = 32


class Expected(NamedTuple):
    """What the stopping heads say after t glimpses: the gain a glimpse to come, and logits of halting for K costs."""

    entropy_gain: Float[Tensor, "B T-1"]
    accuracy_gain: Float[Tensor, "B T-1"]
    act_logits: Float[Tensor, "B T K"]
    stop_logits: Float[Tensor, "B T K"]


class StoppingHeads(nn.Module):
    """A small perceptron for each rule of `nogs.stopping`, on what a frozen network says after t glimpses.

    Each is given H[q_t] and max_θ q_t(θ), apart for each t: what the network says, where the poster's heads read
    what it remembers. h_t made every head worse on other images than those it had learned from (docs/log.md).
    The heads of expected gain have an output for each number of further glimpses; the halting heads of ACT and of
    the stochastic rule one for each of the costs that they are trained for.
    """

    def __init__(self, *, glimpses: int, costs: int) -> None:
        super().__init__()
        self.glimpses = glimpses
        told = 3 * glimpses
        self.entropy_gain = _perceptron(told, glimpses - 1)
        self.accuracy_gain = _perceptron(told, glimpses - 1)
        self.act = _perceptron(told, costs)
        self.stochastic = _perceptron(told, costs)

    @property
    def macs(self) -> int:
        """Multiply-adds of asking a head of expected gain once, which a halting head, for one cost, stays under."""
        return (3 * self.glimpses + self.glimpses - 1) * HEAD_WIDTH

    def features(self, class_logits: Float[Tensor, "*batch C"], t: Int[Tensor, "*#batch"]) -> Float[Tensor, "*batch f"]:
        """What the heads read; t counts from 1."""
        log_probs = class_logits.detach().log_softmax(-1)
        confidence = log_probs.amax(-1).exp()
        said = torch.stack((torch.ones_like(confidence), entropy(log_probs), confidence), dim=-1)
        when = F.one_hot(t - 1, self.glimpses)
        return (when[..., None] * said[..., None, :]).flatten(-2)

    def forward(self, class_logits: Float[Tensor, "B T C"]) -> Expected:
        """Ask every head."""
        t = torch.arange(1, self.glimpses + 1, device=class_logits.device)
        told = self.features(class_logits, t)
        entropy_gain, accuracy_gain = (
            best_rate(head(told[:, :-1]), self.glimpses - t[:-1]) for head in (self.entropy_gain, self.accuracy_gain)
        )
        return Expected(entropy_gain, accuracy_gain, self.act(told), self.stochastic(told))


def _perceptron(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, HEAD_WIDTH), nn.ReLU(), nn.Linear(HEAD_WIDTH, outputs))


def expecting_less(heads: StoppingHeads, threshold_nats: float) -> Stop:
    """Stop where the predicted entropy gain a glimpse is under the threshold."""

    def stop(class_logits: Tensor, t: int) -> Tensor:
        now = torch.tensor(t, device=class_logits.device)
        return best_rate(heads.entropy_gain(heads.features(class_logits, now)), heads.glimpses - now) < threshold_nats

    return stop
