"""The configuration of every stage: one frozen dataclass, one subcommand, one kind of run directory.

Imports no torch, so that ``nogs --help`` answers at once. What several share is in `nogs.config.groups`. Sizes are in
pixels, losses in nats; numbers are bounded by their types (`nogs.config.bounds`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nogs.config.bounds import (
    Batch,
    Checked,
    Count,
    Nats,
    Natural,
    Pixels,
    Processes,
    Rate,
    Seed,
    Share,
    Units,
    Width,
)
from nogs.config.groups import (
    Geometry,
    Machine,
    Names,
    Optimisation,
    Paths,
    PosteriorNetwork,
    RaceOptions,
    Rates,
    RetrievalOptions,
    Seeds,
    Sizes,
    Source,
    Strategy,
    Supervision,
    Widths,
)


@dataclass(frozen=True)
class FitPosterior(Checked):
    """Fit the posterior over the label given any set of glimpses."""

    machine: Machine
    source: Source = field(default_factory=Source)
    geometry: Geometry = field(default_factory=Geometry)
    network: PosteriorNetwork = field(default_factory=PosteriorNetwork)
    optimisation: Optimisation = field(default_factory=Optimisation)
    annotate: Count = 600
    """training images kept out of this stage, because they are to get sequences"""
    focus: Share = 0.8
    """share of training locations drawn where a glimpse was found to help (lookahead posterior)"""


@dataclass(frozen=True)
class BuildBank(Checked):
    """Index images for retrieval by PCA: the training images, or a bank of others."""

    machine: Machine
    source: Source = field(default_factory=Source)
    images: Path | None = None
    """folder of other images to complete with, in place of training images: any number, kept as compressed shards"""
    components: Count = 256
    """PCA components"""
    mirror: bool = True
    """also offer every image mirrored left to right (not for digits or text)"""
    seed: Seed = 0


@dataclass(frozen=True)
class Search(Checked):
    """Find near-optimal glimpse sequences."""

    machine: Machine
    posterior: Path
    """run directory of fit-posterior; also gives data, geometry and which images to annotate"""
    bank: Path
    """run directory of build-bank"""
    task: str | None = None
    """label to search for, where the posterior serves many"""
    criterion: Literal["epe", "eig"] = "eig"
    """epe: least expected posterior entropy; eig: greatest mixture information gain"""
    pooling: Share = 0.75
    """weight of the mean map of all images in each choice, from 0 (each image its own) to 1 (one path for all)"""
    strategy: Strategy = "race"
    """race: coarse to fine, and unpromising locations leave early; exhaustive: every location on every completion"""
    race: RaceOptions = field(default_factory=RaceOptions)
    regret: Natural = 0
    """images searched exhaustively beside, to tell what the race loses (regret.json)"""
    retrieval: RetrievalOptions = field(default_factory=RetrievalOptions)
    first: Count = 1024
    """completions for the first glimpse, which all images share"""
    seed: Seed = 0


@dataclass(frozen=True)
class Train(Checked):
    """Train a hard attention network by one of the methods."""

    machine: Machine
    source: Source = field(default_factory=Source)
    geometry: Geometry = field(default_factory=Geometry)
    optimisation: Optimisation = field(default_factory=Optimisation)
    method: str = "ram"
    """ram | ps-nogs | ws-ram | ps-ram | ps-hgs, or a control without a policy: random | centre | path"""
    sequences: Path | None = None
    """run directory of search, record or sequences import, for methods that learn from sequences"""
    supervision: Supervision = "location"
    """location: every image runs freely, sequences teach the location head alone, beside it;
    published: supervised images are part of the batch, teacher-forced, and teach the label too"""
    supervised_batch: Count = 16
    """images with sequences in each step"""
    wake_sleep_samples: Count = 4
    """sequences that ws-ram weighs for each image"""
    hidden: Units = 64
    """hidden units of the recurrent core"""


@dataclass(frozen=True)
class Record(Checked):
    """Record where a trained network looks, as sequences for others to learn from."""

    machine: Machine
    model: Path
    """run directory of train; also gives data and geometry"""
    annotate: Count = 600
    """training images that get sequences"""


@dataclass(frozen=True)
class FitStopping(Checked):
    """Fit heads that say when a trained network has looked enough."""

    machine: Machine
    model: Path
    """run directory of train; also gives data and geometry"""
    costs: Rates = (0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
    """costs of a glimpse that Adaptive Computation Time and stochastic stopping are trained for"""
    optimisation: Optimisation = field(
        default_factory=lambda: Optimisation(iterations=3000, batch_size=256, validate_every=50, patience=1000)
    )


@dataclass(frozen=True)
class ImportSequences(Checked):
    """Take glimpse sequences that were made elsewhere."""

    machine: Machine
    source: Source = field(default_factory=Source)
    geometry: Geometry = field(default_factory=Geometry)
    sequences: Path | None = None
    """CSV (image,task,step,row,col,eig_nats), a folder of NAME.txt (row, col a line), or the published .npz"""
    parts: Path | None = None
    """instead, where the parts of images are: CSV (image,part,row,col,visible), or part_locs.txt of cub"""
    parts_order: Names = ("beak", "eye", "forehead", "belly", "feet")
    """parts to look at, one after the other"""
    sequences_image_size: Pixels | None = None
    """side length in pixels of the images that the file speaks of; by default that of the data"""
    sequences_glimpse_size: Pixels | None = None
    """side length of a glimpse in the file; by default the same share of the image as --glimpse-size"""


@dataclass(frozen=True)
class ExportSequences(Checked):
    """Write glimpse sequences for others, as top-left pixels."""

    sequences: Path
    """run directory of search, record or sequences import"""
    out: Path
    """CSV file, or folder of text files"""
    format: Literal["csv", "text"] = "csv"
    """csv: image,task,step,row,col,eig_nats; text: a file an image, `row, col` a line"""


@dataclass(frozen=True)
class Evaluate(Checked):
    """Record what each trained network sees and says of every test image, and sum it up."""

    machine: Machine
    models: tuple[Path, ...]
    """run directories of train"""
    sequences: Path
    """run directory of search; it names the posterior and the bank"""
    examples: Natural = 6
    """test images that sequences are designed for, to be shown in the report"""
    stopping: tuple[Path, ...] = ()
    """run directories of fit-stopping, on seeds of one method: curves of accuracy over mean glimpses"""


@dataclass(frozen=True)
class Baselines(Checked):
    """Train small whole-image CNNs of many costs, and a large one as the upper bound."""

    machine: Machine
    source: Source = field(default_factory=Source)
    architectures: Names = ("shufflenet-v2", "mobilenet-v2")
    resolutions: Sizes = (12, 24, 48)
    """side lengths in pixels that images are averaged down to"""
    widths: Widths = (0.05, 0.25)
    """channels, as a share of the published ones"""
    learning_rates: Rates = (1e-3, 4e-3)
    """each is tried, and the best on validation images kept"""
    seeds: Seeds = (0,)
    iterations: Count = 1500
    """iterations of each training at most"""
    batch_size: Batch = 128
    validate_every: Count = 100
    """iterations between validations"""
    patience: Natural = 600
    """stop a training after so many iterations without a better validation loss; 0: never"""
    upper_bound: bool = True
    """also train the large network, which sees whole images at full size"""


@dataclass(frozen=True)
class FitCNN(Checked):
    """One whole-image CNN; a run directory within that of `nogs baselines`."""

    machine: Machine
    source: Source
    optimisation: Optimisation
    architecture: str
    resolution: Pixels
    width: Width


@dataclass(frozen=True)
class Report(Checked):
    """Draw report.html of one run, or poster.html of several; computes nothing new."""

    run: Path | None = None
    """directory of `nogs run` or `nogs demo`; its report is written there"""
    runs: Paths = ()
    """instead, several, a label each: their poster is written to --out"""
    out: Path | None = None
    """directory of the poster of --runs"""
    publishable: bool = False
    """draw maps over the mean image, where photographs may not be published"""
    figures: Names = ()
    """also write each figure to figures/ as png, pdf or svg (or several: png,pdf)"""


@dataclass(frozen=True)
class Run(Checked):
    """The whole pipeline on your images: posterior, bank, search, training, report."""

    machine: Machine
    source: Source = field(default_factory=Source)
    geometry: Geometry = field(default_factory=Geometry)
    annotate: Count = 600
    """training images that get sequences"""
    methods: Names = ("ram", "ps-nogs")
    """any of ram, ps-nogs, ws-ram, ps-ram, ps-hgs, and the controls random, centre and path"""
    sequences: Path | None = None
    """run directory of sequences for ps-hgs"""
    posterior: Path | None = None
    """run directory of fit-posterior to use instead of fitting one; one of many labels serves each --task"""
    bank: Path | None = None
    """run directory of build-bank to use instead of building one; it serves each --task"""
    seeds: Seeds = (0, 1, 2)
    iterations: Count = 8000
    """iterations of each training at most"""
    batch_size: Batch = 64
    learning_rate: Rate = 1e-3
    validate_every: Count = 100
    """iterations between validations"""
    patience: Natural = 3000
    """stop a training after so many iterations without a better validation loss, greedy or sampled; 0: never"""
    posterior_iterations: Count = 3000
    mirror: bool = True
    """complete with mirror images too (not for digits or text)"""
    pooling: Share = 0.75
    """weight of the mean map of all images in each choice of a search; 0 is the paper's, 1 one path for all"""
    strategy: Strategy = "race"
    """how the search tries locations: race, or exhaustive"""
    supervision: Supervision = "location"
    """location: sequences teach the location head alone; published: the classifier too, teacher-forced"""
    cnns: bool = False
    """also train small whole-image CNNs of many costs, to compare with"""
    jobs: Processes = 0
    """trainings side by side; 0 is one for each core (one in all on an accelerator)"""


@dataclass(frozen=True)
class Predict(Checked):
    """Classify images with a trained model."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """run directory of train"""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
    """image files; each is resized and cropped to the size that the model was trained on"""
    json: bool = False
    """print one JSON object an image: label, probs, glimpses, steps, macs"""
    stopping: Path | None = None
    """run directory of fit-stopping: each image is looked at until --threshold"""
    threshold: Nats | None = None
    """stop where the next glimpse is expected to bring less, in nats; results.json of --stopping lists some"""
    device: str = "auto"
    """auto | cpu | cuda | mps"""


DEMO = Run(
    machine=Machine(out=Path("nogs-demo")),
    source=Source(data="digits"),
    geometry=Geometry(glimpse_size=4, stride=2, glimpses=12),
    annotate=120,
    seeds=(0, 1),
    iterations=2000,
    learning_rate=2e-3,
    posterior_iterations=2500,
    mirror=False,
    pooling=1.0,
)
"""What `nogs demo` runs, unless flags say otherwise."""
