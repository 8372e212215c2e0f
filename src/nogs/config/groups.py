"""Groups of options that stages share, each a frozen dataclass, and the types of single options.

Numbers are bounded by their types (`nogs.config.bounds`). Imports no torch, so that ``nogs --help`` is fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from nogs.config.bounds import (
    NATURAL,
    PIXELS,
    RATE,
    SEED,
    VALUE,
    WIDTH,
    Batch,
    Checked,
    Count,
    Decay,
    Natural,
    Pixels,
    Rate,
    Scales,
    Seed,
    Share,
    Shift,
    Units,
    Weight,
)
from nogs.errors import UserError


def _comma_separated(of: type) -> PrimitiveConstructorSpec[tuple[object, ...]]:
    """Return the parser of one word of the command line, as in ``0,1,2``, to a tuple of ``of``."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{of.__name__.upper()},...",
        instance_from_str=lambda args: tuple(of(part.strip()) for part in args[0].split(",") if part.strip()),
        is_instance=lambda value: isinstance(value, tuple) and all(isinstance(v, of) for v in value),
        str_from_instance=lambda value: [",".join(str(v) for v in value)],
    )


def _low_and_high(args: list[str]) -> tuple[float, float]:
    """Parse ``LOW,HIGH`` to two numbers."""
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
Supervision = Literal["location", "published", "dagger"]
Strategy = Literal["race", "exhaustive"]
Schedule = Literal["constant", "cosine"]
Initial = Literal["torch", "he"]
Precision = Literal["32-true", "bf16-mixed"]
Core = Literal["gru", "attention"]
Model = Annotated[Path, Positional, arg(metavar="MODEL")]
Images = Annotated[tuple[Path, ...], Positional, arg(metavar="IMAGE")]
Names = Annotated[tuple[str, ...], _comma_separated(str)]
Seeds = Annotated[tuple[int, ...], _comma_separated(int), SEED]
Paths = Annotated[tuple[Path, ...], _comma_separated(Path)]
Sizes = Annotated[tuple[int, ...], _comma_separated(int), PIXELS]
Naturals = Annotated[tuple[int, ...], _comma_separated(int), NATURAL]
Widths = Annotated[tuple[float, ...], _comma_separated(float), WIDTH]
Rates = Annotated[tuple[float, ...], _comma_separated(float), RATE]


@dataclass(frozen=True)
class Source(Checked):
    """The images, and the label to learn."""

    data: str = "digits"
    """digits | needles, megapixel or pointers, each with [:DIGITS.npz] | folder:PATH | csv:PATH | npz:PATH |
    celeba:PATH | celebahq:PATH | cub:PATH | gtsdb:PATH | gtsdb-pasted:PATH"""
    task: str | None = None
    """one label of a multi-label set, by name"""
    image_size: Pixels | None = None
    """side length in pixels that images are resized to; by default the size of the data"""
    split_seed: Seed = 0
    """seed of the train/val/test split, if the data has none"""
    skip_bad: bool = False
    """leave out files and rows that cannot be used, and list them, in place of stopping"""
    fit: Fit = "crop"
    """how an image becomes a square. crop: its centre; pad: all, with black borders; squash: all, stretched"""
    range: Range | None = None
    """values that become 0 and 255, for images of more than 8 bits a channel: 0,65535, or --range=-1,1"""

    def __post_init__(self) -> None:
        """Check ``range``, and convert it to a tuple, because from JSON it is a list."""
        super().__post_init__()
        if self.range is None:
            return
        if len(self.range) != 2 or not self.range[0] < self.range[1]:
            raise UserError(f"range={','.join(map(str, self.range))}: give two numbers LOW,HIGH, the smaller first")
        object.__setattr__(self, "range", tuple(map(float, self.range)))

    @property
    def public(self) -> str:
        """``data`` with the last part of its path alone, to publish without the names of private folders."""
        kind, colon, place = self.data.partition(":")
        return f"{kind}{colon}{Path(place).name}"


@dataclass(frozen=True)
class Geometry(Checked):
    """Glimpses: their size, their locations and their number."""

    glimpse_size: Pixels = 8
    """side length of a glimpse in pixels"""
    stride: Pixels = 4
    """step between neighbouring locations, in pixels"""
    glimpses: Count = 5
    """glimpses taken of each image (T)"""
    scales: Scales = 1
    """concentric squares of a glimpse, each twice as wide as the last (Mnih et al. 2014)"""
    overview: Natural = 0
    """side length in pixels of a reduced view of the whole image that a network sees first; 0: none"""
    zoom: Scales = 1
    """levels that a network chooses among for each glimpse, each twice as wide as the last and reduced to the same
    size; not for designed sequences"""


@dataclass(frozen=True)
class Together(Checked):
    """The processes that train one network together, by Lightning Fabric."""

    devices: Count = 1
    """devices of this machine that train together, a process each; processors count as devices"""
    nodes: Count = 1
    """machines that train together, with `devices` each; start the command on each by torchrun or srun"""
    precision: Precision = "32-true"
    """numbers that losses are computed in. bf16-mixed: bfloat16 where that loses nothing, which needs less memory"""


