"""Logistic regression on small whole images: the baseline that costs seconds and belongs beside every result.

Images are averaged down to at most 24 pixels a side, centred, and fitted by scikit-learn (L-BFGS, L2 penalty). The
strength of the penalty is chosen on validation images. At most 5,000 training images are used.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from nogs.data import ImageSet
from nogs.data.pixels import Pixels
from nogs.evaluation.schema import WholeImage
from nogs.evaluation.scores import accuracy, class_frequencies, scores
from nogs.rivals.cnn import shrink

NAME = "logistic regression"
MAX_RESOLUTION_PX = 24
MAX_TRAINING_IMAGES = 5000
MAX_ITERATIONS = 200
BATCH = 64
"""Images that are in memory at full size."""
INVERSE_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
"""Values of scikit-learn's C that are tried; the best on validation images is kept."""


def logistic_regression(data: ImageSet) -> WholeImage | None:
    """Return the test scores of logistic regression; None if the training images used are of one class."""
    from sklearn.exceptions import ConvergenceWarning  # takes a second to import
    from sklearn.linear_model import LogisticRegression

    resolution_px = min(MAX_RESOLUTION_PX, data.images.shape[-1])
    train, val, test = (data.members(split) for split in ("train", "val", "test"))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    train = train[order[:MAX_TRAINING_IMAGES].sort().values]
    labels = data.labels[train].numpy()
    if len(np.unique(labels)) < 2:
        return None
    pixels = _pixels(data, train, resolution_px)
    mean, C = pixels.mean(0), len(data.classes)
    best: tuple[float, LogisticRegression] | None = None
    for inverse_penalty in INVERSE_PENALTIES:
        model = LogisticRegression(C=inverse_penalty, max_iter=MAX_ITERATIONS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # stopping early is one more regulariser
            model.fit(pixels - mean, labels)
        validated = accuracy(_log_probs(model, _pixels(data, val, resolution_px) - mean, C), data.labels[val])
        if best is None or validated > best[0]:
            best = validated, model
    assert best is not None
    log_probs = _log_probs(best[1], _pixels(data, test, resolution_px) - mean, C)
    frequencies = class_frequencies(data.labels[data.members("train")], C)
    tested = scores(log_probs, data.labels[test], frequencies=frequencies)
    return WholeImage(
        name=NAME,
        macs=pixels.shape[1] * len(best[1].coef_),
        test_accuracy=tested.accuracy,
        test_balanced_accuracy=tested.balanced_accuracy,
        test_equal_prior_balanced_accuracy=tested.equal_prior_balanced_accuracy,
        test_auroc=tested.auroc,
        validation_accuracy=best[0],
        architecture=NAME,
        resolution_px=resolution_px,
    )


def _pixels(data: ImageSet, images: Int[Tensor, " n"], resolution_px: int) -> Float[np.ndarray, "n p"]:
    """Return the pixels of each image in a row, in [0, 1]."""
    views = (_view(data.images, batch, resolution_px) for batch in images.split(BATCH))
    small = torch.cat([shrink(view, resolution_px).flatten(1) for view in views])
    return (small.double() / 255).numpy()


def _view(images: Pixels, rows: Int[Tensor, " b"], px: int) -> UInt8[Tensor, "b c v v"]:
    return images[rows] if isinstance(images, Tensor) else images.view(rows, px)


def _log_probs(model: object, pixels: Float[np.ndarray, "n p"], classes: int) -> Float[Tensor, "n C"]:
    """Return log-probabilities; that of a class which the model was not fitted to is the least number of float32."""
    from sklearn.linear_model import LogisticRegression

    assert isinstance(model, LogisticRegression)
    log_probs = torch.full((len(pixels), classes), torch.finfo(torch.float32).min)
    log_probs[:, torch.from_numpy(model.classes_)] = torch.from_numpy(model.predict_log_proba(pixels)).float()
    return log_probs
