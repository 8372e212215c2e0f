"""Specs of trained networks: a frozen dataclass of checked arguments for each kind, which builds the network.

A spec is the metadata of the network's safetensors file (`nogs.weights`). To add a network, add a spec.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Generic, TypeVar

from torch import nn

from nogs.attention.methods import METHODS
from nogs.attention.network import HardAttention
from nogs.config.bounds import Bound, Checked, Count, Natural, Pixels, Rate, Units, Weight, Width
from nogs.config.groups import Core, Fit, Geometry, PosteriorNetwork, Range
from nogs.data import ImageSet
from nogs.errors import UserError
from nogs.glimpses.grid import Grid
from nogs.posterior.lookahead import LookaheadPosterior
from nogs.posterior.masked_cnn import AVPCNN
from nogs.rivals.attention_sampling import LEAST_PATCH_PX, AttentionSampling
from nogs.rivals.cnn import ARCHITECTURES, UPPER_BOUND, WholeImageCNN
from nogs.rivals.multiple_instances import MultipleInstances
from nogs.rivals.patch_selection import PatchSelection
from nogs.runs.identity import shown
from nogs.stopping.halting import HaltingUnit
from nogs.stopping.heads import StoppingHeads

Network = TypeVar("Network", bound=nn.Module, covariant=True)
Channels = Annotated[int, Bound(1, 4)]


class NetworkSpec(Checked, Generic[Network]):
    """The arguments of a network. ``kind`` names it in the metadata of a file."""

    kind: ClassVar[str]

    @abstractmethod
    def build(self) -> Network:
        """Return the network, untrained, on the CPU or the device of an enclosing ``with torch.device``."""


class ClassifierSpec(NetworkSpec[Network]):
    """The arguments of a network that tells ``classes`` apart, each of which has a name of its own."""

    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise UserError(f"classes={shown(self.classes)}: give one or more, each once")


@dataclass(frozen=True)
class HardAttentionSpec(ClassifierSpec[HardAttention]):
    """A hard attention network and how it is used."""

    kind = "attention"
    grid: Grid
    channels: Channels
    classes: tuple[str, ...]
    hidden: Units
    glimpses: Count
    """glimpses taken of each image (T)"""
    method: str
    path: tuple[Natural, ...] | None = None
    """the T cells of a method that looks along one path; None for other methods"""
    fit: Fit = "crop"
    """how images become squares, in training and in prediction"""
    range: Range | None = None
    """values that become 0 and 255 in images of more than 8 bits a channel"""
    overview_px: Natural = 0
    """side length of the reduced view that the network sees first; 0: none"""
    core: Core = "gru"
    """how glimpses become a state"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_overview(self.overview_px, self.grid)
        check_glimpses(self.glimpses, self.grid)
        if self.method not in METHODS:
            raise UserError(f"method={shown(self.method)} does not exist: choose among {', '.join(METHODS)}")
        T, L, along_path = self.glimpses, len(self.grid), METHODS[self.method].looks == "path"
        if along_path != (self.path is not None):
            raise UserError(
                f"path={shown(self.path)} with method={self.method}: give a path to methods that look along one"
            )
        if self.path is not None and (len(self.path) != T or not all(0 <= cell < L for cell in self.path)):
            raise UserError(f"path={shown(self.path)} is not {T} cells from 0 to {L - 1}")

    def build(self) -> HardAttention:
        return HardAttention(
            self.grid,
            channels=self.channels,
            classes=len(self.classes),
            hidden=self.hidden,
            overview_px=self.overview_px,
            core=self.core,
        )


@dataclass(frozen=True)
class PosteriorSpec(ClassifierSpec[LookaheadPosterior | AVPCNN]):
    """A posterior over one label of several classes, or over several labels."""

    kind = "posterior"
    grid: Grid
    channels: Channels
    classes: tuple[str, ...]
    """names of the classes, or of the labels if ``multilabel``"""
    multilabel: bool
    network: PosteriorNetwork

    def build(self, *, pretrained: bool = False) -> LookaheadPosterior | AVPCNN:
        """Return the posterior, with the published weights of its backbone if ``pretrained``."""
        if self.network.posterior == "lookahead":
            return LookaheadPosterior(
                self.grid,
                channels=self.channels,
                classes=len(self.classes),
                multilabel=self.multilabel,
                hidden=self.network.hidden,
            )
        return AVPCNN(
            self.grid,
            channels=self.channels,
            classes=len(self.classes),
            multilabel=self.multilabel,
            backbone=self.network.backbone,
            pretrained=pretrained,
        )


@dataclass(frozen=True)
class HaltingSpec(NetworkSpec[HaltingUnit]):
    """The halting unit of a network that was trained jointly with it, in the same run directory."""

    kind = "halting"
    hidden: Units
    cost: Rate
    """cost of a glimpse, in nats, that the two were trained with"""

    def build(self) -> HaltingUnit:
        return HaltingUnit(self.hidden)


