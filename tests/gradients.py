"""Which parameters of a network a term of its loss trains."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Gradients = Mapping[str, Tensor | None]
"""Parameter → its gradient."""


def only_the_location_head_learns(whole: Gradients, without: Gradients) -> None:
    """Assert that a term trains the location head, and that gradients of all else are the same ``without`` it."""
    for name, of_rest in without.items():
        found = whole[name]
        if name.startswith(("locator", "overview.features")):
            assert found is not None, name
            assert found.abs().sum() > 0, name
        elif name.startswith("baseline"):
            assert found is None
        else:
            assert found is not None
            assert of_rest is not None
            torch.testing.assert_close(found, of_rest, msg=name)
