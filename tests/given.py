"""A chooser for tests: cells that are given for some images, and chosen for the others."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from nogs.attention.choosers import Chooser


def following(cells: Int[Tensor, "B T"], otherwise: Chooser) -> Chooser:
    """Return a chooser of the given ``cells``; where a cell is negative, ``otherwise`` chooses."""

    def choose(logits: Tensor, t: int) -> Tensor:
        given = cells[:, t]
        return torch.where(given < 0, otherwise(logits, t), given)

    return choose
