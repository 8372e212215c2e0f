"""Tables that networks compute from their grid, and leave out while only the shapes of their weights are wanted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def table(compute: Callable[[], Tensor]) -> Tensor:
    """Return ``compute()``, or an empty tensor while networks are built on the device "meta".

    `nogs.weights` builds a network there to compare shapes with a file whose spec may be wrong, and must not allocate
    what the spec needs. ``compute`` chooses the CPU itself, because arithmetic on "meta" imports torch's compiler.
    """
    return torch.empty(0) if torch.empty(0).device.type == "meta" else compute()
