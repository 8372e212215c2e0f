"""Initial weights of networks that read pixels, after He, Zhang, Ren and Sun 2015 (section 2.2).

With torch's own initial weights the standard deviation over glimpses of a feature is a hundredth of that of the pixels,
because most pixels are background and each layer shrinks the rest; that of the state is a thousandth. A location head
on the detached state then learns late what differs between glimpses.
"""

from __future__ import annotations

from torch import nn


def initialise(network: nn.Module) -> None:
    """Draw the weights of all linear and convolutional layers of ``network`` from N(0, 2 / fan-in); biases are 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
