"""The estimator `HardAttentionClassifier`."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from nogs.errors import UserError
from nogs.prediction.answer import Answer
from nogs.prediction.load import load_model
from nogs.runs.directory import RunDirectory
from nogs.sklearn.fitting import Fitting, Options

Array = np.ndarray[Any, np.dtype[Any]]
DESCRIPTION = "estimator.json"
"""File of a saved estimator beside its network: parameters, classes and the form of its input."""


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
    zoom
        Levels that the network chooses among for each glimpse, each twice as wide as the last and reduced to the same
        size; not for methods with designed sequences.
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
        zoom: int = 1,
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
        self.zoom = zoom
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
                options = Options(**{name: getattr(self, name) for name in Options._fields})
                self.model_ = Fitting(options, Path(folder), seed).fit(images, labels, names=self._names())
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
