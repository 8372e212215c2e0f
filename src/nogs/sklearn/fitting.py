"""The stages of one fit of the estimator: posterior, bank and search where the method needs them, and the training."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nogs.attention.methods import REFERENCE, method
from nogs.config.groups import AttentionNetwork, Geometry, Machine, Optimisation, Source
from nogs.config.stages import BuildBank, FitPosterior, Record, Search, Train
from nogs.data.arrays import from_arrays
from nogs.data.imageset import SPLITS
from nogs.data.notices import without_notices
from nogs.data.splits import TRAIN, VAL, cut
from nogs.errors import UserError
from nogs.glimpses.grid import Grid
from nogs.prediction.load import load_model
from nogs.prediction.model import Model
from nogs.stages.build_bank import build_bank
from nogs.stages.fit_posterior import fit_posterior
from nogs.stages.record import record
from nogs.stages.search import search
from nogs.stages.train import train

Array = np.ndarray[Any, np.dtype[Any]]
LEAST_GLIMPSE_PX = 3
"""Smallest glimpse by default, of images of more than 3 pixels a side: on digits of 8 pixels 3 are better than 2."""
POSTERIOR_BATCH, POSTERIOR_LEARNING_RATE = 128, 2e-3


class Options(NamedTuple):
    """The parameters of `HardAttentionClassifier` that a fit depends on."""

    method: str
    glimpses: int
    glimpse_size: int | None
    stride: int | None
    overview: int
    zoom: int
    image_size: int | None
    iterations: int
    batch_size: int
    learning_rate: float
    validate_every: int
    patience: int
    hidden: int
    annotate: int
    posterior_iterations: int
    pooling: float
    mirror: bool
    validation_fraction: float
    device: str
    verbose: bool


class Fitting:
    """The stages of one fit, in run directories below ``folder``, which are removed after it."""

    def __init__(self, options: Options, folder: Path, seed: int) -> None:
        self.options, self.folder, self.seed = options, folder, seed
        self.tick = None if options.verbose else _silent

    def fit(self, images: Array, labels: Array, *, names: list[str]) -> Model:
        """Return the model trained on the images."""
        row = method(self.options.method, argument="method")
        if row.sequences == "given":
            raise UserError(f"method={self.options.method} learns from sequences of yours: train it with `nogs.train`")
        with nullcontext() if self.options.verbose else without_notices():
            self.source = self._source(images, labels, names)
            self.geometry = self._geometry(images.shape[1:3])
            sequences = None
            if row.sequences in ("search", "path"):
                sequences = self._searched(pooling=1.0 if row.sequences == "path" else self.options.pooling)
            elif row.sequences == "record":
                teacher = self._trained(REFERENCE, None)
                recording = Record(self._machine("recorded"), teacher, annotate=self.options.annotate)
                sequences = record(recording, self.tick).path
            return load_model(self._trained(self.options.method, sequences), device=self.options.device)

    def _source(self, images: Array, labels: Array, names: list[str]) -> Source:
        """Return the images as a source, split into train and val, with values of any type mapped to 0..255."""
        o, n = self.options, len(images)
        values = None
        if images.dtype != np.uint8:
            low, high = float(images.min()), float(images.max())
            values = (low, high) if low < high else (low, low + 1)
        everything = np.ones(n, dtype=bool)
        val = cut(everything, labels, groups=np.arange(n), share=o.validation_fraction, seed=self.seed)
        split = np.where(val, SPLITS[VAL], SPLITS[TRAIN])
        # Every set needs images in val and in test: of the first if classes have one image each, and of the second,
        # which no training reads, a copy is appended.
        extra = [0] if val.any() else [*range(n), 0]
        split = np.concatenate((split, [SPLITS[VAL]] * (len(extra) - 1), ["test"]))
        rows = np.concatenate((np.arange(n), extra))
        return from_arrays(
            images[rows],
            labels[rows],
            names=names,
            split=split,
            folder=self.folder,
            source=Source(image_size=o.image_size, range=values),
        )

    def _geometry(self, shape: tuple[int, ...]) -> Geometry:
        o = self.options
        side = o.image_size or min(shape)
        quarter = max(LEAST_GLIMPSE_PX, math.ceil(side / 4))
        size = o.glimpse_size or (quarter if quarter < side else math.ceil(side / 2))
        stride = o.stride or max(1, size // 2)
        glimpses = min(o.glimpses, len(Grid(side, size, stride, zoom=o.zoom)))
        return Geometry(size, stride, glimpses, overview=o.overview, zoom=o.zoom)

    def _machine(self, name: str) -> Machine:
        return Machine(self.folder / name, device=self.options.device)

    def _optimisation(self, iterations: int) -> Optimisation:
        o = self.options
        return Optimisation(
            iterations, o.batch_size, o.learning_rate, min(o.validate_every, iterations), o.patience, self.seed
        )

    def _searched(self, *, pooling: float) -> Path:
        """Return the run directory of a search, with a posterior and a bank of the same images."""
        o = self.options
        how = replace(
            self._optimisation(o.posterior_iterations),
            batch_size=POSTERIOR_BATCH,
            learning_rate=POSTERIOR_LEARNING_RATE,
        )
        posterior = FitPosterior(
            self._machine("posterior"), self.source, self.geometry, optimisation=how, annotate=o.annotate
        )
        fit_posterior(posterior, self.tick)
        bank = BuildBank(self._machine("bank"), self.source, mirror=o.mirror, seed=self.seed)
        build_bank(bank, self.tick)
        searching = Search(
            self._machine("sequences"), posterior.machine.out, bank.machine.out, pooling=pooling, seed=self.seed
        )
        return search(searching, self.tick).path

    def _trained(self, name: str, sequences: Path | None) -> Path:
        config = Train(
            self._machine(name),
            self.source,
            self.geometry,
            self._optimisation(self.options.iterations),
            method=name,
            sequences=sequences,
            network=AttentionNetwork(self.options.hidden),
        )
        return train(config, self.tick).path


def _silent(done: int, note: str) -> None:
    """Show no progress."""
