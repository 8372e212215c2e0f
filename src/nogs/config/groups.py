"""Groups of options that several stages share, each a frozen dataclass, and the types of single ones.

Imports no torch, so that ``nogs --help`` answers at once. Numbers are bounded by their types (`nogs.config.bounds`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.constructors import PrimitiveConstructorSpec

from nogs.config.bounds import (
    PIXELS,
    RATE,
    SEED,
    VALUE,
    WIDTH,
    Batch,
    Checked,
    Count,
    Natural,
    Pixels,
    Rate,
    Scales,
    Seed,
    Share,
    Shift,
    Units,
)
from nogs.errors import UserError


def _comma_separated(of: type) -> PrimitiveConstructorSpec[tuple[object, ...]]:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{of.__name__.upper()},...",
        instance_from_str=lambda args: tuple(of(part.strip()) for part in args[0].split(",") if part.strip()),
        is_instance=lambda value: isinstance(value, tuple) and all(isinstance(v, of) for v in value),
        str_from_instance=lambda value: [",".join(str(v) for v in value)],
    )


def _low_and_high(args: list[str]) -> tuple[float, float]:
    low, high = args[0].split(",")
    return float(low), float(high)


Fit = Literal["crop", "pad", "squash"]
Range = Annotated[
    tuple[float, float],
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="LOW,HIGH",
        instance_from_str=_low_and_high,
        is_instance=lambda value: isinstance(value, tuple) and len(value) == 2,
        str_from_instance=lambda value: [",".join(map(str, value))],
    ),
    VALUE,
]
Supervision = Literal["location", "published"]
Strategy = Literal["race", "exhaustive"]
Names = Annotated[tuple[str, ...], _comma_separated(str)]
Seeds = Annotated[tuple[int, ...], _comma_separated(int), SEED]
Paths = Annotated[tuple[Path, ...], _comma_separated(Path)]
Sizes = Annotated[tuple[int, ...], _comma_separated(int), PIXELS]
Widths = Annotated[tuple[float, ...], _comma_separated(float), WIDTH]
Rates = Annotated[tuple[float, ...], _comma_separated(float), RATE]


@dataclass(frozen=True)
class Source(Checked):
    """Which images, and which label of them."""

    data: str = "digits"
    """digits | folder:PATH | csv:PATH | npz:PATH | celeba:PATH | celebahq:PATH | cub:PATH"""
    task: str | None = None
    """one label of a multi-label set, by name"""
    image_size: Pixels | None = None
    """side length in pixels that images are resized and cropped to; by default the size of the data"""
    split_seed: Seed = 0
    """seed of the train/val/test split, where the data has none"""
    skip_bad: bool = False
    """list files that cannot be read and leave them out, instead of stopping"""
    fit: Fit = "crop"
    """how an image becomes a square. crop: its centre; pad: all, with black borders; squash: all, stretched"""
    range: Range | None = None
    """values that become 0 and 255, for images of more than 8 bits a channel: 0,65535, or --range=-1,1"""

    def __post_init__(self) -> None:
        """Check ``range``, which is a list where it comes from JSON."""
        super().__post_init__()
        if self.range is None:
            return
        if len(self.range) != 2 or not self.range[0] < self.range[1]:
            raise UserError(f"range={','.join(map(str, self.range))}: give two numbers LOW,HIGH, the smaller first")
        object.__setattr__(self, "range", tuple(map(float, self.range)))


@dataclass(frozen=True)
class Geometry(Checked):
    """What a glimpse is, where it can be taken, and how many."""

    glimpse_size: Pixels = 8
    """side length of a glimpse in pixels"""
    stride: Pixels = 4
    """pixels between neighbouring locations"""
    glimpses: Count = 5
    """glimpses an image (T)"""
    scales: Scales = 1
    """concentric squares in a glimpse, each twice as wide (Mnih et al. 2014)"""


@dataclass(frozen=True)
class Machine(Checked):
    """Where to write, and on what to compute."""

    out: Path
    """run directory"""
    resume: bool = False
    """go on with the run in --out from where it was stopped"""
    device: str = "auto"
    """auto | cpu | cuda | mps"""


@dataclass(frozen=True)
class PosteriorNetwork(Checked):
    """The attentional variational posterior g(θ | y_1:t, l_1:t)."""

    posterior: Literal["lookahead", "avp-cnn"] = "lookahead"
    """lookahead: recurrent, a whole map in one batched pass; avp-cnn: a CNN on the masked image"""
    hidden: Units = 128
    """hidden units of the lookahead posterior"""
    backbone: str = "small-resnet"
    """CNN of the avp-cnn: small-resnet, or any timm model (the paper's is densenet121)"""
    pretrained: bool = False
    """start the backbone from its published weights"""


@dataclass(frozen=True)
class RetrievalOptions(Checked):
    """How what was not seen is completed from the bank."""

    completions: Count = 64
    """completions an image (N)"""
    proposals: Count = 256
    """images proposed by PCA for the exact stage"""
    rank: Count = 16
    """directions by which a glimpse is compared before the exact stage"""
    shift: Shift = 2
    """completions may be shifted by so many pixels, up, down, left and right"""
    effective: Share = 0.25
    """σ² is tempered until the effective sample size is this share of --completions"""


@dataclass(frozen=True)
class RaceOptions(Checked):
    """How a race saves evaluations of the posterior (`nogs.design.race`)."""

    coarse: Count = 4
    """grid step, in locations, of the first look; it is halved around the best until neighbours are tried"""
    peaks: Count = 6
    """around how many of the best, at each halving"""
    pilot: Share = 0.125
    """share of the completions that every one of these is tried on"""
    confidence: Share = 0.95
    """probability that a race does not eliminate its best location, over all its comparisons"""
    tolerance: Share = 0.003
    """nats by which an eliminated location may be better all the same"""


@dataclass(frozen=True)
class Optimisation(Checked):
    """One training loop's numbers."""

    iterations: Count = 8000
    batch_size: Batch = 64
    learning_rate: Rate = 1e-3
    validate_every: Count = 100
    """iterations between validations"""
    patience: Natural = 3000
    """stop after so many iterations without a better validation loss, greedy or sampled; 0: never"""
    seed: Seed = 0