@dataclass(frozen=True)
class Machine(Checked):
    """Where a run is written and computed."""

    out: Path
    """run directory to write"""
    resume: bool = False
    """continue the run in this directory from where it was stopped; options not given are those stored there"""
    device: str = "auto"
    """where to compute: auto, cpu, cuda or mps"""


@dataclass(frozen=True)
class PosteriorNetwork(Checked):
    """The attentional variational posterior g(θ | y_1:t, l_1:t)."""

    posterior: Literal["lookahead", "avp-cnn"] = "lookahead"
    """lookahead: a recurrent network, with one batched pass for a whole map; avp-cnn: a CNN on the masked image"""
    hidden: Units = 128
    """hidden units of the lookahead posterior"""
    backbone: str = "small-resnet"
    """CNN of the avp-cnn: small-resnet, or any timm model (the paper's is densenet121)"""
    pretrained: bool = False
    """start from the published weights of the backbone"""


@dataclass(frozen=True)
class RetrievalOptions(Checked):
    """Completion of partly seen images from the bank."""

    completions: Count = 64
    """completions of each image (N)"""
    proposals: Count = 256
    """images of the bank proposed by PCA and compared in all pixels"""
    rank: Count = 16
    """principal directions in which glimpses are compared for proposals"""
    shift: Shift = 2
    """pixels by which a completion may be shifted up, down, left or right"""
    effective: Share = 0.25
    """effective sample size that σ² is tempered to, as a share of the completions"""


@dataclass(frozen=True)
class RaceOptions(Checked):
    """The race between locations, which needs fewer evaluations of the posterior (`nogs.design.race`)."""

    coarse: Count = 4
    """step of the first, coarse grid, in locations; it is halved around the best until neighbours are tried"""
    peaks: Count = 6
    """best locations that are refined at each halving"""
    pilot: Share = 0.125
    """share of the completions that these locations are first evaluated on"""
    confidence: Share = 0.95
    """probability that a race does not eliminate its best location, over all its comparisons"""
    tolerance: Share = 0.003
    """nats by which an eliminated location may be better than the chosen one"""


@dataclass(frozen=True)
class AttentionNetwork(Checked):
    """The network that is trained."""

    hidden: Units = 64
    """hidden units of the state"""
    core: Core = "gru"
    """how glimpses become a state. gru: one after the other; attention: all of them at once, by two layers of
    self-attention, for tasks in which one glimpse says what another one means"""
    initial: Initial = "torch"
    """initial weights of the glimpse embedding. torch: its defaults; he: those of He et al. 2015, which are larger"""


@dataclass(frozen=True)
class GainOptions(Checked):
    """How the gains of glimpses are learned, by methods that regress them (`nogs.attention.gain`)."""

    gain_candidates: Count = 4
    """locations anywhere in each image whose realised gain `gain` and gain-nogs learn from (K)"""
    detail: Share = 0.0
    """share of these locations drawn where the overview has detail, in place of anywhere"""
    exploration: Share = 0.1
    """probability with which gain, gain-nogs and dime draw a training location instead of taking the one of greatest
    predicted gain; that of dime falls by a factor of 5 after each fifth of the training"""
    handover: Share = 0.5
    """share of the iterations in which gain-nogs hands over from designed cells to its map"""
    pretraining: Share | None = None
    """share of the iterations in which dime, gdfs and `gain` first train the classifier at random locations; by default
    0.2 for dime and gdfs, and 0 for `gain`"""
    pretraining_glimpses: Count | None = None
    """most random locations of an image in these iterations, all different; half of the batches have as many, the
    others fewer. By default `glimpses` locations that may repeat"""
    foresight: Share = 0.0
    """weight of the best gain after a glimpse in what `gain` predicts of it; 0: the gain of one glimpse alone. Above 0
    the gains also train the recurrent core, and explored locations are drawn uniformly"""


@dataclass(frozen=True)
class PatchOptions(Checked):
    """Options of the networks that read patches of large images."""

    patch_size: Pixels = 50
    """side length of a patch in pixels"""
    overview: Pixels = 180
    """side length in pixels of the reduced view that attention-sampling draws patches from"""
    patches: Count = 10
    """patches that attention-sampling draws of each image"""
    replacement: bool = False
    """draw the patches of attention-sampling with replacement"""
    entropy_weight: Weight = 1e-4
    """weight of the entropy of the attention, in nats, in the objective of attention-sampling"""
    memory: Count = 100
    """patches that patch-selection keeps of each image"""


@dataclass(frozen=True)
class Optimisation(Checked):
    """Options of the training loop."""

    iterations: Count = 8000
    """most iterations"""
    batch_size: Batch = 64
    """images in each iteration"""
    learning_rate: Rate = 1e-3
    """step size of Adam"""
    validate_every: Count = 100
    """iterations between validations"""
    patience: Natural = 3000
    """iterations without a better validation loss, greedy or sampled, after which training stops; 0: never"""
    seed: Seed = 0
    """seed of the weights, the batches and the glimpses that are drawn"""
    schedule: Schedule = "constant"
    """course of the step size: constant, or along a cosine to zero at the last iteration"""
    average: Decay = 0.0
    """decay of a moving average of the weights, which is validated and saved in place of them; 0: no average"""
