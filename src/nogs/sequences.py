"""The table of glimpse sequences: which image, which cells, and the maps they were chosen by."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from nogs.rundir import RunDirectory


class Sequences(NamedTuple):
    """n glimpse sequences of T cells.

    ``images`` are indices into the ImageSet; ``eig`` and ``epe`` are the maps in nats that the search saw,
    ``effective`` the effective sample size of the completions behind each glimpse.
    """

    images: Int[Tensor, " n"]
    cells: Int[Tensor, "n T"]
    epe: Float[Tensor, "n T L"]
    eig: Float[Tensor, "n T L"]
    effective: Float[Tensor, "n T"]


def save_sequences(run: RunDirectory, name: str, sequences: Sequences) -> None:
    run.save_tensors(name, sequences._asdict())


def load_sequences(run: RunDirectory, name: str = "sequences") -> Sequences:
    return Sequences(**run.load_tensors(name))
