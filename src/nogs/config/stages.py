"""The configuration of each stage: one frozen dataclass, one subcommand, one kind of run directory.

The string after a field is its help, on the command line and in Python. Options that several stages share are in
`nogs.config.groups`, those of the whole pipeline in `nogs.config.pipeline`. Sizes are in pixels, losses in nats.
Imports no torch, so that ``nogs --help`` is fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

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
    Shift,
    Weight,
    Width,
)
from nogs.config.groups import (
    AttentionNetwork,
    GainOptions,
    Geometry,
    Images,
    Machine,
    Model,
    Names,
    Optimisation,
    PatchOptions,
    Paths,
    PosteriorNetwork,
    RaceOptions,
    Rates,
    RetrievalOptions,
    Schedule,
    Seeds,
    Sizes,
    Source,
    Strategy,
    Supervision,
    Together,
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
    """training images left out of the fit, because sequences are designed for them later; if there are unlabelled
    images, as many of these, and none is left out"""
    focus: Share = 0.8
    """share of training locations drawn where glimpses reduce the validation loss most (lookahead posterior)"""


@dataclass(frozen=True)
class BuildBank(Checked):
    """Index a bank of images by PCA, to complete partly seen images from."""

    machine: Machine
    source: Source = field(default_factory=Source)
    images: Path | None = None
    """folder of images to index in place of training and unlabelled images; any number, kept as compressed shards"""
    components: Count = 256
    """principal components of the index"""
    mirror: bool = True
    """also index each image mirrored left to right; not for digits or text"""
    seed: Seed = 0
    """seed of the images that the principal components are fitted to"""


@dataclass(frozen=True)
class Search(Checked):
    """Search for near-optimal glimpse sequences of training images."""

    machine: Machine
    posterior: Path
    """run directory of fit-posterior; data, geometry and the images to annotate are those of this run"""
    bank: Path
    """run directory of build-bank"""
    task: str | None = None
    """label to design for, if the posterior was fitted to several"""
    criterion: Literal["epe", "eig"] = "eig"
    """how locations are chosen. eig: greatest expected information gain; epe: least expected posterior entropy"""
    pooling: Share = 0.75
    """weight of the mean gain map of all images in each choice. 0: each image has its own path; 1: all have one"""
    strategy: Strategy = "race"
    """race: coarse to fine, with early elimination of locations; exhaustive: each location on each completion"""
    race: RaceOptions = field(default_factory=RaceOptions)
    regret: Natural = 0
    """images that are also searched exhaustively, to measure the loss by the race (regret.json)"""
    retrieval: RetrievalOptions = field(default_factory=RetrievalOptions)
    first: Count = 1024
    """completions for the choice of the first glimpse, which all images share"""
    seed: Seed = 0
    """seed of the completions that are drawn"""
    engine: str = "local"
    """where maps are computed. local: in this process; ray: by workers on this machine; ray:ADDRESS: on a cluster"""
    jobs: Processes = 0
    """workers of ray; 0: one for each CPU"""


@dataclass(frozen=True)
class Train(Checked):
    """Train a hard attention network by one method."""

    machine: Machine
    source: Source = field(default_factory=Source)
    geometry: Geometry = field(default_factory=Geometry)
    optimisation: Optimisation = field(default_factory=Optimisation)
    method: str = "ram"
    """ram | gain | gain-nogs | ps-nogs | ws-ram | ps-ram | ps-hgs | act | dime | gdfs, or a control without a policy:
    random | centre | path"""
    sequences: Path | None = None
    """run directory of search, record or sequences import, for methods that learn from sequences"""
    supervision: Supervision = "location"
    """location: sequences train the location head alone, in addition to the batch;
    published: images with sequences are part of the batch, follow them, and train the classifier too;
    dagger: as published, but they follow the network's own choices half of the time, and are taught the first given
    location that no glimpse has shown yet"""
    supervised_batch: Count = 16
    """images with sequences in each iteration"""
    entropy_bonus: Weight | None = None
    """weight of the policy's entropy, in nats, in the objective of the policy; by default 0.003 for ws-ram, else 0"""
    wake_sleep_samples: Count = 4
    """sequences that ws-ram draws for each image and weights by their likelihood"""
    wake_sleep_exploration: Share = 0.0
    """probability with which ws-ram draws a training location uniformly, not from its proposal"""
    halting_cost: Rate = 0.01
    """cost of a glimpse, in nats, that act is trained with"""
    jitter: Shift = 0
    """most pixels by which a glimpse is displaced at random in training, in each direction; 0: none"""
    start: Path | None = None
    """run directory of train whose weights the network starts from, those that have the same shape"""
    network: AttentionNetwork = field(default_factory=AttentionNetwork)
    gains: GainOptions = field(default_factory=GainOptions)
    together: Together = field(default_factory=Together)


