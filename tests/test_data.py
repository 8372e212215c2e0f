"""Data: what goes in comes out pixel for pixel, resized as it should be, and people stay apart."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nogs.config.groups import Source
from nogs.data import SPLITS, load
from sets import ATTRIBUTES, label_of, make_celeba, make_csv, make_folder, picture, pixels_of, save, save_npz

pytestmark = pytest.mark.usefixtures("cached")


CELEBA = Path(os.environ.get("NOGS_CELEBA", "unset"))  # real photographs, where a developer has them


def test_folder_gives_back_its_pixels(tmp_path):
    images = load(Source(data=f"folder:{make_folder(tmp_path / 'set')}"))
    assert images.images.dtype == torch.uint8
    assert images.images.shape == (12, 3, 6, 6)
    assert images.classes == ("cat", "dog")
    assert images.labels.tolist() == [0] * 6 + [1] * 6
    for i in range(6):
        np.testing.assert_array_equal(pixels_of(images, f"dog/{i}.png"), picture(100 + i))


def test_folder_of_grey_images_keeps_one_channel_and_grey_among_colours_becomes_rgb(tmp_path):
    root = make_folder(tmp_path / "set", channels=1)
    assert load(Source(data=f"folder:{root}")).images.shape == (12, 1, 6, 6)
    save(root / "cat" / "7.png", picture(7))
    images = load(Source(data=f"folder:{root}"))
    assert images.images.shape == (13, 3, 6, 6)
    np.testing.assert_array_equal(
        pixels_of(images, "cat/0.png"), np.repeat(picture(0, channels=1)[..., None], 3, axis=2)
    )


def test_folder_splits_are_its_folders(tmp_path):
    for split, each in (("train", 3), ("val", 2), ("test", 2)):
        make_folder(tmp_path / "set" / split, classes=("10", "9"), each=each)
    images = load(Source(data=f"folder:{tmp_path / 'set'}"))
    assert images.classes == ("9", "10")  # by value
    assert label_of(images, "val/9/1.png") == 0
    assert [len(images.members(split)) for split in ("train", "val", "test")] == [6, 4, 4]
    assert {images.names[i].split("/")[0] for i in images.members("test")} == {"test"}


def test_csv_one_label(tmp_path):
    path = make_csv(tmp_path, "label, file", [f"{'b' if i % 2 else 'a'}, {i}.png" for i in range(6)])
    images = load(Source(data=f"csv:{path}"))
    assert images.classes == ("a", "b")
    assert label_of(images, "3.png") == 1
    np.testing.assert_array_equal(pixels_of(images, "3.png"), picture(3))


def test_csv_several_labels_and_a_split(tmp_path):
    rows = [f"{i}.png,{i % 2},{'True' if i > 2 else 'false'},{SPLITS[i % 3]}" for i in range(6)]
    path = make_csv(tmp_path, "file,odd,large,split", rows)
    images = load(Source(data=f"csv:{path}"))
    assert images.multilabel
    assert images.classes == ("odd", "large")
    assert images.labels.tolist() == [[i % 2, int(i > 2)] for i in range(6)]
    assert images.split.tolist() == [0, 1, 2] * 2
    large = load(Source(data=f"csv:{path}", task="large"))
    assert large.classes == ("not large", "large")
    assert large.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_csv_minus_one_is_no(tmp_path):
    path = make_csv(tmp_path, "file,a,b", [f"{i}.png,{1 if i % 2 else -1},{i % 2}" for i in range(6)])
    assert load(Source(data=f"csv:{path}")).labels.tolist() == [[i % 2, i % 2] for i in range(6)]


@pytest.mark.parametrize("channels", [1, 3])
def test_npz_gives_back_its_pixels(tmp_path, channels):
    x = np.stack([picture(i, channels=channels) for i in range(9)])
    split = np.array(["train", "val", "test"] * 3)
    y = np.array([3, 3, 3, 7, 7, 7, 7, 7, 7])
    images = load(Source(data=f"npz:{save_npz(tmp_path / 'a.npz', x=x, y=y, split=split)}"))
    assert images.images.shape == (9, channels, 6, 6)
    assert images.images.is_contiguous()
    np.testing.assert_array_equal(images.images.permute(0, 2, 3, 1).numpy().reshape(x.shape), x)
    assert images.classes == ("3", "7")
    assert images.labels.tolist() == [0] * 3 + [1] * 6
    assert images.split.tolist() == [0, 1, 2] * 3


def test_npz_many_labels_and_class_names(tmp_path):
    y = np.array([[i % 2, i // 4] for i in range(8)])
    names = np.array(["odd", "late"])
    path = save_npz(tmp_path / "a.npz", x=np.zeros((8, 4, 4), np.uint8), y=y, names=names)
    assert load(Source(data=f"npz:{path}", task="late")).labels.tolist() == y[:, 1].tolist()
    path = save_npz(tmp_path / "b.npz", y=np.arange(8) % 2, names=names)
    assert load(Source(data=f"npz:{path}")).classes == ("odd", "late")


def test_celeba_labels_people_and_a_test_split_out_of_val(tmp_path):
    spec = f"celeba:{make_celeba(tmp_path / 'set')}"
    images = load(Source(data=spec))
    assert images.images.shape == (24, 3, 18, 18)  # 18×22 loses top and bottom
    assert images.classes == ATTRIBUTES
    assert images.labels[:, 1].tolist() == [i % 2 for i in range(24)]
    assert images.groups.tolist() == [i // 2 for i in range(24)]
    assert images.split[:12].tolist() == [0] * 12
    assert [len(images.members(split)) for split in ("val", "test")] == [6, 6]
    assert abs(int(pixels_of(images, "000009.jpg").mean()) - 80) <= 1
    young = load(Source(data=spec, task="Young"))
    assert young.split.tolist() == images.split.tolist()  # one test split for all tasks
    assert load(Source(data=spec, split_seed=1)).split.tolist() != images.split.tolist()


def test_resize_crops_the_centre_and_averages(tmp_path):
    """Left half black, right half white, margins red above and below: the margins are cut off."""
    pixels = np.zeros((80, 40, 3), np.uint8)
    pixels[:, 20:] = 255
    pixels[:20] = pixels[60:] = (255, 0, 0)
    for i in range(3):
        for name in ("a", "b"):
            save(tmp_path / "set" / name / f"{i}.png", pixels)
    small = load(Source(data=f"folder:{tmp_path / 'set'}", image_size=10)).images[0]
    assert small.shape == (3, 10, 10)
    assert (small[:, :, :4] <= 5).all()
    assert (small[:, :, 6:] >= 250).all()


def test_resize_has_no_aliasing(tmp_path):
    """A one-pixel chequerboard becomes its mean; taking every eighth pixel would give 0 or 255."""
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    x = np.stack([board] * 8)
    small = load(Source(data=f"npz:{save_npz(tmp_path / 'a.npz', x=x)}", image_size=8)).images
    assert small.shape == (8, 1, 8, 8)
    assert (small.float() - 127.5).abs().max() <= 3


def test_large_jpeg_is_as_its_full_decoding(tmp_path):
    """Pillow's fast reduced decoding must not show: within 6 of 255 of a plain box average."""
    root = tmp_path / "set"
    ramp = np.linspace(0, 255, 800, dtype=np.uint8)
    pixels = np.stack([np.tile(ramp, (800, 1)), np.tile(ramp[:, None], (1, 800)), np.full((800, 800), 90)], axis=2)
    for name in ("a", "b"):
        for i in range(3):
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.jpg", quality=95)
    image = load(Source(data=f"folder:{root}", image_size=20)).images[0]
    mean = pixels.reshape(20, 40, 20, 40, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
    assert np.abs(image.numpy().astype(float) - mean).max() <= 6


def test_exif_orientation_is_followed(tmp_path):
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, :4] = 255  # white at the left; turned by 90° clockwise, at the top
    turned = Image.Exif()
    turned[0x0112] = 6
    for name in ("a", "b"):
        for i in range(3):
            path = tmp_path / "set" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).resize((64, 32), Image.Resampling.NEAREST).save(path, exif=turned)
    image = load(Source(data=f"folder:{tmp_path / 'set'}")).images[0]
    assert image.shape == (3, 32, 32)
    assert (image[:, :16] == 255).all()
    assert (image[:, 16:] == 0).all()


