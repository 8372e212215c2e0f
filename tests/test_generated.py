"""The tasks `megapixel` and `pointers`, read back from their stamps and pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nogs.config.groups import Source
from nogs.data.canvases import Canvases
from nogs.data.handwriting import DIGIT_PX, Digits
from nogs.data.load import fingerprint, load
from nogs.data.sources.megapixel import AGREE, NOISE, OTHERS, agreeing, lines
from nogs.data.sources.pointers import pointed
from nogs.errors import UserError


def made_digits(count: int = 120) -> Digits:
    """Digits whose pixels are their index + 1, so that each can be recognised on a canvas."""
    pictures = np.broadcast_to(np.arange(1, count + 1, dtype=np.uint8)[:, None, None], (count, DIGIT_PX, DIGIT_PX))
    return Digits(pictures.copy(), np.arange(count) % 10)


def test_three_digits_of_a_megapixel_canvas_agree_with_the_label_and_two_do_not() -> None:
    digits = made_digits()
    images, about = agreeing(digits, 800, 0, canvases=(40, 10, 10))
    assert isinstance(images, Canvases)
    assert images.stamps.shape == (60, AGREE + OTHERS + NOISE, 6)
    for stamps, label in zip(images.stamps.numpy(), about.labels, strict=True):
        shown = stamps[:, 0]
        classes = digits.labels[shown[shown < len(digits.labels)]]
        assert len(classes) == AGREE + OTHERS
        assert (classes == label).sum() == AGREE
        assert (shown >= len(digits.labels)).sum() == NOISE
    assert np.bincount(about.labels).tolist() == [6] * 10


def test_nothing_on_a_megapixel_canvas_overlaps_and_all_is_inside() -> None:
    images, _ = agreeing(made_digits(), 750, 1, canvases=(30, 10, 10))
    assert isinstance(images, Canvases)
    first = images.stamps[..., 4:].long()
    assert first.min() >= 0
    assert first.max() <= 750 - DIGIT_PX
    for canvas, stamps in zip(images[:5], images.stamps[:5], strict=True):
        pictures = images.pictures[stamps[:, 0].long()].long()
        assert canvas.long().sum() == pictures.sum()  # where two overlapped, the darker pixels would be missing


def test_splits_of_generated_tasks_share_no_digit() -> None:
    for images, about in (agreeing(made_digits(), 800, 3, canvases=(40, 20, 20)), pointed(made_digits(), 128, 3)):
        assert isinstance(images, Canvases)
        assert about.split is not None
        used = [set(images.stamps[about.split == which][..., 0].flatten().tolist()) for which in range(3)]
        used = [{picture for picture in of_split if picture < 120} for of_split in used]
        assert not used[0] & used[1]
        assert not used[0] & used[2]
        assert not used[1] & used[2]


def test_a_line_is_thin_and_crosses_its_picture() -> None:
    pictures = lines(200, np.random.default_rng(0))
    assert set(np.unique(pictures)) == {0, 255}
    lit = (pictures > 0).sum((1, 2))
    assert lit.min() >= 14  # half the side, at least
    assert lit.max() <= 4 * DIGIT_PX  # twice the diagonal, and rounding
    assert len(np.unique(pictures.reshape(200, -1), axis=0)) > 190


@pytest.mark.parametrize(("canvas_px", "d"), [(64, 3), (128, 10), (256, 50)])
def test_the_pointer_names_the_place_of_the_label(canvas_px: int, d: int) -> None:
    """Decoded from the drawn pixels: the lit squares of the pointer's picture are the bits of the place."""
    digits = made_digits()
    images, about = pointed(digits, canvas_px, 0, per_digit=(2, 1, 1))
    assert isinstance(images, Canvases)
    side, others = canvas_px // 32, []
    for canvas, label in zip(images[:][:, 0].numpy(), about.labels, strict=True):
        pointer = canvas[2:30, 2:30]
        bits = [pointer[4 + 13 * (bit // 3) + 3, 2 + 9 * (bit % 3) + 3] == 255 for bit in range(6)]
        place = sum(2**bit for bit, lit in enumerate(bits) if lit)
        assert place < d
        at = [(1 + p) // side * 32 + 16 for p in range(d)], [(1 + p) % side * 32 + 16 for p in range(d)]
        classes = digits.labels[canvas[at].astype(int) - 1]
        assert classes[place] == label
        others.append((np.delete(classes, place) == label).mean())
        assert (canvas > 0).sum() <= (d + 1) * DIGIT_PX**2
    # Other places are of random classes: one in ten agrees, six standard deviations.
    assert abs(np.mean(others) - 0.1) < 6 * (0.09 / (len(others) * (d - 1))) ** 0.5


def test_every_place_is_pointed_at_equally_often() -> None:
    """Of 600 canvases and ten places, counts within six standard deviations of 60."""
    images, _ = pointed(made_digits(), 128, 1, per_digit=(6, 1, 1))
    assert isinstance(images, Canvases)
    counts = torch.bincount(images.stamps[:, 0, 0].long() - 120, minlength=10).double()
    share = counts / len(images)
    assert (share - 0.1).abs().max() < 6 * (0.09 / len(images)) ** 0.5


@pytest.mark.parametrize(("data", "px", "least"), [("megapixel", 749, 750), ("pointers", 63, 64)])
def test_a_canvas_too_small_is_refused(data: str, px: int, least: int) -> None:
    with pytest.raises(UserError, match=f"image_size={px}: .* {least} pixels or more"):
        load(Source(data=data, image_size=px))


def test_the_defaults_are_read_by_name() -> None:
    first, again = (load(Source(data="pointers", split_seed=1)) for _ in range(2))
    assert first.images.shape[1:] == (1, 128, 128)
    assert fingerprint(first) == fingerprint(again)
