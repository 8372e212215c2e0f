"""Data: what goes in comes out pixel for pixel, groups stay together, and every mistake has its line."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from nogs.config import Source
from nogs.data import SPLITS, ImageSet, cache, fingerprint, load
from nogs.data.digits import digits
from nogs.data.splits import complete, cut
from nogs.errors import UserError

CELEBA = Path(os.environ.get("NOGS_CELEBA", "unset"))  # real photographs, where a developer has them
ATTRIBUTES = ("Smiling", "Young", "Bald")


@pytest.fixture(autouse=True)
def cached(tmp_path, monkeypatch):
    place = tmp_path / "cache"
    monkeypatch.setenv("NOGS_CACHE", str(place))
    return place


def picture(seed, side=6, channels=3):
    shape = (side, side, 3) if channels == 3 else (side, side)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def make_folder(root, classes=("cat", "dog"), each=6, **kinds):
    for c, name in enumerate(classes):
        for i in range(each):
            save(root / name / f"{i}.png", picture(100 * c + i, **kinds))
    return root


def make_csv(root, header="file,label", rows=None):
    for i in range(6):
        save(root / f"{i}.png", picture(i))
    lines = [f"{i}.png,{i % 2}" for i in range(6)] if rows is None else rows
    (root / "table.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return root / "table.csv"


def make_celeba(root, *, people=12, partition=lambda person: int(person >= 6)):
    """Two images a person; each image is one colour, Young is the image's parity."""
    rows, parts, identities = [], [], []
    for i in range(2 * people):
        name, person = f"{i + 1:06d}.jpg", i // 2
        save(root / "img_align_celeba" / name, np.full((22, 18, 3), 10 * i, dtype=np.uint8))
        rows.append(f"{name} {'1' if person % 3 else '-1'}  {'1' if i % 2 else '-1'} -1")
        parts.append(f"{name} {partition(person)}")
        identities.append(f"{name} {person}")
    (root / "list_attr_celeba.txt").write_text("\n".join([str(2 * people), " ".join(ATTRIBUTES), *rows]))
    (root / "list_eval_partition.txt").write_text("\n".join(parts))
    (root / "identity_CelebA.txt").write_text("\n".join(identities))
    return root


def save_npz(path, **arrays):
    """``x`` and ``y`` of eight images unless given; None leaves an array out."""
    x = np.stack([picture(i, channels=1) for i in range(8)])
    defaults = {"x": x, "y": np.arange(8) % 2}
    np.savez(path, **{k: v for k, v in {**defaults, **arrays}.items() if v is not None})
    return path


def pixels_of(images: ImageSet, name: str) -> np.ndarray:
    """[H, H, c], as Pillow has it."""
    return images.images[images.names.index(name)].permute(1, 2, 0).numpy()


def label_of(images: ImageSet, name: str):
    return images.labels[images.names.index(name)].tolist()


