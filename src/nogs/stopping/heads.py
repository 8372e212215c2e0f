"""Stopping heads: small perceptrons that predict gains and halting from the class probabilities."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from nogs.information import entropy
from nogs.stopping.rules import Stop, best_rate

HEAD_WIDTH = 32


class HeadOutputs(NamedTuple):
    """Outputs of the heads after t glimpses: predicted gain per further glimpse, and halting logits for K costs."""

    entropy_gain: Float[Tensor, "B T-1"]
    accuracy_gain: Float[Tensor, "B T-1"]
    act_logits: Float[Tensor, "B T K"]
    stop_logits: Float[Tensor, "B T K"]


class StoppingHeads(nn.Module):
    """A small perceptron for each rule of `nogs.stopping.rules`, on the predictions of a frozen network.

    The inputs are H[q_t] and max_θ q_t(θ), in separate columns for each t. The poster's heads read the hidden state
    h_t instead; that made every head worse on new images (docs/log.md). The heads of expected gain have an output for
    each number of further glimpses; the halting heads of ACT and of the stochastic rule have one for each cost.
    """

    def __init__(self, *, glimpses: int, costs: int) -> None:
        super().__init__()
        self.glimpses = glimpses
        features = 3 * glimpses
        self.entropy_gain = _perceptron(features, glimpses - 1)
        self.accuracy_gain = _perceptron(features, glimpses - 1)
        self.act = _perceptron(features, costs)
        self.stochastic = _perceptron(features, costs)

    @property
    def macs(self) -> int:
        """Multiply-adds of one output of a head of expected gain; a halting head for one cost needs fewer."""
        return (3 * self.glimpses + self.glimpses - 1) * HEAD_WIDTH

    def features(self, class_logits: Float[Tensor, "*batch C"], t: Int[Tensor, "*#batch"]) -> Float[Tensor, "*batch f"]:
        """Return the f = 3 T inputs of the heads after glimpse ``t``, which counts from 1."""
        log_probs = class_logits.detach().log_softmax(-1)
        confidence = log_probs.amax(-1).exp()
        summary = torch.stack((torch.ones_like(confidence), entropy(log_probs), confidence), dim=-1)
        is_step = F.one_hot(t - 1, self.glimpses)
        return (is_step[..., None] * summary[..., None, :]).flatten(-2)

    def forward(self, class_logits: Float[Tensor, "B T C"]) -> HeadOutputs:
        """Return the outputs of every head after each glimpse."""
        t = torch.arange(1, self.glimpses + 1, device=class_logits.device)
        features = self.features(class_logits, t)
        entropy_gain, accuracy_gain = (
            best_rate(head(features[:, :-1]), self.glimpses - t[:-1])
            for head in (self.entropy_gain, self.accuracy_gain)
        )
        return HeadOutputs(entropy_gain, accuracy_gain, self.act(features), self.stochastic(features))


def _perceptron(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, HEAD_WIDTH), nn.ReLU(), nn.Linear(HEAD_WIDTH, outputs))


def stop_by_predicted_gain(heads: StoppingHeads, threshold_nats: float) -> Stop:
    """Return the rule that stops an image where the predicted entropy gain per glimpse is under the threshold."""

    def stop(class_logits: Tensor, t: int, location_logits: Tensor) -> Tensor:
        step = torch.tensor(t, device=class_logits.device)
        gains = heads.entropy_gain(heads.features(class_logits, step))
        return best_rate(gains, heads.glimpses - step) < threshold_nats

    return stop
