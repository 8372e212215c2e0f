"""The configuration of every stage: one frozen dataclass, one subcommand, one kind of run directory.

Imports no torch, so that ``nogs --help`` answers at once. Sizes are in pixels, losses in nats.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.constructors import PrimitiveConstructorSpec


def _comma_separated(of: type) -> PrimitiveConstructorSpec[tuple[object, ...]]:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{of.__name__.upper()},...",
        instance_from_str=lambda args: tuple(of(part.strip()) for part in args[0].split(",") if part.strip()),
        is_instance=lambda value: isinstance(value, tuple) and all(isinstance(v, of) for v in value),
        str_from_instance=lambda value: [",".join(str(v) for v in value)],
    )


Supervision = Literal["location", "published"]
Names = Annotated[tuple[str, ...], _comma_separated(str)]
Integers = Annotated[tuple[int, ...], _comma_separated(int)]


@dataclass(frozen=True)
class Source:
    """Which images, and which label of them."""

    data: str = "digits"
    """digits | folder:PATH | csv:PATH | npz:PATH | celeba:PATH"""
    task: str | None = None
    """one label of a multi-label set, by name"""
    image_size: int | None = None
    """side length in pixels that images are resized and cropped to; by default the size of the data"""
    split_seed: int = 0
    """seed of the train/val/test split, where the data has none"""
    skip_bad: bool = False
    """list files that cannot be read and leave them out, instead of stopping"""


@dataclass(frozen=True)
class Geometry:
    """What a glimpse is, where it can be taken, and how many."""

    glimpse_size: int = 8
    """side length of a glimpse in pixels"""
    stride: int = 4
    """pixels between neighbouring locations"""
    glimpses: int = 5
    """glimpses an image (T)"""
    scales: int = 1
    """concentric squares in a glimpse, each twice as wide (Mnih et al. 2014)"""


@dataclass(frozen=True)
class Machine:
    """Where to write, and on what to compute."""

    out: Path
    """run directory"""
    resume: bool = False
    """go on with the run in --out from where it was stopped"""
    device: str = "auto"
    """auto | cpu | cuda | mps"""


@dataclass(frozen=True)
class PosteriorNetwork:
    """The attentional variational posterior g(θ | y_1:t, l_1:t)."""

    posterior: Literal["lookahead", "avp-cnn"] = "lookahead"
    """lookahead: recurrent, a whole map in one batched pass; avp-cnn: a CNN on the masked image"""
    hidden: int = 128
    """hidden units of the lookahead posterior"""
    backbone: str = "small-resnet"
    """CNN of the avp-cnn: small-resnet, or any timm model (the paper's is densenet121)"""
    pretrained: bool = False
    """start the backbone from its published weights"""


@dataclass(frozen=True)
class RetrievalOptions:
    """How what was not seen is completed from the bank."""

    completions: int = 64
    """completions an image (N)"""
    proposals: int = 256
    """images proposed by PCA for the exact stage"""
    shift: int = 2
    """completions may be shifted by so many pixels, up, down, left and right"""
    effective: float = 0.25
    """σ² is tempered until the effective sample size is this share of --completions"""


@dataclass(frozen=True)
class Optimisation:
    """One training loop's numbers."""

    iterations: int = 8000
    batch_size: int = 64
    learning_rate: float = 1e-3
    validate_every: int = 100
    """iterations between validations"""
    patience: int = 3000
    """stop after so many iterations without a better validation loss"""
    seed: int = 0


@dataclass(frozen=True)
class FitPosterior:
    """Fit the posterior over the label given any set of glimpses (`nogs fit-posterior`)."""

    machine: Machine
    source: Source = field(default_factory=Source)
    geometry: Geometry = field(default_factory=Geometry)
    network: PosteriorNetwork = field(default_factory=PosteriorNetwork)
    optimisation: Optimisation = field(default_factory=Optimisation)
    annotate: int = 600
    """training images kept out of this stage, because they are to get sequences"""
    focus: float = 0.5
    """share of training locations drawn where a glimpse was found to help (lookahead posterior)"""


@dataclass(frozen=True)
class BuildBank:
    """Index training images for retrieval: PCA of them and of their mirror images (`nogs build-bank`)."""

    machine: Machine
    source: Source = field(default_factory=Source)
    components: int = 256
    """PCA components"""
    mirror: bool = True
    """also offer every image mirrored left to right (not for digits or text)"""
    seed: int = 0


@dataclass(frozen=True)
class Search:
    """Find near-optimal glimpse sequences (`nogs search`)."""

    machine: Machine
    posterior: Path
    """run directory of fit-posterior; also gives data, geometry and which images to annotate"""
    bank: Path
    """run directory of build-bank"""
    task: str | None = None
    """label to search for, where the posterior serves many"""
    criterion: Literal["epe", "eig"] = "eig"
    """epe: least expected posterior entropy; eig: greatest mixture information gain"""
    retrieval: RetrievalOptions = field(default_factory=RetrievalOptions)
    first: int = 1024
    """completions for the first glimpse, which all images share"""
    seed: int = 0


@dataclass(frozen=True)
class Train:
    """Train a hard attention network by one of the methods (`nogs train`)."""

    machine: Machine
    source: Source = field(default_factory=Source)
    geometry: Geometry = field(default_factory=Geometry)
    optimisation: Optimisation = field(default_factory=Optimisation)
    method: str = "ram"
    """ram | ps-nogs"""
    sequences: Path | None = None
    """run directory of search, for methods that learn from sequences"""
    supervision: Supervision = "location"
    """location: every image runs freely, sequences teach the location head alone, beside it;
    published: supervised images are part of the batch, teacher-forced, and teach the label too"""
    supervised_batch: int = 16
    """images with sequences in each step"""
    hidden: int = 64
    """hidden units of the recurrent core"""


@dataclass(frozen=True)
class Evaluate:
    """Record what each trained network sees and says of every test image, and sum it up (`nogs evaluate`)."""

    machine: Machine
    models: tuple[Path, ...]
    """run directories of train"""
    sequences: Path
    """run directory of search; it names the posterior and the bank"""
    examples: int = 6
    """test images that sequences are designed for, to be shown in the report"""


@dataclass(frozen=True)
class Report:
    """Draw report.html from the results of a run (`nogs report`); computes nothing new."""

    run: Path
    """directory of `nogs run` or `nogs demo`"""
    publishable: bool = False
    """draw maps over the mean image, where photographs may not be published"""


@dataclass(frozen=True)
class Run:
    """The whole pipeline on your images: posterior, bank, search, training, report (`nogs run`)."""

    machine: Machine
    source: Source = field(default_factory=Source)
    geometry: Geometry = field(default_factory=Geometry)
    annotate: int = 600
    """training images that get sequences"""
    methods: Names = ("ram", "ps-nogs")
    seeds: Integers = (0, 1, 2)
    iterations: int = 8000
    """iterations of each training at most"""
    batch_size: int = 64
    learning_rate: float = 1e-3
    validate_every: int = 100
    """iterations between validations"""
    patience: int = 3000
    """stop a training after so many iterations without a better validation loss"""
    posterior_iterations: int = 6000
    mirror: bool = True
    """complete with mirror images too (not for digits or text)"""
    supervision: Supervision = "location"
    """location: sequences teach the location head alone; published: the classifier too, teacher-forced"""
    jobs: int = 0
    """trainings side by side; 0 is one for each core (one in all on an accelerator)"""


@dataclass(frozen=True)
class Predict:
    """Classify images with a trained model (`nogs predict`)."""

    model: Annotated[Path, tyro.conf.Positional]
    """run directory of train"""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """image files; each is resized and cropped to the size that the model was trained on"""
    json: bool = False
    """print one JSON object an image: label, probs, glimpses, steps, macs"""
    device: str = "auto"
    """auto | cpu | cuda | mps"""


DEMO = Run(
    machine=Machine(out=Path("nogs-demo")),
    source=Source(data="digits"),
    geometry=Geometry(glimpse_size=6, stride=3, glimpses=4),
    seeds=(0, 1),
    iterations=2500,
    learning_rate=3e-3,
    posterior_iterations=4000,
    mirror=False,
)
"""What `nogs demo` runs, unless flags say otherwise."""
