"""Cost in multiply-adds (one FLOP count is twice that), counted from the layers that do them.

Linear, convolution and GRU cells are counted; biases, activations, pooling and the gather of the fovea are
not, as in the paper, whose CelebA-HQ network comes to 587,968 a glimpse and 128 for the classifier.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nogs.attention import HardAttention, greedy


def count_macs(network: nn.Module, run: Callable[[], object]) -> int:
    """Multiply-adds of the layers of ``network`` while ``run()`` is executed."""
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Linear):
            total += output.numel() * module.in_features
        elif isinstance(module, nn.Conv2d):
            total += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.GRUCell):
            total += output.numel() * 3 * (module.input_size + module.hidden_size)

    hooks = [
        module.register_forward_hook(count)
        for module in network.modules()
        if isinstance(module, nn.Linear | nn.Conv2d | nn.GRUCell)
    ]
    try:
        with torch.inference_mode():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return total


def macs_by_glimpse(network: HardAttention, *, channels: int, glimpses: int) -> list[int]:
    """Multiply-adds of classifying one image after t = 1..T glimpses: t steps, and one answer.

    A step is where to look, what is seen there, and the core; the baseline serves training alone.
    """
    H = network.grid.image_px
    image = torch.zeros(1, channels, H, H, dtype=torch.uint8, device=network.baseline.weight.device)
    classifier = network.classifier.in_features * network.classifier.out_features
    with_all = count_macs(network, lambda: network(image, glimpses=1, choose=greedy))
    step = with_all - classifier - network.baseline.in_features
    return [t * step + classifier for t in range(1, glimpses + 1)]
