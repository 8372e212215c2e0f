"""Hand-crafted sequences: the paper's rule for birds on parts written by hand, and a table of them imported."""

from __future__ import annotations

from pathlib import Path

import pytest

import nogs
from nogs.data.listing import Faults
from nogs.errors import UserError
from nogs.sequences.parts import follow, read_parts
from nogs.sequences.table import load_sequences
from tiny import GLIMPSE_PX, STRIDE_PX, write_npz

ORDER = ("beak", "eye", "forehead", "belly", "feet")
PARTS = {"beak": (1.0, 2.0), "eye": (3.0, 4.0), "belly": (5.0, 6.0), "feet": (7.0, 8.0), "tail": (9.0, 9.0)}


@pytest.mark.parametrize(
    ("glimpses", "looks"),
    [
        (2, ["beak", "eye"]),
        (5, ["beak", "eye", "belly", "feet", "centre"]),  # nobody sees the forehead: the belly is next
        (6, ["beak", "eye", "belly", "feet", "centre", "centre"]),
    ],
)
def test_visible_parts_in_order_and_then_the_centre(glimpses: int, looks: list[str]) -> None:
    places = {**PARTS, "centre": (0.5, 0.5)}
    found = follow(PARTS, ORDER, glimpses=glimpses, centre=(0.5, 0.5))
    assert found == [places[name] for name in looks]


def write_parts(file: Path, *rows: str) -> Path:
    file.write_text("\n".join(["image,part,row,col,visible", *rows]) + "\n")
    return file


def test_the_first_visible_of_two_eyes_counts(tmp_path: Path) -> None:
    rows = ("a.jpg,eye,1,2,0", "a.jpg,eye,3,4,1", "a.jpg,eye,5,6,True", "b.jpg,beak,,,false")
    found = read_parts(write_parts(tmp_path / "parts.csv", *rows), Faults(skip=False))
    assert found == {"a.jpg": {"eye": (3.0, 4.0)}, "b.jpg": {}}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("a.jpg,eye,1,2,yes", "line 2: column visible: 'yes' is not 0 or 1"),
        ("a.jpg,eye,one,2,1", "line 2: 'one', '2' are not a row and a column in pixels"),
        ("a.jpg,eye,1", "line 2: has 3 fields for 5 columns"),
    ],
)
def test_bad_rows(tmp_path: Path, row: str, says: str) -> None:
    faults = Faults(skip=False)
    read_parts(write_parts(tmp_path / "parts.csv", row), faults)
    with pytest.raises(UserError) as caught:
        faults.stop()
    assert says in str(caught.value)


def test_a_table_becomes_cells_centred_on_the_parts(tmp_path: Path) -> None:
    npz = write_npz(tmp_path / "images.npz", count=70)  # images 0..9 are for training
    config = nogs.ImportSequences(
        nogs.Machine(tmp_path / "out"),
        nogs.Source(data=f"npz:{npz}"),
        nogs.Geometry(GLIMPSE_PX, STRIDE_PX, glimpses=2),
        parts=write_parts(tmp_path / "p.csv", "3,beak,3,13,1", "3,eye,12,12,1", "5,eye,16,0,1", "60,eye,1,1,1"),
        parts_order=("beak", "eye"),
    )
    found = load_sequences(nogs.import_sequences(config))
    # glimpses of 6 pixels at 0, 5 and 10 have their centres at 3, 8 and 13; the image's is 8
    assert found.images.tolist() == [3, 5]
    assert found.cells.tolist() == [[0 * 3 + 2, 2 * 3 + 2], [2 * 3 + 0, 1 * 3 + 1]]
    with pytest.raises(UserError, match="parts_order=beek: no image has this part visible; choose among beak, eye"):
        nogs.import_sequences(
            nogs.ImportSequences(
                nogs.Machine(tmp_path / "other"),
                config.source,
                config.geometry,
                parts=config.parts,
                parts_order=("beek",),
            )
        )
    assert not (tmp_path / "other").exists()