def message(spec, **options) -> str:
    with pytest.raises(UserError) as caught:
        load(Source(data=spec, **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- round trips: every source against the pixels that were written


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


# --- geometry


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


def test_palette_with_transparency_warns_of_nothing(tmp_path):
    root = make_folder(tmp_path / "set")
    Image.fromarray(picture(0)).quantize(8).save(root / "cat" / "p.png", transparency=bytes([0, 128, 255]))
    Image.fromarray(np.dstack([picture(1), np.zeros((6, 6), np.uint8)])).save(root / "cat" / "t.png")
    images = load(Source(data=f"folder:{root}"))
    np.testing.assert_array_equal(pixels_of(images, "cat/t.png"), picture(1))


# --- digits


def test_digits_are_there_and_their_groups_never_cross_splits():
    images = digits(40, 3, canvases=(1300, 300, 300))
    assert images.images.shape == (1900, 1, 40, 40)
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
    images = digits(30, 0, enlarge=2, fragments=0, canvases=(20, 20, 20))
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
    clean = digits(32, 0, enlarge=2, fragments=0, canvases=(50, 5, 5))
    busy = digits(32, 0, enlarge=2, fragments=6, fragment_px=5, canvases=(50, 5, 5))
    train = slice(0, 50)  # the first draws are alike, so the digits lie alike
    assert (busy.images[train] >= clean.images[train]).all()
    assert (busy.images[train].float().mean() - clean.images[train].float().mean()) > 5


def test_digits_are_determined_by_the_seed_and_quick():
    start = time.perf_counter()
    one = load(Source())
    assert time.perf_counter() - start < 10
    assert one.images.shape == (15_000, 1, 48, 48)
    assert len(one.members("train")) == 12_000
    assert fingerprint(one) == fingerprint(load(Source()))
    assert fingerprint(one) != fingerprint(load(Source(split_seed=1)))
    assert load(Source(image_size=60)).images.shape[2:] == (60, 60)


# --- splits


def test_cut_takes_the_share_of_every_stratum_and_whole_groups():
    groups = np.repeat(np.arange(200), 3)
    strata = np.repeat(np.arange(200) % 4, 3)
    drawn = cut(np.ones(600, dtype=np.bool_), strata, groups=groups, share=0.2, seed=5)
    assert np.bincount(strata[drawn]).tolist() == [30] * 4
    assert set(np.unique(groups[drawn])) & set(np.unique(groups[~drawn])) == set()


def test_a_split_is_made_80_10_10_with_every_class_in_train():
    labels = np.repeat([0, 1, 2, 3], [500, 300, 3, 2]).astype(np.int64)
    split = complete(None, labels, groups=np.arange(805), seed=0)
    assert np.bincount(split[labels == 0]).tolist() == [400, 50, 50]
    assert np.bincount(split[labels == 1]).tolist() == [240, 30, 30]
    assert np.bincount(split[labels == 2]).tolist() == [1, 1, 1]
    assert (split[labels == 3] == 0).sum() == 1
    again = complete(None, labels, groups=np.arange(805), seed=0)
    other = complete(None, labels, groups=np.arange(805), seed=1)
    assert (split == again).all()
    assert (split != other).any()


@pytest.mark.parametrize(("given", "counts"), [((0, 1), [60, 20, 20]), ((0, 2), [54, 6, 40]), ((0,), [80, 10, 10])])
def test_missing_splits_are_cut_by_the_table(given, counts):
    sizes = {(0, 1): [60, 40], (0, 2): [60, 40], (0,): [100]}[given]
    split = complete(
        np.repeat(np.array(given, dtype=np.int64), sizes),
        np.zeros(100, dtype=np.int64),
        groups=np.arange(100),
        seed=0,
    )
    assert np.bincount(split).tolist() == counts
    assert (split[: sizes[0]] != 2).all() or given == (0,)  # test never comes out of a train split that was given


def test_splits_hold_groups_together():
    groups = np.random.default_rng(0).integers(0, 60, 400)
    labels = np.zeros((400, 5), dtype=np.int64)
    for given in (None, (groups % 2).astype(np.int64)):
        split = complete(given, labels, groups=groups, seed=2)
        assert all(len(np.unique(split[groups == group])) == 1 for group in np.unique(groups))


def test_a_group_in_two_given_splits_is_refused():
    with pytest.raises(UserError, match="group 4 are in train and test"):
        complete(np.array([0, 0, 1, 2]), np.zeros(4, dtype=np.int64), groups=np.array([1, 4, 2, 4]), seed=0)


# --- cache and fingerprint


def test_second_load_is_mapped_from_the_cache_and_equal(tmp_path, cached, monkeypatch):
    spec = f"folder:{make_folder(tmp_path / 'set')}"
    first = load(Source(data=spec))
    assert [path.suffix for path in cached.iterdir()] == [".npy"]
    monkeypatch.setattr(cache, "survey", None)  # decoding again would fail
    second = load(Source(data=spec))
    assert fingerprint(first) == fingerprint(second)
    second.images[0] = 0  # copy on write: allowed, and never reaches the file
    assert fingerprint(load(Source(data=spec))) == fingerprint(first)


def test_cache_knows_changed_files_and_sizes(tmp_path, cached):
    root = make_folder(tmp_path / "set")
    load(Source(data=f"folder:{root}"))
    save(root / "cat" / "0.png", picture(999))
    images = load(Source(data=f"folder:{root}"))
    np.testing.assert_array_equal(pixels_of(images, "cat/0.png"), picture(999))
    assert load(Source(data=f"folder:{root}", image_size=4)).images.shape[2] == 4
    assert len(list(cached.glob("*.npy"))) == 3


@pytest.mark.parametrize("harm", ["truncated", "empty", "rubbish", "fewer"])
def test_damaged_cache_is_made_again(tmp_path, cached, harm):
    spec = f"folder:{make_folder(tmp_path / 'set')}"
    first = load(Source(data=spec))
    (place,) = cached.glob("*.npy")
    whole = place.read_bytes()
    if harm == "fewer":
        place.unlink()
        np.save(place, first.images[:5].numpy())
    else:
        cut_off = {"truncated": whole[:-1], "empty": b"", "rubbish": b"rubbish" * 50}[harm]
        place.unlink()
        place.write_bytes(cut_off)
    assert fingerprint(load(Source(data=spec))) == fingerprint(first)
    assert place.read_bytes() == whole


def test_killed_while_decoding_leaves_nothing_that_is_taken_as_whole(tmp_path, cached, monkeypatch):
    spec = f"folder:{make_folder(tmp_path / 'set')}"

    def dies(files, frame):
        yield np.zeros((3, 6, 6), dtype=np.uint8)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache, "decode", dies)
        with pytest.raises(KeyboardInterrupt):
            load(Source(data=spec))
    assert list(cached.iterdir()) == []
    old = cached / "killed.1.partial"
    old.write_bytes(b"half")
    os.utime(old, (0, 0))
    np.testing.assert_array_equal(pixels_of(load(Source(data=spec)), "cat/0.png"), picture(0))
    assert not old.exists()


def test_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    spec = f"folder:{make_folder(tmp_path / 'set')}"
    with_cache = fingerprint(load(Source(data=spec)))
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("NOGS_CACHE", str(tmp_path / "a file" / "below"))
    assert fingerprint(load(Source(data=spec))) == with_cache


def test_cache_directory(monkeypatch):
    monkeypatch.delenv("NOGS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache.directory() == Path("/x/nogs")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/h")
    assert cache.directory() == Path("/h/.cache/nogs")


def test_fingerprint_sees_every_part():
    images = digits(40, 0, canvases=(40, 20, 20))
    prints = {fingerprint(images)}
    for name in ("images", "labels", "split"):
        other = getattr(images, name).clone()
        other.view(-1)[-1] ^= 1
        prints.add(fingerprint(replace(images, **{name: other})))
    prints.add(fingerprint(replace(images, classes=tuple("abcdefghij"))))
    assert len(prints) == 5


# --- mistakes: one line, that names the file, row or flag, and the fix


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("digit", "did you mean digits?"),
        ("digits:/x", "take no path"),
        ("foldr:/x", "did you mean folder:/x?"),
        ("nothing", "choose one of digits, folder:PATH"),
        ("csv:", "give its path"),
        ("csv:~nobody-of-this-name/a.csv", "nobody has the home folder"),
        ("folder:/no/such/place", "/no/such/place does not exist"),
    ],
)
def test_bad_spec(spec, says):
    text = message(spec)
    assert says in text
    assert f"--data {spec}" in text


