"""The task `needles`: one digit anywhere, among fragments of others of its own split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import nogs
from nogs.config.groups import Source
from nogs.data.canvases import Canvases
from nogs.data.handwriting import DIGIT_PX, Digits, enlarged_digits, read_digits
from nogs.data.load import fingerprint, load
from nogs.data.sources.needles import FRAGMENTS, scatter
from nogs.errors import UserError


def made_digits(count: int = 60) -> Digits:
    """Digits whose pixels are their index, so that each can be recognised on a canvas."""
    pictures = np.broadcast_to(np.arange(1, count + 1, dtype=np.uint8)[:, None, None], (count, DIGIT_PX, DIGIT_PX))
    return Digits(pictures.copy(), np.arange(count) % 10)


def test_each_canvas_has_its_digit_whole_and_its_label() -> None:
    images, about = scatter(made_digits(), 100, seed=0, fragments=3, per_digit=(2, 1, 1))
    assert isinstance(images, Canvases)
    assert about.groups is not None
    for canvas, digit, label in zip(images[:], about.groups, about.labels, strict=True):
        assert label == digit % 10
        covered = (canvas >= digit + 1).sum()  # a fragment may lie over it, if it is brighter
        assert covered >= DIGIT_PX**2
    assert np.bincount(about.split).tolist() == [2 * 40, 10, 10]


def test_splits_share_no_digit_neither_whole_nor_as_a_fragment() -> None:
    images, about = scatter(made_digits(), 100, seed=3)
    assert isinstance(images, Canvases)
    assert about.split is not None
    assert images.stamps.shape[1] == FRAGMENTS + 1
    used = [set(images.stamps[about.split == which][..., 0].flatten().tolist()) for which in range(3)]
    assert not used[0] & used[1]
    assert not used[0] & used[2]
    assert not used[1] & used[2]


def test_the_place_is_uniform_over_the_canvas() -> None:
    """Of 3,000 digits on 73 x 73 places: mean row and column within six standard deviations of the middle."""
    images, _ = scatter(made_digits(600 % 251), 100, seed=1, per_digit=(60, 1, 1))
    assert isinstance(images, Canvases)
    place = images.stamps[:, 0, 4:].double()
    assert place.min() == 0
    assert place.max() == 100 - DIGIT_PX
    deviation = 6 * (73**2 / 12 / len(place)) ** 0.5
    torch.testing.assert_close(place.mean(0), torch.full((2,), 36.0, dtype=torch.float64), rtol=0, atol=deviation)


def test_chance_is_of_the_split_seed(tmp_path: Path) -> None:
    first, again, other = (load(Source(data="needles", image_size=64, split_seed=seed)) for seed in (0, 0, 1))
    assert fingerprint(first) == fingerprint(again) != fingerprint(other)
    assert first.images.shape[1:] == (1, 64, 64)
    assert len(first.classes) == 10


def test_scikit_learns_digits_are_drawn_as_large_as_mnists() -> None:
    pictures, labels = enlarged_digits()
    assert pictures.shape == (1797, DIGIT_PX, DIGIT_PX)
    assert pictures.dtype == np.uint8
    assert not pictures[:, :2].any()
    assert not pictures[:, :, -2:].any()
    assert set(labels.tolist()) == set(range(10))


def test_digits_come_from_an_archive(tmp_path: Path) -> None:
    digits = made_digits()
    np.savez(tmp_path / "mine.npz", images=digits.pictures, labels=digits.labels.astype(np.uint8))
    found = load(Source(data=f"needles:{tmp_path / 'mine.npz'}", image_size=40))
    assert isinstance(found.images, Canvases)
    assert torch.equal(found.images.pictures, torch.from_numpy(digits.pictures))
    assert len(found) == 40 * 5 + 10 + 10


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"labels": np.arange(9)}, "has no array images"),
        ({"images": np.zeros((9, 28, 28), np.uint8)}, "has no array labels"),
        ({"images": np.zeros((9, 28, 27), np.uint8), "labels": np.arange(9)}, "give uint8"),
        ({"images": np.zeros((9, 28, 28), np.float32), "labels": np.arange(9)}, "give uint8"),
        ({"images": np.zeros((9, 28, 28), np.uint8), "labels": np.arange(8)}, "one integer for each image"),
        ({"images": np.zeros((9, 28, 28), np.uint8), "labels": np.arange(9.0)}, "one integer for each image"),
        ({"images": np.zeros((9, 28, 28), np.uint8), "labels": np.arange(9) + 2}, "from 0 to 9"),
        ({"images": np.zeros((0, 28, 28), np.uint8), "labels": np.arange(0)}, "one digit or more"),
        ({"images": np.zeros(28, np.uint8), "labels": np.arange(9)}, "give uint8"),
    ],
)
def test_an_archive_that_holds_no_digits_is_refused(
    arrays: dict[str, np.ndarray], problem: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError, match=problem):
        read_digits(tmp_path / "bad.npz")


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="image_size=27: digits are 28 pixels wide"):
        load(Source(data="needles", image_size=27))
    with pytest.raises(UserError, match="give its path"):
        load(Source(data="needles:"))
    with pytest.raises(UserError, match="does not exist"):
        load(Source(data="needles:/nowhere.npz"))
    with pytest.raises(UserError, match="is a folder, not a file"):
        load(Source(data="needles:/tmp"))


def test_canvases_can_be_drawn_whole_for_stages_that_need_all_images() -> None:
    images = load(Source(data="needles", image_size=32))
    assert isinstance(images.images, Canvases)
    assert torch.equal(images.in_memory()[5:9], images.images[5:9])
    assert images.in_memory().shape == images.images.shape


def test_networks_are_evaluated_on_canvases_that_are_not_drawn_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = Canvases.drawn

    def reduced_only(self: Canvases, px: int) -> Tensor:
        assert px < self.image_px, "all canvases are drawn at full size"
        return draw(self, px)

    monkeypatch.setattr(Canvases, "drawn", reduced_only)
    source = Source(data="needles", image_size=32)
    how = nogs.Optimisation(iterations=2, batch_size=8, validate_every=2)
    geometry = nogs.Geometry(glimpse_size=16, stride=8, glimpses=1, overview=8)
    machine, network = nogs.Machine(tmp_path / "gain"), nogs.AttentionNetwork(8)
    nogs.train(nogs.Train(machine, source, geometry, how, "gain", network=network), silent)
    run = nogs.evaluate(nogs.Evaluate(nogs.Machine(tmp_path / "evaluation"), (tmp_path / "gain",)), silent)
    assert run.complete


def silent(done: int, note: str) -> None:
    pass
