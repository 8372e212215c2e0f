"""Arrays as a data source: the same images and labels, written once, and mistakes named by their argument."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nogs
from staged import GEOMETRY, silent
from tiny import CLASSES, pictures

pytestmark = pytest.mark.usefixtures("cached")
Y = np.arange(60) % 3
X = pictures(Y, seed=0)


def test_arrays_are_the_images_of_the_source(tmp_path: Path) -> None:
    """Classes by number, by name and as texts, with a split and without."""
    split = np.repeat(["train", "val", "test"], [40, 10, 10])
    images = nogs.load(nogs.from_arrays(X, Y, split=split, folder=tmp_path))
    assert torch.equal(images.in_memory(), torch.from_numpy(X)[:, None])
    assert images.labels.tolist() == Y.tolist()
    assert images.classes == CLASSES
    assert images.members("val").tolist() == list(range(40, 50))
    named = nogs.load(nogs.from_arrays(X, Y, names=["a", "b", "c"], folder=tmp_path))
    texts = nogs.load(nogs.from_arrays(X, [("b", "a", "c")[label] for label in Y], folder=tmp_path))
    assert named.classes == texts.classes == ("a", "b", "c")
    assert texts.labels.tolist() == [(1, 0, 2)[label] for label in Y]
    assert nogs.load(nogs.from_arrays(X, Y == 0, folder=tmp_path)).labels.tolist() == (Y == 0).astype(int).tolist()
    both = nogs.from_arrays(X, np.stack((Y == 0, Y == 1), 1), names=["a", "b"], folder=tmp_path)
    assert nogs.load(both).multilabel


def test_the_archive_is_written_once_and_named_by_its_content(tmp_path: Path, cached: Path) -> None:
    one = nogs.from_arrays(X, Y, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    assert nogs.from_arrays(X.copy(), list(Y), folder=str(tmp_path)) == one
    assert file.stat().st_mtime_ns == written
    changed = X.copy()
    changed[0, 0, 0] ^= 1
    assert nogs.from_arrays(changed, Y, folder=tmp_path) != one
    assert nogs.from_arrays(X, Y).data == f"npz:{cached / 'arrays' / file.name}"
    colours = nogs.Source(image_size=8, fit="pad")
    source = nogs.from_arrays(X, Y, folder=tmp_path, source=colours)
    assert (source.image_size, source.fit, source.data) == (8, "pad", one.data)


def test_a_run_on_arrays_is_resumed_and_used(tmp_path: Path) -> None:
    source = nogs.from_arrays(X, Y, folder=tmp_path)
    config = nogs.Train(
        nogs.Machine(tmp_path / "run", device="cpu", resume=True),
        source,
        GEOMETRY,
        nogs.Optimisation(iterations=2, validate_every=1),
        network=nogs.AttentionNetwork(8),
    )
    run = nogs.train(config, silent)
    assert list(run.provenance["inputs"]) == [source.data]
    assert nogs.train(config, silent).hash_of("model.safetensors") == run.hash_of("model.safetensors")
    assert nogs.load_model(run.path).predict(X[0]).label in CLASSES


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"x": X / 255}, "x has values of type float64: give uint8 in 0..255"),
        ({"x": X[0]}, r"x is an array of shape \(16, 16\): give \[N, H, W\]"),
        ({"x": np.zeros((60, 3, 16, 16), np.uint8)}, r"put the channels last, with x.transpose\(0, 2, 3, 1\)"),
        ({"x": X[:0]}, r"x is an array of shape \(0, 16, 16\)"),
        ({"y": Y[:-1]}, r"y is an array of shape \(59,\), and x of \(60, 16, 16\): give one label for each image"),
        ({"y": Y + 0.5}, "y has fractions: labels must be classes"),
        ({"y": ["a", "b"] * 30, "names": ["x", "y"]}, r"names=\['x', 'y'\]: y has the texts \['a', 'b'\]"),
    ],
)
def test_a_mistake_is_one_line(arrays: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(nogs.UserError, match=complaint) as caught:
        nogs.from_arrays(**{"x": X, "y": Y, "folder": tmp_path, **arrays})
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
