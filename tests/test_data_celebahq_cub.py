"""CelebA-HQ and CUB in miniature: official layouts, the paper's splits, crops by hand, and every mistake's line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nogs
from nogs.config.groups import Source
from nogs.data import load
from nogs.data.sources.cub import cub_parts
from nogs.errors import UserError
from nogs.sequences.table import load_sequences

INDICES = (0, 1, 26_999, 27_000, 27_499, 27_500, 29_999)
ATTRIBUTES = "CelebAMask-HQ-attribute-anno.txt"


@pytest.fixture(autouse=True)
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOGS_CACHE", str(tmp_path / "cache"))


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def make_celebahq(root: Path, *, images: str = "CelebA-HQ-img/{}.png") -> Path:
    """Seven images, one colour each, on both sides of every border of the splits; Young is the parity."""
    rows = []
    for number, index in enumerate(INDICES):
        save(root / images.format(index), np.full((6, 6, 3), 10 * number, dtype=np.uint8))
        rows.append(f"{index}.jpg {'1' if number % 2 else '-1'}  -1")
    (root / ATTRIBUTES).write_text("\n".join([str(len(rows)), "Young Bald", *rows]))
    return root


def make_cub(root: Path) -> Path:
    """Six grey gradients 20 wide and 16 high, of two species: pixel (row, column) is 10 row + column."""
    gradient = (10 * np.arange(16)[:, None] + np.arange(20)).astype(np.uint8)
    table: dict[str, list[str]] = {name: [] for name in ("images", "image_class_labels", "train_test_split")}
    for i in range(1, 13):
        name = f"00{1 + i % 2}.Bird/{i}.png"
        save(root / "images" / name, gradient)
        table["images"].append(f"{i} {name}")
        table["image_class_labels"].append(f"{i} {1 + i % 2}")
        table["train_test_split"].append(f"{i} {int(i <= 8)}")
    table["classes"] = ["1 001.Auk", "2 002.Bunting"]
    table["bounding_boxes"] = ["1 6.0 4.0 8.0 6.0", *(f"{i} 0.0 0.0 8.0 6.0" for i in range(2, 13))]
    table["parts/parts"] = ["1 beak", "2 left eye", "3 right eye", "4 left leg"]
    table["parts/part_locs"] = ["1 1 10.0 7.0 1", "1 2 0.0 0.0 0", "1 3 7.0 4.0 1", "1 4 4.0 1.0 1", "2 1 5.0 3.5 1"]
    (root / "parts").mkdir()
    for name, lines in table.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def message(spec: str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(Source(data=spec, **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_celebahq_has_the_papers_splits_by_index(tmp_path: Path) -> None:
    images = load(Source(data=f"celebahq:{make_celebahq(tmp_path / 'set')}", task="Young"))
    assert images.names == tuple(map(str, INDICES))
    assert images.split.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert images.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert images.images[:, 0, 0, 0].tolist() == [10 * number for number in range(7)]


def test_celebahq_images_may_lie_in_a_data_folder_under_padded_names(tmp_path: Path) -> None:
    root = make_celebahq(tmp_path / "set", images="data128x128/imgHQ{:05}.png")
    assert load(Source(data=f"celebahq:{root}")).names == tuple(map(str, INDICES))


def test_celebahq_people_are_groups_within_a_split(tmp_path: Path) -> None:
    root = make_celebahq(tmp_path / "set")
    mapping = [f"{index} {i} {i:06}.jpg" for i, index in enumerate(INDICES)]
    (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(["idx orig_idx orig_file", *mapping]))
    people = (7, 7, 8, 7, 7, 7, 9)  # person 7 is in all three splits
    (root / "identity_CelebA.txt").write_text("\n".join(f"{i:06}.jpg {who}" for i, who in enumerate(people)))
    groups = load(Source(data=f"celebahq:{root}")).groups.tolist()
    same = [[groups[i] == groups[j] for j in range(7)] for i in range(7)]
    split = (0, 0, 0, 1, 1, 2, 2)
    assert same == [[people[i] == people[j] and split[i] == split[j] for j in range(7)] for i in range(7)]
    replace(root / "CelebA-HQ-to-CelebA-mapping.txt", "1 1 000001.jpg", "1 000001.jpg")
    assert "mapping.txt line 3: '1 000001.jpg' is not an index" in message(f"celebahq:{root}")


def test_bad_celebahq(tmp_path: Path) -> None:
    root = make_celebahq(tmp_path / "set")
    (root / "CelebA-HQ-img" / "1.png").unlink()
    assert "line 4 (1.jpg): there is no image 1 in" in message(f"celebahq:{root}")
    assert len(load(Source(data=f"celebahq:{root}", skip_bad=True))) == 6
    replace(root / ATTRIBUTES, "0.jpg -1", "0.jpg 0")
    assert "line 3 (0.jpg): Young is '0', not -1 or 1 (2 such in all)" in message(f"celebahq:{root}")
    (root / "data128").mkdir()
    assert "CelebA-HQ-img or data128; leave one" in message(f"celebahq:{root}")
    (root / ATTRIBUTES).unlink()
    assert f"{ATTRIBUTES} is missing" in message(f"celebahq:{root}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ATTRIBUTES).write_text("1\nYoung\n0.jpg 1\n")
    assert "has no folder CelebA-HQ-img" in message(f"celebahq:{tmp_path / 'empty'}")


def test_cub_is_cropped_to_one_and_a_half_boxes(tmp_path: Path) -> None:
    images = load(Source(data=f"cub:{make_cub(tmp_path / 'set')}", image_size=12))
    # by hand: the box's longer side is 8, its centre column 10 and row 7, so columns 4..15 and rows 1..12
    np.testing.assert_array_equal(images.images[0, 0], 10 * np.arange(1, 13)[:, None] + np.arange(4, 16))
    # and at the corner centre column 4, row 3, so columns 0..9 and rows 0..8 are all that there is, stretched
    assert images.images[1, 0, 0, 0] < 10
    assert abs(int(images.images[1, 0, -1, -1]) - (10 * 8 + 9)) < 5
    assert images.classes == ("001.Auk", "002.Bunting")
    assert images.labels.tolist() == [i % 2 for i in range(1, 13)]
    assert images.names[0] == "002.Bird/1.png"
    assert images.split[8:].tolist() == [2] * 4
    assert sorted(images.split[:8].tolist()) == [0] * 6 + [1] * 2  # one of each species, by seed


def test_cub_parts_are_where_the_crop_puts_them(tmp_path: Path) -> None:
    root = make_cub(tmp_path / "set")
    parts = cub_parts(root, root / "parts" / "part_locs.txt", image_px=24)
    # image 1: 12 pixels from (1, 4) become 24; image 2: 9 rows and 10 columns from (0, 0) become 24
    assert parts["002.Bird/1.png"] == {"beak": (12.0, 12.0), "eye": (6.0, 6.0), "feet": (0.0, 0.0)}
    assert parts["001.Bird/2.png"]["beak"] == pytest.approx((3.5 * 24 / 9, 12.0))


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        (
            "images.txt",
            "3 002.Bird/3.png",
            "3 002.Bird/33.png",
            "images.txt image 3 (002.Bird/33.png): there is no such",
        ),
        ("images.txt", "3 002.Bird/3.png", "3 a b", "images.txt line 3: '3 a b' is not a number and 1 field"),
        ("image_class_labels.txt", "3 2", "3 5", "image 3 (002.Bird/3.png): image_class_labels.txt has no class of"),
        ("image_class_labels.txt", "3 2", "2 2", "image_class_labels.txt line 3: 2 is there twice"),
        ("train_test_split.txt", "3 1", "3 2", "image 3 (002.Bird/3.png): train_test_split.txt has no 0 or 1"),
        ("bounding_boxes.txt", "3 0.0 0.0 8.0", "3 0.0 0.0 x", "image 3 (002.Bird/3.png): bounding_boxes.txt has no x"),
        ("bounding_boxes.txt", "3 0.0 0.0 8.0", "3 0.0 0.0 -8.0", "bounding_boxes.txt has no x, y, width and height"),
    ],
)
def test_bad_cub(tmp_path: Path, file: str, old: str, new: str, reason: str) -> None:
    root = make_cub(tmp_path / "set")
    replace(root / file, old, new)
    assert reason in message(f"cub:{root}", image_size=12)


def test_cub_without_one_of_its_files_or_a_size(tmp_path: Path) -> None:
    root = make_cub(tmp_path / "set")
    (root / "classes.txt").rename(tmp_path / "classes.txt")
    assert "classes.txt is missing" in message(f"cub:{root}")
    (tmp_path / "classes.txt").rename(root / "classes.txt")
    save(root / "images" / "001.Bird/2.png", np.zeros((9, 9), dtype=np.uint8))
    assert "give `image_size`" in message(f"cub:{root}")


def test_cub_crops_are_part_of_the_caches_key(tmp_path: Path) -> None:
    root = make_cub(tmp_path / "set")
    first = load(Source(data=f"cub:{root}", image_size=12)).images[0].clone()
    replace(root / "bounding_boxes.txt", "1 6.0 4.0", "1 5.0 4.0")
    assert (load(Source(data=f"cub:{root}", image_size=12)).images[0] != first).any()


def test_cub_parts_become_sequences(tmp_path: Path) -> None:
    root = make_cub(tmp_path / "set")
    config = nogs.ImportSequences(
        nogs.Machine(tmp_path / "out"),
        Source(data=f"cub:{root}", image_size=24),
        nogs.Geometry(glimpse_size=8, stride=8, glimpses=3),
        parts=root / "parts" / "part_locs.txt",
        parts_order=("beak", "eye", "feet"),
    )
    found = load_sequences(nogs.import_sequences(config))
    # centres of cells are at 4, 12 and 20; image 2 has its beak at (9.3, 12) and no other part
    by_hand = {0: [4, 0, 0], 1: [4, 4, 4]}
    train = [image for image in by_hand if load(config.source).split[image] == 0]
    assert train
    assert found.images.tolist() == train
    assert found.cells.tolist() == [by_hand[image] for image in train]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("1 3 7.0", "1 9 7.0", "part_locs.txt line 3: '1 9 7.0 4.0 1' is not an image, a part"),
        ("1 3 7.0", "1 3 x", "part_locs.txt line 3: 'x' is not a number of pixels"),
        ("1 3 7.0 4.0 1", "1", "part_locs.txt line 3: '1' is not an image, a part"),
    ],
)
def test_bad_cub_parts(tmp_path: Path, old: str, new: str, reason: str) -> None:
    root = make_cub(tmp_path / "set")
    replace(root / "parts" / "part_locs.txt", old, new)
    with pytest.raises(UserError) as caught:
        cub_parts(root, root / "parts" / "part_locs.txt", image_px=24)
    assert reason in str(caught.value)
