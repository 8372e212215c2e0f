"""Average the weights over training by an exponential moving average (Polyak and Juditsky 1992; Izmailov et al. 2018).

After iteration i the averaged weights are w̄_i = d w̄_i-1 + (1 - d) w_i, from w̄_1 = w_1, where w_i are the trained
weights and d is the decay. Buffers are those of the trained network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Average:
    """The averaged weights of ``network``. ``decay``: d, above 0 and below 1."""

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        self._network = network
        self._averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def update(self) -> None:
        """Add the weights of the network after an iteration to the average."""
        self._averaged.update_parameters(self._network)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have the averaged weights in the network within the context, and the trained ones again after it."""
        trained = {name: value.clone() for name, value in self._network.state_dict().items()}
        self._network.load_state_dict(self._averaged.module.state_dict())
        try:
            yield
        finally:
            self._network.load_state_dict(trained)

    def state(self) -> dict[str, Tensor]:
        """Return the averaged weights by name, and the number of iterations that they are over."""
        return self._averaged.state_dict()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from what `state` returned."""
        self._averaged.load_state_dict(state)
