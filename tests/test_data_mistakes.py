"""Mistakes in the data: one line, that names the file, row or flag, and the fix."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nogs.config.groups import Source
from nogs.data import fingerprint, load
from sets import make_celeba, make_csv, make_folder, message, picture, pixels_of, save, save_npz

pytestmark = pytest.mark.usefixtures("cached")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("digit", "did you mean digits?"),
        ("digits:/x", "takes no path"),
        ("foldr:/x", "did you mean folder:/x?"),
        ("nothing", "choose one of digits, folder:PATH"),
        ("csv:", "give its path"),
        ("csv:~nobody-of-this-name/a.csv", "unknown user in ~nobody-of-this-name"),
        ("folder:/no/such/place", "/no/such/place does not exist"),
    ],
)
def test_bad_spec(spec, says):
    text = message(spec)
    assert says in text
    assert f"data={spec}" in text


def test_spec_of_a_folder_without_its_kind_and_of_the_wrong_kind(tmp_path):
    assert f"did you mean folder:{tmp_path}?" in message(str(tmp_path))
    assert "is a folder, not a file" in message(f"csv:{tmp_path}")
    (tmp_path / "f").write_text("")
    assert "not a folder" in message(f"folder:{tmp_path / 'f'}")


def test_bad_sizes_and_tasks(tmp_path):
    assert "image_size=0" in message("digits", image_size=0)
    assert "48 pixels wide" in message("digits", image_size=16)
    assert "one label only" in message("digits", task="Smiling")
    spec = f"celeba:{make_celeba(tmp_path / 'set')}"
    assert "task=Smilng does not exist: choose one of Smiling" in message(spec, task="Smilng")
    assert "task=Bald: all training images have the same label" in message(spec, task="Bald")


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
    assert "`image_size`" in text
    assert load(Source(data=f"folder:{root}", image_size=6)).images.shape == (12, 3, 6, 6)
    assert len(load(Source(data=f"folder:{root}", skip_bad=True))) == 11


@pytest.fixture
def damaged(tmp_path):
    """12 good images and three that are not, of which one shows its damage only when it is decoded."""
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
    assert "skip_bad=True" in text
    (damaged / "cat" / "a.png").unlink()
    assert f"{damaged / 'cat' / 'b.jpg'}: cannot be decoded" in message(f"folder:{damaged}")
    (damaged / "cat" / "b.jpg").unlink()
    assert "more than 8 bits" in message(f"folder:{damaged}")


def test_skip_bad_lists_and_leaves_out_also_from_the_cache(damaged, cached, capsys):
    source = Source(data=f"folder:{damaged}", skip_bad=True)
    first = load(source)
    printed = capsys.readouterr().err
    assert "left out 3" in printed
    assert all(name in printed for name in ("a.png", "b.jpg", "c.png"))
    assert len(first) == 12
    assert first.labels.tolist() == [0] * 6 + [1] * 6
    np.testing.assert_array_equal(pixels_of(first, "dog/5.png"), picture(105, side=64))
    (beside,) = cached.glob("*.json")
    assert len(json.loads(beside.read_text())) == 3
    assert fingerprint(load(source)) == fingerprint(first)
    assert capsys.readouterr().err == printed
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
        ("file,label,split", ["0.png,1,valid"], "line 2: column split: 'valid' is not train, val, test or unlabelled"),
        ("file,label,split", ["0.png,1,val", "1.png,0,val"], "no image is in the train split"),
        ("file,label", [f"{i}.png,a" for i in range(6)], "only one class, a"),
        ("file,label", ["0.png,a", "1.png,b", "2.png,b"], "class a has 1 image"),
        ("file,label", ["0.png,a", "1.png,b", "2.png,b", "3.png,a"], "too few to make a val split"),
    ],
)
def test_bad_csv(tmp_path, header, rows, says):
    assert says in message(f"csv:{make_csv(tmp_path, header, rows)}")


def test_files_that_are_not_csv(tmp_path):
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
        ({"y": np.array([0, 1, None, 0, 1, 1, 0, 1])}, "member y.npy: holds Python objects"),
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


def test_files_that_are_not_npz_and_skipped_rows(tmp_path):
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
