"""Adam (Kingma and Ba 2015, algorithm 1), with the state of `torch.optim.Adam` and its numbers, bit for bit.

`torch.optim.Adam` imports torch's compiler, which takes each process 2 to 4 seconds. Its functional form does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Decay rates of the two moments, and what keeps the denominator from zero (Kingma and Ba 2015, section 2)."""
FUSED = ("cpu", "cuda")
"""Types of device with one kernel for all parameters."""


class Moments(NamedTuple):
    """State of one parameter: number of its updates, running means of its gradient and of the gradient's square."""

    step: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor


class Adam:
    """Optimise ``parameters``, all of one device. A parameter without a gradient is neither changed nor counted."""

    def __init__(self, parameters: Iterable[nn.Parameter], *, learning_rate: float) -> None:
        self._parameters = list(parameters)
        self.learning_rate = learning_rate
        self._fused = self._parameters[0].device.type in FUSED
        self._moments: dict[int, Moments] = {}

    def zero_grad(self) -> None:
        """Free all gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        parameters: list[Tensor] = []
        gradients: list[Tensor] = []
        moments: list[Moments] = []
        for index, parameter in enumerate(self._parameters):
            if parameter.grad is not None:
                if index not in self._moments:
                    self._moments[index] = self._initial(parameter)
                parameters.append(parameter)
                gradients.append(parameter.grad)
                moments.append(self._moments[index])
        adam(
            parameters,
            gradients,
            [of.exp_avg for of in moments],
            [of.exp_avg_sq for of in moments],
            [],
            [of.step for of in moments],
            fused=self._fused,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=self.learning_rate,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )

    def state(self) -> dict[str, Tensor]:
        """Return the moments by ``{index of the parameter}/{name of the moment}``."""
        return {f"{index}/{name}": value for index, of in self._moments.items() for name, value in of._asdict().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self._moments = {}
        for index in {int(key.partition("/")[0]) for key in state}:
            target = self._initial(self._parameters[index])
            saved = {name: state[f"{index}/{name}"].to(value) for name, value in target._asdict().items()}
            self._moments[index] = Moments(**saved)

    def _initial(self, parameter: nn.Parameter) -> Moments:
        # Only the fused kernel counts on the device; the others would wait for it at every step.
        step = torch.zeros((), device=parameter.device if self._fused else "cpu")
        return Moments(step, torch.zeros_like(parameter), torch.zeros_like(parameter))
