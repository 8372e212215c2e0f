"""model.json: everything that a host needs beside the graphs to run an exported network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nogs.attention.choosers import centre_cell
from nogs.attention.core import AttentionCore
from nogs.attention.methods import method
from nogs.attention.network import HardAttention
from nogs.errors import UserError
from nogs.export.graphs import first_cell
from nogs.specs import HardAttentionSpec
from nogs.stopping.rules import HALTED

FORMAT = 2
"""Version of model.json."""


def describe(
    spec: HardAttentionSpec, network: HardAttention, *, threshold_nats: float | None, macs: Sequence[int]
) -> dict[str, Any]:
    """Return the content of model.json.

    ``threshold_nats``: predicted gain below which an image stops; None: it gets all T glimpses, or as many as a halting
    unit takes. ``macs``: multiply-adds of an image that stops after t = 1..T glimpses.
    """
    path = path_of(spec)
    return {
        "format": FORMAT,
        "method": spec.method,
        "classes": list(spec.classes),
        "channels": spec.channels,
        "image_px": spec.grid.image_px,
        "fit": spec.fit,
        "range": None if spec.range is None else list(spec.range),
        "glimpse_px": spec.grid.glimpse_px,
        "scales": spec.grid.scales,
        "levels": [list(level.offsets_px) for level in spec.grid.levels],
        "overview_px": spec.overview_px,
        "hidden": spec.hidden,
        "memory": network.core.width if isinstance(network.core, AttentionCore) else 0,
        "glimpses": spec.glimpses,
        "path": path,
        "first_cell": first_cell(network) if path is None and not spec.overview_px else None,
        "threshold_nats": threshold_nats,
        "halted": HALTED,
        "macs": list(macs),
    }


def path_of(spec: HardAttentionSpec) -> list[int] | None:
    """Return the T cells of a method that looks at the same ones in every image; None if a policy chooses them.

    Raises UserError for random cells, which are drawn by torch.
    """
    looks = method(spec.method).looks
    if looks == "random":
        raise UserError(f"method={spec.method} draws its cells by torch: export a network with another method")
    if looks == "centre":
        return [centre_cell(spec.grid)] * spec.glimpses
    return None if spec.path is None else list(spec.path)
