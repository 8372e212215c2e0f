"""The digits that are built in: whole, anywhere, among fragments, and never in two splits."""

import time

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from nogs.config.groups import Source
from nogs.data import fingerprint, load
from nogs.data.handwriting import enlarged_digits
from nogs.data.load import assemble
from nogs.data.sources.digits import draw
from nogs.data.sources.needles import scatter


def test_digits_are_there_and_their_groups_never_cross_splits():
    images = assemble(draw(50, 3, canvases=(1300, 300, 300)), Source())
    assert images.images.shape == (1900, 1, 50, 50)
    assert images.classes == tuple("0123456789")
    by_split = [set(images.groups[images.members(split)].tolist()) for split in ("train", "val", "test")]
    assert not by_split[0] & by_split[1]
    assert not by_split[0] & by_split[2]
    assert not by_split[1] & by_split[2]
    assert len(set().union(*by_split)) == 1797
    assert [len(groups) for groups in by_split] == pytest.approx([1200, 300, 297], abs=6)
    _, labels = load_digits(return_X_y=True)
    assert images.labels.tolist() == labels[images.groups].tolist()


def test_digits_without_fragments_hold_exactly_one_digit():
    """Somewhere on the canvas the enlarged scan lies whole, and nothing else is lit."""
    images = assemble(draw(30, 0, enlarge=2, fragments=0, canvases=(20, 20, 20)), Source())
    scans, _ = load_digits(return_X_y=True)
    corners = set()
    for image, group in zip(images.images[:, 0], images.groups, strict=True):
        scan = Image.fromarray((scans[group].reshape(8, 8) * (255 / 16)).astype(np.float32))
        digit = np.array(scan.resize((16, 16), Image.Resampling.BILINEAR))
        windows = image.unfold(0, 16, 1).unfold(1, 16, 1).float()  # [15, 15, 16, 16]
        gaps = (windows - torch.from_numpy(digit)).abs().amax((2, 3))
        assert gaps.min() <= 1
        row, column = divmod(int(gaps.argmin()), 15)
        assert image.sum() == image[row : row + 16, column : column + 16].sum()
        corners.add((row, column))
    assert len(corners) > 40  # anywhere


def test_digits_fragments_add_light_and_never_take_it():
    clean = assemble(draw(32, 0, enlarge=2, fragments=0, canvases=(50, 5, 5)), Source())
    busy = assemble(draw(32, 0, enlarge=2, fragments=6, fragment_px=5, canvases=(50, 5, 5)), Source())
    train = slice(0, 50)  # the first draws are alike, so the digits lie alike
    assert (busy.images[train] >= clean.images[train]).all()
    assert (busy.images[train].float().mean() - clean.images[train].float().mean()) > 5


def test_digits_are_determined_by_the_seed_and_quick():
    start = time.perf_counter()
    one = load(Source())
    assert time.perf_counter() - start < 10
    assert one.images.shape == (15_000, 1, 52, 52)
    assert len(one.members("train")) == 12_000
    assert fingerprint(one) == fingerprint(load(Source()))
    assert fingerprint(one) != fingerprint(load(Source(split_seed=1)))
    assert load(Source(image_size=60)).images.shape[2:] == (60, 60)


@pytest.mark.parametrize(("canvas_px", "fragments"), [(96, 3), (192, 14)])
def test_digits_on_wide_canvases_are_those_of_needles_with_fragments_as_frequent(
    canvas_px: int, fragments: int
) -> None:
    wide = load(Source(image_size=canvas_px))
    expected = assemble(scatter(enlarged_digits(), canvas_px, 0, fragments=fragments, per_digit=(8, 4, 8)), Source())
    assert fingerprint(wide) == fingerprint(expected)
    counts = [len(wide.members(split)) for split in ("train", "val", "test")]
    assert counts == pytest.approx([11_500, 720, 1430], abs=60)
    by_split = [set(wide.groups[wide.members(split)].tolist()) for split in ("train", "val", "test")]
    assert not by_split[0] & by_split[1] | by_split[0] & by_split[2] | by_split[1] & by_split[2]
    assert wide.classes == tuple("0123456789")