def test_spec_of_a_folder_without_its_kind_and_of_the_wrong_kind(tmp_path):
    assert f"did you mean folder:{tmp_path}?" in message(str(tmp_path))
    assert "is a folder, not a file" in message(f"csv:{tmp_path}")
    (tmp_path / "f").write_text("")
    assert "not a folder" in message(f"folder:{tmp_path / 'f'}")


def test_bad_sizes_and_tasks(tmp_path):
    assert "--image-size 0" in message("digits", image_size=0)
    assert "40 pixels wide" in message("digits", image_size=16)
    assert "one label only" in message("digits", task="Smiling")
    spec = f"celeba:{make_celeba(tmp_path / 'set')}"
    assert "--task Smilng does not exist: choose one of Smiling" in message(spec, task="Smilng")
    assert "--task Bald: all training images have the same label" in message(spec, task="Bald")


def test_bad_folders(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    assert "has no sub-folders" in message(f"folder:{root}")
    make_folder(root, classes=("cat",))
    assert "only one class, cat" in message(f"folder:{root}")
    (root / "empty").mkdir()
    assert "class folder empty has no images" in message(f"folder:{root}")
    save(root / "empty" / "0.png", picture(0))
    assert "class empty has 1 image, which cannot be split" in message(f"folder:{root}")
    make_folder(root / "empty")
    assert "holds images only" in message(f"folder:{root}")


def test_bad_split_folders(tmp_path):
    root = tmp_path / "set"
    make_folder(root / "train", classes=("cat", "dog"))
    make_folder(root / "val", classes=("cat", "cow"))
    assert "class cow has no training image" in message(f"folder:{root}")
    (root / "val").rename(root / "valid")
    assert "beside train/ there may be only val/ and test/" in message(f"folder:{root}")


def test_images_of_different_sizes(tmp_path):
    root = make_folder(tmp_path / "set")
    save(root / "dog" / "3.png", picture(0, side=7))
    text = message(f"folder:{root}")
    assert str(root / "dog" / "3.png") in text
    assert f"is 7x7 pixels, but {root / 'cat' / '0.png'} is 6x6" in text
    assert "--image-size" in text
    assert load(Source(data=f"folder:{root}", image_size=6)).images.shape == (12, 3, 6, 6)
    assert len(load(Source(data=f"folder:{root}", skip_bad=True))) == 11


@pytest.fixture
def damaged(tmp_path):
    """12 good images and three that are not; one of these can be told only by decoding it."""
    root = make_folder(tmp_path / "set", side=64)
    (root / "cat" / "a.png").write_bytes(b"no image")
    Image.fromarray(picture(5, side=64)).save(root / "cat" / "b.jpg")
    whole = (root / "cat" / "b.jpg").read_bytes()
    (root / "cat" / "b.jpg").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.full((64, 64), 40_000, np.uint16)).save(root / "dog" / "c.png")
    return root