@dataclass(frozen=True)
class Record(Checked):
    """Record the glimpses of a trained network as sequences that other networks learn from."""

    machine: Machine
    model: Path
    """run directory of train; data and geometry are those of this run"""
    annotate: Count = 600
    """training images that get sequences"""


@dataclass(frozen=True)
class FitStopping(Checked):
    """Fit heads that predict when a trained network can stop looking."""

    machine: Machine
    model: Path
    """run directory of train; data and geometry are those of this run"""
    costs: Rates = (0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
    """costs of a glimpse, in nats, that Adaptive Computation Time and stochastic stopping are each trained with"""
    optimisation: Optimisation = field(
        default_factory=lambda: Optimisation(iterations=3000, batch_size=256, validate_every=50, patience=1000)
    )


@dataclass(frozen=True)
class ImportSequences(Checked):
    """Import glimpse sequences from files, or from annotated parts of the images."""

    machine: Machine
    source: Source = field(default_factory=Source)
    geometry: Geometry = field(default_factory=Geometry)
    sequences: Path | None = None
    """CSV (image,task,step,row,col,eig_nats), a folder of NAME.txt (row, col a line), or the published .npz"""
    parts: Path | None = None
    """in place of sequences, the parts of images: CSV (image,part,row,col,visible), or part_locs.txt of cub"""
    parts_order: Names = ("beak", "eye", "forehead", "belly", "feet")
    """parts in the order of the glimpses"""
    sequences_image_size: Pixels | None = None
    """side length in pixels of the images in the file; by default that of the data"""
    sequences_glimpse_size: Pixels | None = None
    """side length in pixels of the glimpses in the file; by default the same share of the image as here"""


@dataclass(frozen=True)
class ExportSequences(Checked):
    """Export glimpse sequences to files, as (row, column) of top-left pixels."""

    sequences: Path
    """run directory of search, record or sequences import"""
    out: Path
    """CSV file to write, or folder of text files or of a data set"""
    format: Literal["csv", "text", "hub"] = "csv"
    """csv: image,task,step,row,col,eig_nats; text: one file an image, with one row,col a line; hub: a folder with the
    CSV and a card, a data set of the Hugging Face hub"""


@dataclass(frozen=True)
class Evaluate(Checked):
    """Record glimpses and predictions of trained networks on the test images, and score them."""

    machine: Machine
    models: tuple[Path, ...]
    """run directories of train"""
    sequences: Path | None = None
    """run directory of search, to score it with its posterior and bank, and to show examples; none: networks alone"""
    examples: Count = 6
    """test images that sequences are designed for, as examples in the report; one or more"""
    stopping: tuple[Path, ...] = ()
    """run directories of fit-stopping on seeds of one method, for curves of accuracy over mean glimpses"""
    halting: tuple[Path, ...] = ()
    """run directories of train with method act, of several costs for each seed, for a further curve beside these"""


@dataclass(frozen=True)
class Baselines(Checked):
    """Train networks to compare with: whole-image CNNs of many costs, or networks that read patches of large images."""

    machine: Machine
    source: Source = field(default_factory=Source)
    architectures: Names = ("shufflenet-v2", "mobilenet-v2")
    """CNNs: shufflenet-v2, mobilenet-v2; networks that read patches: attention-sampling,
    patch-selection, multiple-instances"""
    resolutions: Sizes = (12, 24, 48)
    """side lengths in pixels that images are reduced to for CNNs"""
    widths: Widths = (0.05, 0.1, 0.15, 0.25, 0.5)
    """numbers of channels of CNNs, as a share of the published ones"""
    learning_rates: Rates = (1e-3, 4e-3)
    """learning rates to try; the best on validation images is kept"""
    seeds: Seeds = (0,)
    """seeds of the trainings, each with every network"""
    iterations: Count = 4000
    """most iterations of each training; by default as many images in all as in `nogs train`"""
    batch_size: Batch = 128
    """images in each iteration"""
    validate_every: Count = 100
    """iterations between validations"""
    patience: Natural = 1500
    """iterations without a better validation loss after which a training stops; 0: never"""
    schedule: Schedule = "constant"
    """course of the step size: constant, or along a cosine to zero at the last iteration"""
    upper_bound: bool = True
    """also train a large CNN, on images of full size"""
    patches: PatchOptions = field(default_factory=PatchOptions)


@dataclass(frozen=True)
class FitBaseline(Checked):
    """Train one network to compare with, in a run directory inside that of `nogs baselines`."""

    machine: Machine
    source: Source
    optimisation: Optimisation
    architecture: str
    """shufflenet-v2, mobilenet-v2, attention-sampling, patch-selection, multiple-instances, or small-resnet for the
    upper bound"""
    resolution: Pixels
    """side length in pixels of the images, or that they are reduced to for a CNN"""
    width: Width
    """number of channels of a CNN, as a share of the published one"""
    patches: PatchOptions
    """options of the networks that read patches"""


@dataclass(frozen=True)
class Report(Checked):
    """Draw report.html of one run, or poster.html of several."""

    run: Path | None = None
    """directory of `nogs run` or `nogs demo`, where its report is written"""
    runs: Paths = ()
    """in place of run, several directories, one for each label, to draw a poster of"""
    titles: Names = ()
    """titles of runs on the poster, in their order, in place of their tasks"""
    out: Path | None = None
    """directory that the poster is written to"""
    publishable: bool = False
    """draw maps over the mean image in place of photographs, which may not be published"""
    figures: Names = ()
    """formats in which each figure is also written to figures/: png, pdf, svg"""


@dataclass(frozen=True)
class Export(Checked):
    """Export a trained model to ONNX, with a program that runs it without torch."""

    model: Model
    """run directory of train, folder with model.safetensors, or owner/name on the Hugging Face hub"""
    out: Path
    """new folder to write: step.onnx, begin.onnx if the network sees an overview, model.json and nogs_onnx.py"""
    stopping: Path | None = None
    """run directory of fit-stopping, to stop by a threshold; networks of `gain` and dime need none"""
    threshold: Nats | None = None
    """stop when the next glimpse is expected to gain less than this, in nats; the user may choose another"""
    int8: bool = False
    """also write graphs of 8-bit integers, and measure both on the test images of the run directory"""


@dataclass(frozen=True)
class Predict(Checked):
    """Classify images with a trained model."""

    model: Model
    """run directory of train, folder of a saved model or of `nogs export`, or owner/name on the Hugging Face hub"""
    images: Images
    """image files, folders, patterns such as '*.jpg', or - for a list of files on standard input, one a line; each
    image is resized as those that the model was trained on"""
    json: bool = False
    """print one JSON object for each image: file, label, probs, glimpses, sides, steps, macs"""
    save_overlays: Path | None = None
    """folder to write each image to, as PNG with its glimpses drawn on it"""
    stopping: Path | None = None
    """run directory of fit-stopping, to stop by a threshold; networks of gain, gain-nogs and dime need none"""
    threshold: Nats | None = None
    """stop when the next glimpse is expected to gain less than this, in nats"""
    device: str = "auto"
    """where to compute: auto, cpu, cuda or mps"""


@dataclass(frozen=True)
class Slides(Checked):
    """Write synthetic slides: pyramidal TIFFs of tissue, some with a small lesion, and the table of their labels."""

    machine: Machine
    count: Count = 100
    """slides: a third without a lesion, and a third with each of two kinds"""
    side: Pixels = 20_000
    """side length of a slide in pixels"""
    lesion_share: Rate = 1e-5
    """share of a slide's area that a lesion takes"""
    seed: Seed = 0
    """seed of tissue, lesions and their places"""
