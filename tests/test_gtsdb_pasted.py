"""Signs pasted into street photographs, with both benchmarks made up in their official layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import nogs
from nogs.config.groups import Fit, Source
from nogs.data.composites import Composites
from nogs.data.imageset import SPLITS, ImageSet
from nogs.data.listing import Annotations
from nogs.data.sources import gtsdb_pasted, gtsrb
from nogs.data.sources.gtsdb import LIMITS
from nogs.errors import UserError

WIDTH, HEIGHT = 40, 24
SIGN = 14, 6, 22, 12
"""left, top, right and bottom of the sign in each photograph that has one, in pixels."""
NUMBERS = [*range(30), *range(600, 606)]
CROP_PX = 20


@pytest.fixture(autouse=True)
def few_composites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gtsdb_pasted, "COMPOSITES", 400)


def make(root: Path, *, kinds: tuple[int, ...] = (1, 2, 4, 6, 12)) -> Path:
    """Photograph k shows the limit 30 or 50 if k mod 5 is 1 or 2; others show the end of a limit, or nothing.

    The crops of class c are grey, of brightness 50 + 10 c, and of each of two tracks crops 8 to 10 are there.
    """
    photographs = root / "FullIJCNN2013"
    photographs.mkdir(parents=True)
    lines = []
    for number in NUMBERS:
        pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(photographs / f"{number:05}.ppm")
        if number % 5 in (1, 2, 3):
            left, top, right, bottom = SIGN
            lines.append(f"{number:05}.ppm;{left};{top};{right};{bottom};{(0, 1, 2, 6)[number % 5]}")
    (photographs / "gt.txt").write_text("\n".join(lines) + "\n")
    for kind in kinds:
        folder = root / "GTSRB" / "Final_Training" / "Images" / f"{kind:05}"
        folder.mkdir(parents=True)
        table = [gtsrb.HEADER]
        for track in range(2):
            for frame in (8, 9, 10):
                name = f"{track:05}_{frame:05}.ppm"
                PIL.Image.new("RGB", (CROP_PX, CROP_PX), (50 + 10 * kind,) * 3).save(folder / name)
                table.append(f"{name};{CROP_PX};{CROP_PX};4;4;16;16;{kind}")
        (folder / f"GT-{kind:05}.csv").write_text("\n".join(table) + "\n")
    return root


def read(root: Path, *, fit: Fit = "pad", skip_bad: bool = False) -> ImageSet:
    return nogs.load(Source(data=f"gtsdb-pasted:{root}", fit=fit, skip_bad=skip_bad))


def pasted(images: ImageSet) -> Composites:
    assert isinstance(images.images, Composites)
    return images.images


def kinds_of(composites: Composites) -> torch.Tensor:
    """The class of each paste, from the brightness of its cut-out; -1 if it is not drawn."""
    kinds = (composites.cutouts[composites.pastes[..., 0], 0, 0, 0].long() - 50) // 10
    return torch.where(composites.pastes[..., 3] > 0, kinds, -1)


def test_val_and_test_are_untouched_photographs_as_gtsdb_has_them(tmp_path: Path) -> None:
    root = make(tmp_path / "set")
    images, published = read(root), nogs.load(Source(data=f"gtsdb:{root / 'FullIJCNN2013'}", fit="pad"))
    place = {name: i for i, name in enumerate(published.names)}
    of_split = {split: images.members(split).tolist() for split in SPLITS[1:]}
    for i in of_split["val"] + of_split["test"]:
        torch.testing.assert_close(images.images[torch.tensor([i])][0], published.images[place[images.names[i]]])
        assert images.classes[images.labels[i]] == published.classes[published.labels[place[images.names[i]]]]
    assert sorted(images.names[i] for i in of_split["test"]) == [f"{n:05}.ppm" for n in NUMBERS if n >= 600]
    assert {int(images.labels[i]) for i in of_split["val"]} == {0, 1, 2}
    assert len(of_split["val"]) == 10  # a third of the 30 published for training


def test_composites_show_the_limit_that_their_label_names_on_training_photographs_without_one(tmp_path: Path) -> None:
    images = read(make(tmp_path / "set"))
    composites, train = pasted(images), set(images.members("train").tolist())
    kinds, rows = kinds_of(composites), torch.arange(len(NUMBERS), len(images))
    assert set(rows.tolist()) <= train
    limits = [images.classes[label] for label in images.labels[rows].tolist()]
    assert [LIMITS.get(kind, "none") for kind in kinds[rows, -1].tolist()] == limits
    assert set(kinds[rows, :-1].unique().tolist()) <= {-1, 6, 12}  # no limits, though 6 ends one
    for row in rows.tolist():
        photograph = int(composites.photograph[row])
        assert photograph in train
        assert images.classes[images.labels[photograph]] == "none"
        assert images.groups[row] == photograph


def test_circular_signs_are_pasted_as_circles(tmp_path: Path) -> None:
    composites = pasted(read(make(tmp_path / "set")))
    kinds = (composites.cutouts[:, 0, 0, 0].long() - 50) // 10
    assert composites.round.tolist() == [kind != 12 for kind in kinds.tolist()]  # 12: priority road, a diamond


def test_half_show_a_limit_each_as_often_and_some_have_other_signs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gtsdb_pasted, "COMPOSITES", 4000)
    images = read(make(tmp_path / "set"))
    shares = images.labels[len(NUMBERS) :].bincount() / 4000
    # six standard deviations of a share of 4,000 draws are below 0.05
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.25, 0.25]), rtol=0, atol=0.05)
    others = (kinds_of(pasted(images))[len(NUMBERS) :, :-1] >= 0).sum(1).bincount() / 4000
    torch.testing.assert_close(others, torch.tensor([1 / 3, 1 / 3, 1 / 3]), rtol=0, atol=0.05)


@pytest.mark.parametrize(("fit", "centre"), [("pad", (17.0, 18.0)), ("crop", (9.0, 10.0))])
def test_signs_are_pasted_where_signs_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fit: Fit, centre: tuple[float, float]
) -> None:
    """The centre of `SIGN` is at row 9 and column 18; padding adds 8 rows above, and the crop drops 8 columns."""
    monkeypatch.setattr(gtsdb_pasted, "MOVED", 0.0)
    monkeypatch.setattr(gtsdb_pasted, "RESIZED", (1.0, 1.0))
    _, row, column, side, _ = pasted(read(make(tmp_path / "set"), fit=fit)).pastes[-400:].flatten(0, 1).T
    drawn = side > 0
    sign_px = np.sqrt((SIGN[2] - SIGN[0]) * (SIGN[3] - SIGN[1]))
    assert set(side[drawn].tolist()) == {round(sign_px * (1 + 2 * gtsrb.MARGIN))}
    for first, middle in ((row, centre[0]), (column, centre[1])):
        assert (first + side / 2 - middle)[drawn].abs().max() <= 0.5


def test_the_same_seed_gives_the_same_composites_and_another_seed_others(tmp_path: Path) -> None:
    root = make(tmp_path / "set")
    one, again = read(root), read(root)
    other = nogs.load(Source(data=f"gtsdb-pasted:{root}", fit="pad", split_seed=1))
    assert torch.equal(pasted(one).pastes, pasted(again).pastes)
    assert not torch.equal(pasted(one).pastes, pasted(other).pastes)


def test_every_fifth_crop_is_used_cut_to_its_sign_with_a_margin(tmp_path: Path) -> None:
    root = make(tmp_path / "set")
    place = root / "GTSRB" / "Final_Training" / "Images" / "00001" / "00000_00009.ppm"
    pixels = np.zeros((CROP_PX, CROP_PX, 3), dtype=np.uint8)
    pixels[3:17, 3:17] = 60  # the sign, from 4 to 16, and a tenth of its side around it
    PIL.Image.fromarray(pixels).save(place)
    composites = pasted(read(root))
    assert len(composites.cutouts) == 10
    assert (composites.cutouts[0] == 60).all()


def test_crops_of_a_track_that_shows_a_held_out_sign_are_found() -> None:
    """Noise stands for signs: two crops of track 7 of class 1, of which one is seen brighter, larger and moved."""
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 200, (5, 3, 24, 24), dtype=np.uint8)
    about = Annotations(
        ("00007_00009.ppm", "00007_00019.ppm", "00008_00009.ppm", "00007_00009.ppm", "00009_00009.ppm"),
        np.array([1, 1, 1, 2, 1]),
        tuple("0123"),
    )
    seen = np.roll(crops[1], 1, axis=2).repeat(2, 1).repeat(2, 2) // 2 + 90
    others = rng.integers(0, 200, (3, 40, 40), dtype=np.uint8)
    found = gtsrb.showing(crops, about, [seen, others], np.array([1, 1]))
    assert found.tolist() == [True, True, False, False, False]
    assert not gtsrb.showing(crops, about, [seen], np.array([2])).any()
    assert not gtsrb.showing(crops, about, [], np.array([], dtype=np.int64)).any()


def test_signs_of_held_out_photographs_are_not_pasted(tmp_path: Path) -> None:
    """A test photograph shows the sign of the first crop of track 0 of class 1; track 1 is left."""
    root = make(tmp_path / "set")
    noise = np.random.default_rng(0)
    sign = noise.integers(0, 256, (14, 14, 3), dtype=np.uint8)
    crop = np.full((CROP_PX, CROP_PX, 3), 60, dtype=np.uint8)
    crop[3:17, 3:17] = sign
    PIL.Image.fromarray(crop).save(root / "GTSRB/Final_Training/Images/00001/00000_00009.ppm")
    photograph = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    photograph[5:19, 13:27] = sign
    PIL.Image.fromarray(photograph).save(root / "FullIJCNN2013" / "00601.ppm")
    table = root / "FullIJCNN2013" / "gt.txt"
    lines = [line for line in table.read_text().splitlines() if not line.startswith("00601")]
    table.write_text("\n".join([*lines, "00601.ppm;14;6;26;18;1"]) + "\n")
    composites = pasted(read(root))
    limits = composites.pastes[composites.pastes[..., 3] > 0][:, 0]
    assert 0 not in limits  # the first crop of the first class
    assert 1 in limits


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("00000_00019.ppm;20;20;4;4;16\n", r"GT-00012\.csv, row 8: is not Filename"),
        ("00000_00019.ppm;20;20;4;4;16;16;43\n", "row 8: is not Filename.* class from 0 to 42"),
        ("00000_00019.ppm;20;20;4;4;21;16;12\n", "row 8: a sign from 4,4 to 21,16 is not within 20x20 pixels"),
        ("00000_00019.ppm;20;20;4;4;16;16;12\n", r"00000_00019\.ppm"),
    ],
)
def test_a_crop_that_cannot_be_used_is_named(tmp_path: Path, rows: str, reason: str) -> None:
    root = make(tmp_path / "set")
    with (root / "GTSRB/Final_Training/Images/00012/GT-00012.csv").open("a") as table:
        table.write(rows)
    with pytest.raises(UserError, match=reason):
        read(root)
    assert read(root, skip_bad=True).skipped == 1


def test_a_limit_without_crops_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no crop of the limit 50"):
        read(make(tmp_path / "set", kinds=(1, 12)))


def test_photographs_that_all_show_a_limit_are_one_line(tmp_path: Path) -> None:
    root = make(tmp_path / "set")
    lines = [f"{number:05}.ppm;14;6;22;12;{1 + number % 2}" for number in NUMBERS]
    (root / "FullIJCNN2013" / "gt.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match="all training photographs show a limit"):
        read(root)


def test_a_folder_without_crops_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "FullIJCNN2013").mkdir()
    with pytest.raises(UserError, match=r"GTSRB.* is missing"):
        read(tmp_path)
    root = make(tmp_path / "set")
    for table in (root / "GTSRB").rglob("*.csv"):
        table.unlink()
    with pytest.raises(UserError, match="has no crops"):
        read(root)