def test_bad_images_stop_before_training(damaged):
    text = message(f"folder:{damaged}")
    assert f"{damaged / 'cat' / 'a.png'}: is not an image" in text
    assert "3 such in all" in text
    assert "--skip-bad" in text
    (damaged / "cat" / "a.png").unlink()
    assert f"{damaged / 'cat' / 'b.jpg'}: cannot be decoded" in message(f"folder:{damaged}")
    (damaged / "cat" / "b.jpg").unlink()
    assert "more than 8 bits" in message(f"folder:{damaged}")


def test_skip_bad_lists_and_leaves_out_also_from_the_cache(damaged, cached, capsys):
    source = Source(data=f"folder:{damaged}", skip_bad=True)
    first = load(source)
    heard = capsys.readouterr().err
    assert "left out 3" in heard
    assert all(name in heard for name in ("a.png", "b.jpg", "c.png"))
    assert len(first) == 12
    assert first.labels.tolist() == [0] * 6 + [1] * 6
    np.testing.assert_array_equal(pixels_of(first, "dog/5.png"), picture(105, side=64))
    (beside,) = cached.glob("*.json")
    assert len(json.loads(beside.read_text())) == 3
    assert fingerprint(load(source)) == fingerprint(first)
    assert capsys.readouterr().err == heard
    assert "3 such in all" in message(f"folder:{damaged}")