@dataclass(frozen=True)
class StoppingSpec(NetworkSpec[StoppingHeads]):
    """Stopping heads of one trained network."""

    kind = "stopping"
    glimpses: Annotated[int, Bound(2, 2**14)]
    costs: tuple[Rate, ...]
    """costs of a glimpse that the halting heads were trained for"""
    network: str
    """SHA-256 of the file of the network that the heads were fitted to"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.costs:
            raise UserError("costs=(): give one or more")

    def build(self) -> StoppingHeads:
        return StoppingHeads(glimpses=self.glimpses, costs=len(self.costs))


@dataclass(frozen=True)
class CNNSpec(ClassifierSpec[WholeImageCNN]):
    """A whole-image CNN."""

    kind = "cnn"
    architecture: str
    resolution_px: Pixels
    width: Width
    channels: Channels
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.architecture not in (*ARCHITECTURES, UPPER_BOUND):
            raise UserError(f"architecture={shown(self.architecture)}: choose among {', '.join(ARCHITECTURES)}")

    def build(self) -> WholeImageCNN:
        return WholeImageCNN(
            self.architecture,
            resolution_px=self.resolution_px,
            width=self.width,
            channels=self.channels,
            classes=len(self.classes),
        )


@dataclass(frozen=True)
class AttentionSamplingSpec(ClassifierSpec[AttentionSampling]):
    """Attention sampling; the patches are the glimpses of ``grid``."""

    kind = "attention-sampling"
    grid: Grid
    channels: Channels
    classes: tuple[str, ...]
    overview_px: Pixels
    """side length of the reduced view that patches are chosen from"""
    patches: Count
    """patches drawn of each image"""
    replacement: bool
    """whether they are drawn with replacement"""
    entropy_weight: Weight
    """weight of the attention's entropy in the loss"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_overview(self.overview_px, self.grid)
        if self.grid.glimpse_px < LEAST_PATCH_PX:
            raise UserError(f"patch_size={self.grid.glimpse_px}: attention sampling needs at least {LEAST_PATCH_PX}")
        if self.patches > self.overview_px**2:
            raise UserError(
                f"patches={self.patches} exceeds the {self.overview_px**2} pixels of an overview of {self.overview_px}"
            )

    def build(self) -> AttentionSampling:
        return AttentionSampling(
            self.grid,
            overview_px=self.overview_px,
            patches=self.patches,
            replacement=self.replacement,
            entropy_weight=self.entropy_weight,
            channels=self.channels,
            classes=len(self.classes),
        )


@dataclass(frozen=True)
class PatchSelectionSpec(ClassifierSpec[PatchSelection]):
    """Iterative patch selection; the patches are the glimpses of ``grid``."""

    kind = "patch-selection"
    grid: Grid
    channels: Channels
    classes: tuple[str, ...]
    memory: Count
    """patches kept of each image (M)"""

    def build(self) -> PatchSelection:
        return PatchSelection(self.grid, memory=self.memory, channels=self.channels, classes=len(self.classes))


@dataclass(frozen=True)
class MultipleInstancesSpec(ClassifierSpec[MultipleInstances]):
    """Attention-based multiple-instance learning; the patches are the glimpses of ``grid``."""

    kind = "multiple-instances"
    grid: Grid
    channels: Channels
    classes: tuple[str, ...]

    def build(self) -> MultipleInstances:
        return MultipleInstances(self.grid, channels=self.channels, classes=len(self.classes))


def grid_of(geometry: Geometry, images: ImageSet) -> Grid:
    """Return the grid of ``geometry`` on these images. Raises UserError if T glimpses do not fit on it."""
    g = geometry
    grid = Grid(images.images.shape[-1], g.glimpse_size, g.stride, g.scales, g.zoom)
    check_glimpses(geometry.glimpses, grid)
    check_overview(geometry.overview, grid)
    return grid


def check_glimpses(glimpses: int, grid: Grid) -> None:
    """Raise UserError unless ``glimpses`` is between 1 and the number of locations."""
    if not 1 <= glimpses <= len(grid):
        raise UserError(
            f"glimpses={glimpses} does not fit a grid of {len(grid)} locations: choose 1 to {len(grid)}, "
            "or a smaller `stride`"
        )


def check_one_level(geometry: Geometry) -> None:
    """Raise UserError for several zoom levels, which a posterior and the files of sequences do not have."""
    if geometry.zoom > 1:
        raise UserError(f"zoom={geometry.zoom}: designed and imported sequences have one level; give zoom=1")


def check_overview(overview_px: int, grid: Grid) -> None:
    """Raise UserError if the overview is larger than the image."""
    if overview_px > grid.image_px:
        raise UserError(f"overview={overview_px} exceeds image_px={grid.image_px}: choose at most {grid.image_px}")
