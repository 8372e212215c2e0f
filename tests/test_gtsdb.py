"""The German Traffic Sign Detection Benchmark, made up in its official layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import nogs
from nogs.config.groups import Source
from nogs.errors import UserError
from nogs.prediction.images import whole

LIMITS = {0: "20", 1: "30", 2: "50", 3: "60", 4: "70", 5: "80", 7: "100", 8: "120"}
NUMBERS = [*range(36), *range(600, 618)]


def name_of(number: int) -> str:
    return f"{number:05}.ppm"


def make(root: Path, *, rows: str = "") -> Path:
    """Photograph k shows the limit of class k mod 9 (6: the end of one, which is none); each has other pixels."""
    root.mkdir()
    lines = []
    for number in NUMBERS:
        pixels = np.random.default_rng(number).integers(0, 256, (8, 14, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(root / name_of(number))
        lines.append(f"{name_of(number)};1;1;4;4;{number % 9}")
    (root / "gt.txt").write_text("\n".join(lines) + "\n" + rows)
    return root


def test_the_label_is_the_limit_that_is_shown(tmp_path: Path) -> None:
    images = nogs.load(Source(data=f"gtsdb:{make(tmp_path / 'set')}"))
    assert images.classes == ("none", *LIMITS.values())
    assert images.names == tuple(map(name_of, NUMBERS))
    labels = [images.classes[label] for label in images.labels.tolist()]
    assert labels == [LIMITS.get(number % 9, "none") for number in NUMBERS]
    test = [images.names[i] for i in images.members("test").tolist()]
    assert test == [name_of(number) for number in NUMBERS if number >= 600]
    assert len(images.members("val")) > 0
    assert images.images.shape == (54, 3, 8, 8)  # the centre square


def test_the_largest_sign_counts_and_others_are_no_limits(tmp_path: Path) -> None:
    root = make(tmp_path / "set", rows="00000.ppm;0;0;6;6;8\n00001.ppm;0;0;2;2;8\n00006.ppm;0;0;7;7;42\n")
    images = nogs.load(Source(data=f"gtsdb:{root}"))
    shown = {name: images.classes[label] for name, label in zip(images.names, images.labels.tolist(), strict=True)}
    assert (shown["00000.ppm"], shown["00001.ppm"], shown["00006.ppm"]) == ("120", "30", "none")


def test_photographs_without_a_row_show_none(tmp_path: Path) -> None:
    root = make(tmp_path / "set")
    kept = (root / "gt.txt").read_text().splitlines()
    (root / "gt.txt").write_text("\n".join(line for line in kept if not line.startswith("00009")) + "\n")
    images = nogs.load(Source(data=f"gtsdb:{root}", fit="pad"))
    assert images.classes[int(images.labels[9])] == "none"
    assert whole(root / "00009.ppm", None).size == (14, 8)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("00000.ppm;1;1;4;4\n", r"gt.txt, row 55: is not file;left;top;right;bottom;class in whole numbers"),
        ("00000.ppm;1;1;4;x;3\n", "row 55: is not file"),
        ("99999.ppm;1;1;4;4;3\n", "row 55: there is no photograph 99999.ppm"),
        ("00000.ppm;1;1;4;4;43\n", "row 55: class 43 does not exist"),
        ("00000.ppm;4;1;4;4;3\n", "row 55: a sign from 4,1 to 4,4 has no pixels"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, rows: str, reason: str) -> None:
    root = make(tmp_path / "set", rows=rows)
    with pytest.raises(UserError, match=reason):
        nogs.load(Source(data=f"gtsdb:{root}"))
    assert nogs.load(Source(data=f"gtsdb:{root}", skip_bad=True)).skipped == 1


def test_a_limit_that_only_test_photographs_show_is_a_fault(tmp_path: Path) -> None:
    root = make(tmp_path / "set")
    kept = [line for line in (root / "gt.txt").read_text().splitlines() if line[0:2] == "00" and line[2] == "6"]
    (root / "gt.txt").write_text("\n".join(kept) + "\n00000.ppm;1;1;4;4;1\n00001.ppm;1;1;4;4;1\n00002.ppm;1;1;4;4;1\n")
    with pytest.raises(UserError, match=r"00601\.ppm: shows the limit 100, which no training photograph shows"):
        nogs.load(Source(data=f"gtsdb:{root}"))
    assert nogs.load(Source(data=f"gtsdb:{root}", skip_bad=True)).classes == ("none", "30")


def test_a_folder_without_the_benchmark_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gt.txt is missing"):
        nogs.load(Source(data=f"gtsdb:{tmp_path}"))
    (tmp_path / "gt.txt").write_text("")
    with pytest.raises(UserError, match="has no photographs"):
        nogs.load(Source(data=f"gtsdb:{tmp_path}"))