def test_nothing_left_after_skipping(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "x.png").write_bytes(b"")
    assert "no usable image" in message(f"folder:{tmp_path / 'set'}", skip_bad=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path):
    root = make_folder(tmp_path / "set")
    (root / "cat" / "2.png").chmod(0)
    assert "2.png: cannot be read: Permission denied" in message(f"folder:{root}")
    (root / "cat").chmod(0)
    try:
        assert "Permission denied" in message(f"folder:{root}")
    finally:
        (root / "cat").chmod(0o700)


def test_no_permission_is_one_line(tmp_path, monkeypatch):
    """As above, for testers who are root."""

    def refuse(*_):
        raise PermissionError(13, "Permission denied", "/secret")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert "cannot read /secret: Permission denied" in message(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("header", "rows", "says"),
    [
        ("path,label", ["0.png,1"], "no column 'file' (but path, label)"),
        ("file,split", ["0.png,train"], "no label column"),
        ("file,a,a", ["0.png,1,1"], "two columns are called 'a'"),
        ("file,label", ["0.png,1", "99.png,0"], "line 3: column file: there is no file '99.png'"),
        ("file,label", ["0.png,1", "", "1.png,nan"], "line 4: column label: the label is missing ('nan')"),
        (
            "file,label",
            ["0.png,", "1.png,"],
            "line 2: column label: the label is missing ('') (2 such in all)",
        ),
        ("file,label", ["0.png,1,2"], "line 2: has 3 fields for 2 columns"),
        ("file,label", ["0.png,1", "0.png,0"], "line 3: column file: 0.png is already in line 2"),
        ("file,a,b", ["0.png,1,2"], "line 2: column b: '2' is not 0 or 1"),
        ("file,a,b", ["0.png,1,0", "1.png,0,-1", "2.png,1,1"], "line 3, column b: has -1 beside 0"),
        ("file,label,split", ["0.png,1,valid"], "line 2: column split: 'valid' is not train, val or test"),
        ("file,label,split", ["0.png,1,val", "1.png,0,val"], "no image is in the train split"),
        ("file,label", [f"{i}.png,a" for i in range(6)], "only one class, a"),
        ("file,label", ["0.png,a", "1.png,b", "2.png,b"], "class a has 1 image"),
        ("file,label", ["0.png,a", "1.png,b", "2.png,b", "3.png,a"], "too few to make a val split"),
    ],
)
def test_bad_csv(tmp_path, header, rows, says):
    assert says in message(f"csv:{make_csv(tmp_path, header, rows)}")


def test_csv_that_is_none(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("")
    assert "is empty" in message(f"csv:{path}")
    path.write_bytes(b"file,label\n\xff\xfe,1\n")
    assert "not a CSV file in UTF-8" in message(f"csv:{path}")


def test_csv_names_the_row_of_an_image_that_cannot_be_read_and_skips_it(tmp_path, capsys):
    path = make_csv(tmp_path)
    (tmp_path / "2.png").write_bytes(b"no image")
    assert f"{path} line 4: {tmp_path / '2.png'}: is not an image" in message(f"csv:{path}")
    path.write_text(path.read_text() + "9.png,0\n")
    images = load(Source(data=f"csv:{path}", skip_bad=True, split_seed=1))
    assert images.names == ("0.png", "1.png", "3.png", "4.png", "5.png")
    assert images.labels.tolist() == [0, 1, 1, 0, 1]
    assert "left out 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"y": None}, "has no array y"),
        ({"x": None}, "has no array x"),
        ({"x": np.zeros((8, 4, 4), np.float32)}, "x is float32; save uint8"),
        ({"x": np.zeros((8, 3, 4, 4), np.uint8)}, "x is 8x3x4x4; save [N, H, W], or [N, H, W, 3]"),
        ({"x": np.zeros((0, 4, 4), np.uint8)}, "is empty"),
        ({"y": np.zeros(7, np.int64)}, "y has 7 rows, but x has 8"),
        ({"y": np.array([0, 1, 0, np.nan, 1, 0, 1, 0.5])}, "row 3: y is nan, not an integer (2 such in all)"),
        ({"y": np.array(list("abababab"))}, "y is <U1; save integers"),
        ({"y": np.array([0, 1, None, 0, 1, 1, 0, 1])}, "not a NumPy archive of plain arrays"),
        ({"y": np.zeros((8, 2, 2), np.int64)}, "y has 3 axes"),
        ({"y": np.zeros((8, 2), np.int64)}, "save names, a list of 2"),
        ({"y": np.full((8, 2), 2), "names": np.array(["a", "b"])}, "row 0: y of a is 2, not 0 or 1"),
        ({"y": np.arange(8), "names": np.array(["a", "b"])}, "row 2: y is 2, but names has 2: 0 to 1"),
        ({"names": np.array(["a", "a"])}, "each must be another"),
        ({"split": np.array(["train"] * 7 + ["dev"])}, "row 7: split is 'dev', not train, val or test"),
        ({"split": np.array(["train"])}, "split has 1 rows, but x has 8"),
        ({"split": np.arange(8)}, "save a list of strings"),
        ({"y": np.zeros(8, np.int64)}, "only one class, 0"),
    ],
)
def test_bad_npz(tmp_path, arrays, says):
    path = tmp_path / "a.npz"
    save_npz(path, **arrays)
    assert says in message(f"npz:{path}")


