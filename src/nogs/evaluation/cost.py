"""Cost in multiply-adds (FLOPs = 2 x multiply-adds), counted from the operations that are executed.

Torch's counter includes matrix products and convolutions, grouped and depthwise ones too, inside and outside of
modules. As in the paper, whose CelebA-HQ network has 587,968 a glimpse and 128 for the classifier, these are left out:
biases, activations, normalisation, element-wise products, pooling, and the gather of the fovea.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch.utils.module_tracker import ModuleTracker

from nogs.attention.choosers import greedy
from nogs.attention.network import HardAttention
from nogs.data.drawn import Blank

FLOPS_A_MAC = 2
TOTAL = "Global"
"""torch's name for the module that contains all modules."""
ITSELF = "(itself)"
"""Part for operations that a network executes outside of its submodules."""


def count_macs(network: nn.Module, run: Callable[[], object]) -> int:
    """Return the multiply-adds of ``run()``, which uses ``network``."""
    return _counted(network, run)[TOTAL]


def breakdown(network: nn.Module, run: Callable[[], object], *, depth: int = 1) -> dict[str, int]:
    """Return part of ``network`` → its multiply-adds in ``run()``, in the network's order; the sum is `count_macs`.

    A part is a module, named by the first ``depth`` names of its path. Parts without multiply-adds are left out.
    """
    root = f"{_Whole.__name__}.network."
    counts = _counted(network, _Whole(network, run))
    within = {path.removeprefix(root): macs for path, macs in counts.items() if path.startswith(root)}
    own = {"": counts[TOTAL], **within}
    for path, macs in within.items():
        outer = path.rpartition(".")[0]
        while outer not in own:  # a list of modules is never called itself
            outer = outer.rpartition(".")[0]
        own[outer] -= macs
    parts: dict[str, int] = {}
    for path, _ in network.named_modules():
        if own.get(path):
            part = ".".join(path.split(".")[:depth]) or ITSELF
            parts[part] = parts.get(part, 0) + own[path]
    return parts


def parts_of_glimpse(network: HardAttention, *, channels: int, depth: int = 1, policy: bool = True) -> dict[str, int]:
    """Return part → multiply-adds of one step of one image (all but ``classifier``) and of one answer (``classifier``).

    A step is the location head, the embedding and the core; with attention over all glimpses it is the second one. The
    overview is not part of it, because it is read once per image. ``policy``: whether the location head chooses the
    cells. Methods without a policy do not run it.
    """
    one, two = (_parts(network, channels=channels, glimpses=t, depth=depth, policy=policy) for t in (1, 2))
    steps = {part: macs - one[part] for part, macs in two.items()}
    return {"fovea": 0, **{part: macs for part, macs in steps.items() if macs}}


def macs_by_glimpse(network: HardAttention, *, channels: int, glimpses: int, policy: bool = True) -> list[int]:
    """Return the multiply-adds of classifying one image after t = 1..T glimpses: the overview, t steps, and one answer.

    ``policy`` as in `parts_of_glimpse`. `nogs.stopping.curves.macs_by_rule` adds the cost of stopping rules.
    """
    first = _parts(network, channels=channels, glimpses=1, policy=policy)
    if isinstance(network.core, nn.GRUCell):
        parts = parts_of_glimpse(network, channels=channels, policy=policy)
        step = sum(macs for part, macs in parts.items() if part != "classifier")
        return [sum(first.values()) + t * step for t in range(glimpses)]
    counts = [_parts(network, channels=channels, glimpses=t, policy=policy) for t in range(1, glimpses + 1)]
    return [sum(count.values()) - count["classifier"] + first["classifier"] for count in counts]


def _parts(
    network: HardAttention, *, channels: int, glimpses: int, depth: int = 1, policy: bool = True
) -> dict[str, int]:
    """Return part → multiply-adds of one image after ``glimpses`` steps with an answer each.

    The baseline is left out, because only training uses it.
    """
    image = Blank(1, channels=channels, image_px=network.grid.image_px, device=network.baseline.weight.device)
    parts = breakdown(network, lambda: network(image, glimpses=glimpses, choose=greedy), depth=depth)
    unused = {"baseline"} if policy else {"baseline", "locator"}
    return {part: macs for part, macs in parts.items() if part.split(".")[0] not in unused}


def macs_of_image(network: nn.Module, *, channels: int, image_px: int, device: torch.device) -> int:
    """Return the multiply-adds of a network on one whole image, in eval mode, as batch statistics need more images."""
    image = torch.zeros(1, channels, image_px, image_px, dtype=torch.uint8, device=device)
    return count_macs(network, lambda: network(image))


class _Whole(nn.Module):
    """``run`` as a module that holds the network, so that the counter names the network's modules by their path."""

    def __init__(self, network: nn.Module, run: Callable[[], object]) -> None:
        super().__init__()
        self.network = network
        self.run = run

    def forward(self) -> None:
        self.run()


class _Counter:
    """Add up the multiply-adds of every operation, for each module that is running and for ``TOTAL``.

    `FlopCounterMode` counts the same, but imports torch's compiler (4 seconds a process), because it defines
    ``__torch_dispatch__`` in the body of a subclass of `TorchDispatchMode`. `_CounterMode` inherits it instead.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs: Counter[str] = Counter()
        self.modules = ModuleTracker()

    def __torch_dispatch__(
        self, operation: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        formula = flop_registry.get(operation.overloadpacket)
        if formula is None:
            with cast(_CounterMode, self):
                parts = operation.decompose(*args, **(kwargs or {}))
            if parts is not NotImplemented:
                return parts
        result = operation(*args, **(kwargs or {}))
        if formula is not None:
            macs = formula(*args, **(kwargs or {}), out_val=result) // FLOPS_A_MAC
            self.macs.update(dict.fromkeys(self.modules.parents, macs))
        return result


class _CounterMode(_Counter, TorchDispatchMode):
    pass


def _counted(network: nn.Module, run: Callable[[], object]) -> Counter[str]:
    """Return the multiply-adds of each module in ``run()``, by its path, and their sum as ``TOTAL``."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    # The counter fails on parameters with gradients that are arguments of a module, as the posterior's h_0 is.
    network.requires_grad_(False)
    counter = _CounterMode()
    try:
        with torch.no_grad(), counter.modules, counter:
            run()
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
    return counter.macs
