"""The configuration of the whole pipeline, and that of `nogs demo`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nogs.config.bounds import Batch, Checked, Count, Decay, Natural, Processes, Rate, Share, Shift
from nogs.config.groups import (
    AttentionNetwork,
    GainOptions,
    Geometry,
    Machine,
    Names,
    Schedule,
    Seeds,
    Sizes,
    Source,
    Strategy,
    Supervision,
)


@dataclass(frozen=True)
class Run(Checked):
    """Run the whole pipeline on a set of images: posterior, bank and search where needed, training, report."""

    machine: Machine
    source: Source = field(default_factory=Source)
    geometry: Geometry = field(default_factory=Geometry)
    annotate: Count = 600
    """images that sequences are designed for: unlabelled ones if there are any, else training images"""
    methods: Names = ("ram", "ps-nogs")
    """any of ram, ps-nogs, ws-ram, ps-ram, ps-hgs, act, gain, gain-nogs, dime, gdfs, and the controls random, centre
    and path"""
    sequences: Path | None = None
    """run directory of sequences import, for ps-hgs"""
    posterior: Path | None = None
    """run directory of fit-posterior to use in place of a new one; a posterior of all labels is used for any task"""
    bank: Path | None = None
    """run directory of build-bank to use in place of a new one, for any task"""
    seeds: Seeds = (0, 1, 2)
    """seeds of the trainings, each with every method"""
    iterations: Count = 8000
    """most iterations of each training"""
    reference_iterations: Count | None = None
    """most iterations of each training of ram, to give it more than the others; by default as many"""
    batch_size: Batch = 64
    """images in each iteration of a training"""
    learning_rate: Rate = 1e-3
    """step size of Adam in each training"""
    schedule: Schedule = "constant"
    """course of the step size in each training: constant, or along a cosine to zero at the last iteration"""
    average: Decay = 0.0
    """decay of a moving average of the weights in each training, used in place of them; 0: no average.
    The posterior and the CNNs are trained without one"""
    jitter: Shift = 0
    """most pixels by which a glimpse is displaced at random in each training of a method, in each direction; 0: none"""
    validate_every: Count = 100
    """iterations between validations"""
    patience: Natural = 3000
    """iterations without a better validation loss, greedy or sampled, after which a training stops; 0: never"""
    posterior_iterations: Count = 3000
    """most iterations of the posterior's fit"""
    mirror: bool = True
    """also complete with mirror images; not for digits or text"""
    pooling: Share = 0.75
    """weight of the mean gain map of all images in each choice. 0: each image has its own path, as in the paper;
    1: all have one"""
    strategy: Strategy = "race"
    """race: coarse to fine, with early elimination of locations; exhaustive: each location on each completion"""
    supervision: Supervision = "location"
    """location: sequences train the location head alone; published: the classifier too; dagger: both, on states that
    the network's own choices lead to"""
    cnns: bool = False
    """also train small whole-image CNNs of many costs"""
    cnn_sizes: Sizes = ()
    """also train one small CNN on whole images reduced to each of these side lengths in pixels; `cnns` trains many"""
    stopping: bool = True
    """also fit stopping heads to the networks of ps-nogs"""
    engine: str = "local"
    """where maps of the search and trainings are computed. local: by processes of this machine; ray: by workers on this
    machine; ray:ADDRESS: on a cluster, all machines of which must see the run directory"""
    jobs: Processes = 0
    """trainings at the same time, and workers of ray; 0: one for each core, or one on an accelerator (ray: on each)"""
    network: AttentionNetwork = field(default_factory=AttentionNetwork)
    gains: GainOptions = field(default_factory=GainOptions)


DEMO = Run(
    machine=Machine(out=Path("nogs-demo")),
    source=Source(data="digits", image_size=192),
    geometry=Geometry(glimpse_size=32, stride=8, glimpses=3, overview=24),
    methods=("ram", "gain"),
    seeds=(0, 1),
    iterations=450,
    reference_iterations=1800,
    learning_rate=2e-3,
    schedule="cosine",
    patience=0,
)
"""The defaults of `nogs demo`: a digit anywhere among fragments, found on an overview.

RAM has the same network and four times the iterations.
"""