def test_npz_that_is_none_and_skipped_rows(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"PK rubbish")
    assert "not a NumPy archive" in message(f"npz:{path}")
    np.save(tmp_path / "b.npy", np.zeros(3))
    assert "not a NumPy archive" in message(f"npz:{tmp_path / 'b.npy'}")
    y = np.array([0, 1, 0, np.nan, 1, 0, 1, 0, 0, 1])
    path = save_npz(tmp_path / "c.npz", x=np.zeros((10, 4, 4), np.uint8), y=y)
    images = load(Source(data=f"npz:{path}", skip_bad=True))
    assert images.names == tuple("012456789")
    assert images.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 0, 1]


@pytest.mark.parametrize("name", ["list_attr_celeba.txt", "list_eval_partition.txt"])
def test_celeba_without_one_of_its_files(tmp_path, name):
    root = make_celeba(tmp_path / "set")
    (root / name).unlink()
    assert f"{name} is missing" in message(f"celeba:{root}")


def test_bad_celeba_rows(tmp_path):
    root = make_celeba(tmp_path / "set")
    (root / "img_align_celeba" / "000003.jpg").unlink()
    (root / "img_align_celeba" / "000007.jpg").unlink()
    text = message(f"celeba:{root}")
    assert "list_attr_celeba.txt line 5 (000003.jpg): there is no such image" in text
    assert "2 such in all" in text
    assert len(load(Source(data=f"celeba:{root}", skip_bad=True))) == 22
    attributes = root / "list_attr_celeba.txt"
    lines = attributes.read_text().splitlines()
    lines[2] = "000001.jpg 1 0 -1"
    lines[3] = "000002.jpg 1 1"
    attributes.write_text("\n".join(lines))
    assert "line 3 (000001.jpg): Young is '0', not -1 or 1 (4 such in all)" in message(f"celeba:{root}")
    attributes.write_bytes(b"\xff\xfe rubbish")
    assert "not CelebA's format" in message(f"celeba:{root}")


def test_celeba_people_in_two_splits_and_bad_identities(tmp_path):
    root = make_celeba(tmp_path / "set")
    identities = (root / "identity_CelebA.txt").read_text()
    (root / "identity_CelebA.txt").write_text(identities.replace("000001.jpg 0", "000001.jpg 11"))
    assert "group 11 are in train and" in message(f"celeba:{root}")
    (root / "identity_CelebA.txt").write_text("000001.jpg somebody")
    assert "identity_CelebA.txt line 1: '000001.jpg somebody' is not" in message(f"celeba:{root}")


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