def test_transparent_pixels_are_white_and_give_no_warning(tmp_path):
    root = make_folder(tmp_path / "set")
    Image.fromarray(picture(0)).quantize(8).save(root / "cat" / "p.png", transparency=bytes([0, 128, 255]))
    Image.fromarray(np.dstack([picture(1), np.zeros((6, 6), np.uint8)])).save(root / "cat" / "t.png")
    images = load(Source(data=f"folder:{root}"))
    assert (pixels_of(images, "cat/t.png") == 255).all()


@pytest.mark.slow
@pytest.mark.skipif(not CELEBA.is_dir(), reason="NOGS_CELEBA names no CelebA")
def test_real_celeba_people_never_cross(tmp_path):
    (tmp_path / "set").mkdir()
    for name in ("list_attr_celeba.txt", "list_eval_partition.txt", "identity_CelebA.txt"):
        lines = (CELEBA / name).read_text().splitlines()
        head = 2 if "attr" in name else 0
        (tmp_path / "set" / name).write_text("\n".join(lines[:head] + lines[-600:]))
    (tmp_path / "set" / "img_align_celeba").symlink_to(CELEBA / "img_align_celeba")
    partition = tmp_path / "set" / "list_eval_partition.txt"
    names = [line.split()[0] for line in partition.read_text().splitlines()]
    people = dict(line.split() for line in (CELEBA / "identity_CelebA.txt").read_text().splitlines())
    partition.write_text("\n".join(f"{name} {int(people[name]) % 2}" for name in names))
    images = load(Source(data=f"celeba:{tmp_path / 'set'}", task="Smiling", image_size=32))
    assert images.images.shape == (600, 3, 32, 32)
    for group in images.groups.unique():
        assert len(images.split[images.groups == group].unique()) == 1
    assert 20 < images.images.float().mean() < 235
