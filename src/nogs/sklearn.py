"""`HardAttentionClassifier`: a scikit-learn estimator for images in arrays.

>>> from nogs.sklearn import HardAttentionClassifier
>>> classifier = HardAttentionClassifier(method="ps-nogs", glimpses=5).fit(X, y)
>>> classifier.predict(X_test), classifier.score(X_test, y_test)
"""

from __future__ import annotations

import math
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from nogs.attention.methods import REFERENCE, method
from nogs.config.groups import Geometry, Machine, Optimisation, Source
from nogs.config.stages import BuildBank, FitPosterior, Record, Search, Train
from nogs.data.arrays import from_arrays
from nogs.data.imageset import SPLITS
from nogs.data.notices import without_notices
from nogs.data.splits import TRAIN, VAL, cut
from nogs.errors import UserError
from nogs.glimpses.grid import Grid
from nogs.prediction.answer import Answer
from nogs.prediction.load import load_model
from nogs.runs.directory import RunDirectory
from nogs.stages.build_bank import build_bank
from nogs.stages.fit_posterior import fit_posterior
from nogs.stages.record import record
from nogs.stages.search import search
from nogs.stages.train import train

Array = np.ndarray[Any, np.dtype[Any]]
DESCRIPTION = "estimator.json"
"""File of a saved estimator beside its network: parameters, classes and the form of its input."""
LEAST_GLIMPSE_PX = 3
"""Smallest glimpse by default, of images of more than 3 pixels a side: on digits of 8 pixels 3 are better than 2."""
POSTERIOR_BATCH, POSTERIOR_LEARNING_RATE = 128, 2e-3


class HardAttentionClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """A hard attention network that classifies images by a few glimpses.

    Images are arrays [n, H, W] or [n, H, W, c], or rows of pixels [n, H W c] with ``image_shape``. Values of another
    type than uint8 are mapped from their range in training to 0..255.

    Parameters
    ----------
    method
        How the network is trained, a name in ``nogs.METHODS`` except ps-hgs: ram, gain, ps-nogs, path, ... Methods with
        designed sequences first fit a posterior, build a bank and search for sequences.
    glimpses
        Glimpses of each image (T), at most as many as there are locations.
    glimpse_size, stride
        Side length of a glimpse and step between locations, in pixels. By default a quarter of the image's side, but at
        least three pixels, and half a glimpse.
    overview
        Side length in pixels of a reduced view of the whole image that the network sees first; 0: none.
    image_size
        Side length in pixels that images are resized to; by default that of the images, whose centre square is used.
    image_shape
        Shape (H, W) or (H, W, c) of the images in rows of pixels. By default the smallest square, grey, that holds a
        row, filled up with the least value.
    iterations, batch_size, learning_rate, validate_every, patience
        The training of the network, as in `nogs.Optimisation`.
    hidden
        Hidden units of the network.
    annotate
        Training images that sequences are designed for or recorded from, at most half of them.
    posterior_iterations
        Iterations of the posterior's fit.
    pooling
        Weight of the mean gain map of all images in each choice of a designed sequence. 0: each image has its own path;
        1: all have one.
    mirror
        Also complete with mirror images; not for digits or text.
    validation_fraction
        Share of the images that is held out to choose the best weights.
    threshold
        Stop an image when the predicted gain of a further glimpse is below this, in nats; for methods that learn gains.
    device
        Where to compute: cpu, cuda, mps or auto.
    random_state
        Seed of splits, weights and batches: an integer, a RandomState or None.
    verbose
        Show progress bars and warnings.

    Attributes
    ----------
    classes_
        The labels, sorted.
    model_
        The trained network (`nogs.Model`), whose ``predict`` also returns glimpses and costs.
    n_features_in_
        ``X.shape[1]`` in training.
    image_shape_
        Shape (H, W) or (H, W, c) of an image.
    """

    def __init__(
        self,
        method: str = "ps-nogs",
        *,
        glimpses: int = 5,
        glimpse_size: int | None = None,
        stride: int | None = None,
        overview: int = 0,
        image_size: int | None = None,
        image_shape: tuple[int, ...] | None = None,
        iterations: int = 2000,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        validate_every: int = 100,
        patience: int = 1000,
        hidden: int = 64,
        annotate: int = 200,
        posterior_iterations: int = 1000,
        pooling: float = 0.75,
        mirror: bool = False,
        validation_fraction: float = 0.1,
        threshold: float | None = None,
        device: str = "cpu",
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.method = method
        self.glimpses = glimpses
        self.glimpse_size = glimpse_size
        self.stride = stride
        self.overview = overview
        self.image_size = image_size
        self.image_shape = image_shape
        self.iterations = iterations
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validate_every = validate_every
        self.patience = patience
        self.hidden = hidden
        self.annotate = annotate
        self.posterior_iterations = posterior_iterations
        self.pooling = pooling
        self.mirror = mirror
        self.validation_fraction = validation_fraction
        self.threshold = threshold
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> HardAttentionClassifier:
        """Train on images ``X`` and their classes ``y``. Raises ValueError for invalid input."""
        X, y = validate_data(self, X, y, allow_nd=True)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has only one class, {self.classes_[0]!r}: give two or more")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.image_shape_ = self._shape_of(X)
        self.fill_ = X.min().item()
        images = self._images(X)
        try:
            with tempfile.TemporaryDirectory(prefix="nogs-") as folder, torch.random.fork_rng(devices=[]):
                self.model_ = _Fitting(self, Path(folder), seed).fit(images, labels, names=self._names())
        except UserError as error:
            raise ValueError(str(error)) from None
        return self

    def predict(self, X: Any) -> Array:
        """Return the likeliest class of each image."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class, [n, classes], in the order of ``classes_``."""
        answers = self.answers(X)
        return np.array([list(answer.probs.values()) for answer in answers]).reshape(len(answers), -1)

    def answers(self, X: Any) -> list[Answer]:
        """Return label, probabilities, glimpses, steps and cost of each image, as `nogs.Model.predict` does."""
        check_is_fitted(self)
        X = validate_data(self, X, allow_nd=True, reset=False)
        try:
            return self.model_.predict(list(self._images(X)), threshold=self.threshold)
        except UserError as error:
            raise ValueError(str(error)) from None

    def save(self, folder: str | Path) -> None:
        """Write the fitted estimator to a folder, without pickle; `nogs.load_model` reads its network alone."""
        check_is_fitted(self)
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        seed = self.random_state if isinstance(self.random_state, int) else None
        content = {
            "parameters": {**self.get_params(), "random_state": seed},
            "classes": self.classes_.tolist(),
            "n_features_in": self.n_features_in_,
            "image_shape": self.image_shape_,
            "fill": self.fill_,
        }
        RunDirectory(place).save_json(DESCRIPTION, content)
        self.model_.save(place)

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "cpu") -> HardAttentionClassifier:
        """Return the estimator that `save` wrote. Raises UserError if it is missing or damaged."""
        content = RunDirectory(Path(folder)).load_json(DESCRIPTION)
        try:
            parameters = {**content["parameters"], "device": device}
            if parameters["image_shape"] is not None:
                parameters["image_shape"] = tuple(parameters["image_shape"])
            estimator = cls(**parameters)
            estimator.classes_ = np.array(content["classes"])
            estimator.n_features_in_ = int(content["n_features_in"])
            estimator.image_shape_ = tuple(map(int, content["image_shape"]))
            estimator.fill_ = content["fill"]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{Path(folder) / DESCRIPTION} describes no estimator of this version ({error})") from None
        estimator.model_ = load_model(folder, device=device)
        return estimator

    def _shape_of(self, X: Array) -> tuple[int, ...]:
        """Return the shape of an image. Raises ValueError if rows do not have it."""
        if X.ndim > 2:
            return X.shape[1:]
        pixels = X.shape[1]
        if self.image_shape is None:
            side = math.isqrt(pixels - 1) + 1
            return side, side
        if math.prod(self.image_shape) != pixels:
            raise ValueError(f"image_shape={self.image_shape} has {math.prod(self.image_shape)} values, X {pixels}")
        return tuple(self.image_shape)

    def _images(self, X: Array) -> Array:
        """Return the images as [n, H, W] or [n, H, W, c]; rows of pixels are filled up to a square if need be."""
        if X.ndim > 2:
            return X
        missing = math.prod(self.image_shape_) - X.shape[1]
        filled = np.pad(X, ((0, 0), (0, missing)), constant_values=self.fill_) if missing else X
        return filled.reshape(len(X), *self.image_shape_)

    def _names(self) -> list[str]:
        """Return the names of the classes in the network's spec: as texts, or by number if two have the same text."""
        names = [str(label) for label in self.classes_.tolist()]
        return names if len(set(names)) == len(names) else [str(number) for number in range(len(names))]


class _Fitting:
    """The stages of one fit, in run directories below ``folder``, which are removed after it."""

    def __init__(self, options: HardAttentionClassifier, folder: Path, seed: int) -> None:
        self.options, self.folder, self.seed = options, folder, seed
        self.tick = None if options.verbose else _silent

    def fit(self, images: Array, labels: Array, *, names: list[str]) -> Any:
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
        return Geometry(size, stride, min(o.glimpses, len(Grid(side, size, stride))), overview=o.overview)

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
            hidden=self.options.hidden,
        )
        return train(config, self.tick).path


def _silent(done: int, note: str) -> None:
    """Show no progress."""
