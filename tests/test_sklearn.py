"""The estimator in scikit-learn's own checks, its searches and clones, and on digits and stamps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

import nogs
from nogs.sklearn import HardAttentionClassifier
from tiny import GLIMPSE_PX, STRIDE_PX, T, pictures

pytestmark = pytest.mark.usefixtures("cached")
QUICK: dict[str, Any] = {"iterations": 10, "posterior_iterations": 10, "hidden": 8, "annotate": 20, "random_state": 0}
CHECKS = """
import sys
import warnings
from unittest import SkipTest

import torch
from sklearn.utils.estimator_checks import estimator_checks_generator

from nogs.sklearn import HardAttentionClassifier

torch.set_num_threads(1)
warnings.simplefilter("error")
rounding = "a batch of another size or order changes the last bits of single-precision probabilities"
cannot = {"check_methods_sample_order_invariance": rounding, "check_methods_subset_invariance": rounding}
accuracy = sys.argv[1] == "accuracy"
how = {"glimpses": 4, "iterations": 120} if accuracy else {"glimpses": 2, "iterations": 10}
classifier = HardAttentionClassifier("ram", batch_size=32, hidden=16, learning_rate=2e-2, **how)
checked = 0
for estimator, check in estimator_checks_generator(classifier, expected_failed_checks=cannot, mark="skip"):
    name = getattr(getattr(check, "func", check), "__name__", "")
    if (name == "check_classifiers_train") != accuracy:
        continue
    checked += 1
    try:
        check(estimator)
    except SkipTest:
        pass
    except Exception as error:
        print(name, type(error).__name__, error)
print("checks:", checked)
"""


@pytest.mark.parametrize("which", ["form", pytest.param("accuracy", marks=pytest.mark.slow)])
def test_the_checks_of_scikit_learn_pass(which: str) -> None:
    """In a process without the type checker of the tests, because one check sets parameters of wrong types."""
    done = subprocess.run([sys.executable, "-c", CHECKS, which], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert int(line.removeprefix("checks: ")) >= {"form": 40, "accuracy": 3}[which]


@pytest.fixture(scope="module")
def stamps() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    y = np.arange(120) % 3
    return pictures(y, seed=0), np.array(["across", "down", "board"])[y]


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name, row in nogs.METHODS.items() if row.sequences != "given"])
def test_every_method_is_fitted(stamps: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]], method: str) -> None:
    """With a posterior, a bank and a search where the method needs them."""
    X, y = stamps
    classifier = HardAttentionClassifier(method, glimpses=T, glimpse_size=GLIMPSE_PX, stride=STRIDE_PX, **QUICK)
    probs = classifier.fit(X, y).predict_proba(X[:5])
    assert probs.shape == (5, 3)
    assert probs.sum(1) == pytest.approx(1, abs=1e-5)
    assert classifier.classes_.tolist() == ["across", "board", "down"]
    assert classifier.model_.spec.method == method
    assert classifier.model_.classes == ("across", "board", "down")
    assert classifier.predict(X[:5]).tolist() == classifier.classes_[probs.argmax(1)].tolist()


@pytest.mark.slow
def test_digits_of_eight_pixels_are_learned_with_the_default_geometry() -> None:
    """Rows of 64 values from 0 to 16, as scikit-learn has them; the README's example runs by default."""
    X, y = load_digits(return_X_y=True)
    classifier = HardAttentionClassifier("gain", iterations=300, validate_every=100, random_state=0).fit(
        X[:1200], y[:1200]
    )
    assert classifier.image_shape_ == (8, 8)
    assert classifier.model_.spec.range == (0, 16)
    assert classifier.score(X[1200:], y[1200:]) > 0.75
    shaped = classifier.answers(X[:3])
    assert all(answer.size == (8, 8) and answer.steps == 5 for answer in shaped)


def test_rows_of_pixels_are_the_images(stamps: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> None:
    X, y = stamps
    how = {"glimpses": T, **QUICK}
    images = HardAttentionClassifier("ram", **how).fit(X, y).predict_proba(X)
    rows = X.reshape(len(X), -1)
    np.testing.assert_array_equal(HardAttentionClassifier("ram", **how).fit(rows, y).predict_proba(rows), images)
    shaped = HardAttentionClassifier("ram", image_shape=(16, 16), **how).fit(rows, y)
    np.testing.assert_array_equal(shaped.predict_proba(rows), images)
    with pytest.raises(ValueError, match=r"image_shape=\(16, 15\) has 240 values, X 256"):
        HardAttentionClassifier("ram", image_shape=(16, 15), **how).fit(rows, y)


@pytest.mark.slow
def test_clone_and_grid_search(stamps: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> None:
    X, y = stamps
    classifier = HardAttentionClassifier("ram", **QUICK)
    assert clone(classifier).get_params() == classifier.get_params()
    found = GridSearchCV(classifier, {"glimpses": [1, 2]}, cv=2, error_score="raise").fit(X, y)
    assert found.best_estimator_.model_.spec.glimpses == found.best_params_["glimpses"]
    assert found.predict(X[:2]).dtype == y.dtype


def test_a_saved_estimator_is_the_same_estimator(
    stamps: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    X, y = stamps
    classifier = HardAttentionClassifier("ram", **QUICK).fit(X, y)
    classifier.save(tmp_path / "saved")
    assert not [file for file in (tmp_path / "saved").iterdir() if file.suffix not in (".json", ".safetensors", "")]
    loaded = HardAttentionClassifier.load(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.predict(X), classifier.predict(X))
    np.testing.assert_array_equal(loaded.predict_proba(X), classifier.predict_proba(X))
    assert loaded.get_params() == classifier.get_params()
    assert nogs.load_model(tmp_path / "saved").predict(X[0]).label == classifier.predict(X[:1])[0]
    file = tmp_path / "saved" / "estimator.json"
    file.write_text(file.read_text().replace("across", "acroos"))
    with pytest.raises(nogs.UserError, match="is damaged"):
        HardAttentionClassifier.load(tmp_path / "saved")


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ({"method": "ramm"}, "method=ramm does not exist"),
        ({"method": "ps-hgs"}, "method=ps-hgs learns from sequences of yours"),
        ({"glimpse_size": 20}, "glimpse_px=20 exceeds image_px=16"),
        ({"iterations": 0}, "iterations=0: must be at least 1"),
        ({"threshold": 0.1}, "threshold"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(
    stamps: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]], how: dict[str, Any], complaint: str
) -> None:
    X, y = stamps
    with pytest.raises(ValueError, match=complaint):
        HardAttentionClassifier(**{"method": "ram", **QUICK, **how}).fit(X, y).predict(X)
