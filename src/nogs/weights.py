"""Trained networks: to and from run directories, and over many images a batch at a time.

Files are safetensors, with all else to build a network (or a bank) in the metadata.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from nogs.attention.methods import METHODS
from nogs.attention.network import HardAttention
from nogs.cnn import WholeImageCNN
from nogs.completion.bank import Bank, Found
from nogs.completion.shards import Pictures, Shard
from nogs.config.groups import Geometry, PosteriorNetwork, Source
from nogs.data import ImageSet
from nogs.errors import UserError
from nogs.glimpses.grid import Grid
from nogs.posterior.lookahead import LookaheadPosterior
from nogs.posterior.masked_cnn import AVPCNN
from nogs.runs.directory import RunDirectory
from nogs.runs.progress import Tick, ticking
from nogs.stopping.heads import StoppingHeads


def grid_of(geometry: Geometry, images: ImageSet) -> Grid:
    """The grid that a geometry means on these images. Raises UserError where T glimpses do not fit on it."""
    grid = Grid(images.images.shape[-1], geometry.glimpse_size, geometry.stride, geometry.scales)
    if not 1 <= geometry.glimpses <= len(grid):
        raise UserError(
            f"glimpses={geometry.glimpses} does not fit a grid of {len(grid)} locations: choose 1 to {len(grid)}, "
            "or a smaller `stride`"
        )
    return grid


def build_posterior(
    network: PosteriorNetwork, grid: Grid, *, channels: int, classes: int, multilabel: bool
) -> LookaheadPosterior | AVPCNN:
    """The posterior that the configuration names, untrained."""
    if network.posterior == "lookahead":
        return LookaheadPosterior(
            grid, channels=channels, classes=classes, multilabel=multilabel, hidden=network.hidden
        )
    return AVPCNN(
        grid,
        channels=channels,
        classes=classes,
        multilabel=multilabel,
        backbone=network.backbone,
        pretrained=network.pretrained,
    )


def save_posterior(
    run: RunDirectory, posterior: LookaheadPosterior | AVPCNN, network: PosteriorNetwork, images: ImageSet
) -> None:
    """Write model.safetensors of a fit-posterior run."""
    run.save_tensors(
        "model",
        posterior.state_dict(),
        kind="posterior",
        network=dataclasses.asdict(network),
        grid=dataclasses.asdict(posterior.grid),
        channels=images.images.shape[1],
        classes=images.classes,
        multilabel=images.multilabel,
    )


def load_posterior(run: RunDirectory, device: torch.device) -> LookaheadPosterior | AVPCNN:
    """The posterior of a finished fit-posterior run, in eval mode."""
    meta = run.load_metadata("model")
    network = PosteriorNetwork(**{**meta["network"], "pretrained": False})
    posterior = build_posterior(
        network,
        Grid(**meta["grid"]),
        channels=meta["channels"],
        classes=len(meta["classes"]),
        multilabel=meta["multilabel"],
    )
    posterior.load_state_dict(run.load_tensors("model"))
    return posterior.to(device).eval()


class TrainedNetwork(NamedTuple):
    """A trained network in eval mode, its number of glimpses T, its classes, and the T cells of its path.

    ``path`` is None for a method that does not look along one path.
    """

    network: HardAttention
    glimpses: int
    classes: tuple[str, ...]
    path: tuple[int, ...] | None


def save_attention(
    run: RunDirectory,
    network: HardAttention,
    images: ImageSet,
    *,
    hidden: int,
    glimpses: int,
    method: str,
    source: Source,
    path: Sequence[int] | None = None,
    name: str = "model",
) -> None:
    """Write ``name``.safetensors of a train run: what `nogs predict` needs, and nothing else.

    ``source``: how the training images became squares of 8 bits, for further images to be read in the same way.
    """
    along = {} if path is None else {"path": list(path)}
    run.save_tensors(
        name,
        network.state_dict(),
        kind="attention",
        method=method,
        grid=dataclasses.asdict(network.grid),
        channels=images.images.shape[1],
        hidden=hidden,
        glimpses=glimpses,
        classes=images.classes,
        fit=source.fit,
        range=source.range,
        **along,
    )


def load_attention(run: RunDirectory, device: torch.device, *, name: str = "model") -> TrainedNetwork:
    """Load a network of a finished train run from ``name``.safetensors.

    Raises UserError for a path that is not T cells of its grid.
    """
    meta = run.load_metadata(name)
    network = HardAttention(
        Grid(**meta["grid"]), channels=meta["channels"], classes=len(meta["classes"]), hidden=meta["hidden"]
    )
    network.load_state_dict(run.load_tensors(name))
    path = _path(run, meta, locations=len(network.grid)) if METHODS[meta["method"]].looks == "path" else None
    return TrainedNetwork(network.to(device).eval(), meta["glimpses"], tuple(meta["classes"]), path)


def _path(run: RunDirectory, meta: dict[str, Any], *, locations: int) -> tuple[int, ...]:
    path, T = meta.get("path"), meta["glimpses"]
    if not isinstance(path, list) or len(path) != T or not all(type(c) is int and 0 <= c < locations for c in path):
        raise UserError(
            f"{run.path / 'model.safetensors'} is damaged: path={path} is not {T} cells from 0 to {locations - 1}; "
            "train the network again"
        )
    return tuple(path)


def save_stopping(run: RunDirectory, heads: StoppingHeads, *, costs: tuple[float, ...], of: RunDirectory) -> None:
    """Write model.safetensors of a fit-stopping run on the train run ``of``."""
    run.save_tensors(
        "model",
        heads.state_dict(),
        kind="stopping",
        glimpses=heads.glimpses,
        costs=costs,
        network=of.hash_of("model.safetensors"),
    )


def load_stopping(run: RunDirectory, device: torch.device, *, of: RunDirectory) -> StoppingHeads:
    """Stopping heads in eval mode. Raises UserError unless they were fitted on the train run ``of``."""
    meta = run.load_metadata("model")
    if meta["network"] != of.hash_of("model.safetensors"):
        raise UserError(f"stopping={run.path} was fitted on another network than {of.path}: run `nogs fit-stopping`")
    if "hidden" in meta:
        raise UserError(f"stopping={run.path} is of an older nogs, whose heads read other numbers: fit them again")
    heads = StoppingHeads(glimpses=meta["glimpses"], costs=len(meta["costs"]))
    heads.load_state_dict(run.load_tensors("model"))
    return heads.to(device).eval()


def save_cnn(
    run: RunDirectory, network: WholeImageCNN, images: ImageSet, *, architecture: str, resolution_px: int, width: float
) -> None:
    """Write model.safetensors of one whole-image CNN."""
    run.save_tensors(
        "model",
        network.state_dict(),
        kind="cnn",
        architecture=architecture,
        resolution_px=resolution_px,
        width=width,
        channels=images.images.shape[1],
        classes=images.classes,
    )


def load_bank(run: RunDirectory, data: ImageSet, tick: Tick | None = None) -> Bank:
    """Return the bank of a finished build-bank run over the images ``data``.

    Shards are memory-mapped. ``tick`` reports how many were compared with their checksums, which reads them once.
    """
    meta = run.load_metadata("bank")
    names = meta.get("shards")
    if not isinstance(names, list):
        raise UserError(f"bank={run.path} was saved by an incompatible version: run `nogs build-bank` again")
    arrays = run.load_tensors("bank")
    pca = (meta["mirror"], arrays["mean"], arrays["components"])
    if not names:
        members = arrays["members"]
        return Bank(
            lambda indices: Found(data.images, members[indices]), data.groups[members], *pca, (arrays["latents"],)
        )
    shards = []
    with ticking("bank", len(names), tick) as report:
        for number, name in enumerate(names):
            report(number, f"checking {name}")
            shards.append(Shard(**run.load_tensors(name)))
        report(len(names), "")
    decoded = Pictures(shards)
    return Bank(
        lambda indices: Found(decoded(indices), torch.arange(len(indices))),
        None,
        *pca,
        tuple(shard.latents for shard in shards),
    )
