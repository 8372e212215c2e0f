"""Sequences on disk, to files and back: round trips, the nearest cell by brute force, and every mistake's line."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import DatasetCard
from PIL import Image

import nogs
from nogs.glimpses.grid import Grid
from nogs.runs.directory import RunDirectory, open_run
from nogs.runs.identity import as_json
from nogs.runs.marker import write_marker
from nogs.sequences.files import snap
from nogs.sequences.table import (
    Sequences,
    cells_of_another,
    check_sequences,
    load_sequences,
    read_sequences_run,
    save_sequences,
)
from tiny import GLIMPSE_PX, IMAGE_PX, STRIDE_PX, T, driver, write_npz

GEOMETRY = nogs.Geometry(GLIMPSE_PX, STRIDE_PX, T)
IMAGES = torch.tensor([4, 0, 7])  # of ten training images
CELLS = torch.tensor([[8, 0], [3, 1], [5, 5]])
PUBLISHED = Path(os.environ.get("NOGS_PUBLISHED", "unset"))  # the published archive, where a developer has it


@pytest.fixture(autouse=True)
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOGS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def source(tmp_path: Path) -> nogs.Source:
    return nogs.Source(data=f"npz:{write_npz(tmp_path / 'images.npz', count=70, multilabel=True)}", task="across")


def make_run(place: Path, source: nogs.Source, *, maps: bool = True) -> RunDirectory:
    """A finished search, as the stage leaves it; the gain of cell l at glimpse t of image n is n + t/10 + l/100."""
    run = open_run(place, "search", nogs.Search(nogs.Machine(place), place, place), resume=False)
    n, t, cell = torch.meshgrid(torch.arange(3), torch.arange(T), torch.arange(9), indexing="ij")
    eig = n + t / 10 + cell / 100
    known = (eig + 0.5, eig, eig[..., 0] + 1) if maps else (None, None, None)
    save_sequences(
        run,
        "sequences",
        Sequences(IMAGES, CELLS, *known),
        source=as_json(source),
        geometry=as_json(GEOMETRY),
        task=source.task,
        origin="search",
    )
    run.finish()
    return run


def take(tmp_path: Path, source: nogs.Source, file: Path, **how: Any) -> Sequences:
    out = tmp_path / f"taken-{len(list(tmp_path.iterdir()))}"
    config = nogs.ImportSequences(nogs.Machine(out), source, GEOMETRY, sequences=file)
    return load_sequences(nogs.import_sequences(replace(config, **how)))


def as_dict(sequences: Sequences) -> dict[int, list[int]]:
    return dict(zip(sequences.images.tolist(), sequences.cells.tolist(), strict=True))


def write_csv(file: Path, *rows: str) -> Path:
    file.write_text("\n".join(["image,task,step,row,col,eig_nats", *rows]) + "\n")
    return file


# --- on disk


@pytest.mark.parametrize("maps", [True, False])
def test_what_is_saved_is_loaded(tmp_path: Path, source: nogs.Source, maps: bool) -> None:
    found = load_sequences(make_run(tmp_path / "run", source, maps=maps))
    assert torch.equal(found.images, IMAGES)
    assert torch.equal(found.cells, CELLS)
    for column in (found.epe, found.eig, found.effective):
        assert (column is not None) == maps


def test_sequences_of_other_images_tasks_or_grids_are_refused(tmp_path: Path, source: nogs.Source) -> None:
    run = make_run(tmp_path / "run", source)
    assert read_sequences_run(tmp_path / "run").path == run.path
    check_sequences(run, as_json(source), as_json(GEOMETRY))
    others = {
        "`task`": (replace(source, task="striped"), GEOMETRY),
        "`image_size`": (replace(source, image_size=8), GEOMETRY),
        "`stride`": (source, replace(GEOMETRY, stride=2)),
    }
    for flag, (other, geometry) in others.items():
        with pytest.raises(nogs.UserError, match=f"sequences=.* made with another {flag} .*: train with the same"):
            check_sequences(run, as_json(other), as_json(geometry))
    with pytest.raises(nogs.UserError, match="is not a run directory of `nogs search`"):
        read_sequences_run(tmp_path)


def test_sequences_of_an_incompatible_version_are_refused(tmp_path: Path, source: nogs.Source) -> None:
    """Its file has the columns, and no metadata."""
    run = make_run(tmp_path / "run", source)
    run.save_tensors("sequences", run.load_tensors("sequences"))
    write_marker(run.path)
    with pytest.raises(nogs.UserError, match=r"sequences=.* an incompatible version.*: run `nogs search`"):
        check_sequences(run, as_json(source), as_json(GEOMETRY))
    wrong = driver().run("sequences", "export", "--sequences", run.path, "--out", tmp_path / "x.csv")
    assert (wrong.code, len(wrong.err.splitlines())) == (2, 1)
    assert "made by an incompatible version" in wrong.err


# --- out and in again


@pytest.mark.parametrize(("form", "out"), [("csv", "x.csv"), ("text", "x")])
def test_exported_and_imported_again_they_are_the_same(
    tmp_path: Path, source: nogs.Source, form: Any, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", source)
    nogs.export_sequences(nogs.ExportSequences(run.path, tmp_path / out, form))
    assert "exported 3 sequences" in capsys.readouterr().out
    assert as_dict(take(tmp_path, source, tmp_path / out)) == as_dict(load_sequences(run))
    with pytest.raises(nogs.UserError, match="exists: choose another"):
        nogs.export_sequences(nogs.ExportSequences(run.path, tmp_path / out, form))


@pytest.mark.parametrize("maps", [True, False])
def test_the_csv_row_by_row(tmp_path: Path, source: nogs.Source, maps: bool) -> None:
    nogs.export_sequences(nogs.ExportSequences(make_run(tmp_path / "run", source, maps=maps).path, tmp_path / "x.csv"))
    with (tmp_path / "x.csv").open(newline="") as file:
        table = list(csv.reader(file))
    assert table[0] == ["image", "task", "step", "row", "col", "eig_nats"]
    assert table[1] == ["4", "across", "1", "10", "10", "0.08" if maps else ""]  # cell 8 is the last of 3 x 3
    assert table[4] == ["0", "across", "2", "0", "5", "1.11" if maps else ""]
    assert len(table) == 1 + 3 * T


def test_a_data_set_is_the_csv_with_a_card(tmp_path: Path, source: nogs.Source) -> None:
    run = make_run(tmp_path / "run", source)
    nogs.export_sequences(nogs.ExportSequences(run.path, tmp_path / "set", "hub"))
    nogs.export_sequences(nogs.ExportSequences(run.path, tmp_path / "x.csv"))
    assert {file.name for file in (tmp_path / "set").iterdir()} == {"README.md", "sequences.csv"}
    assert (tmp_path / "set" / "sequences.csv").read_bytes() == (tmp_path / "x.csv").read_bytes()
    assert as_dict(take(tmp_path, source, tmp_path / "set" / "sequences.csv")) == as_dict(load_sequences(run))
    card = DatasetCard.load(tmp_path / "set" / "README.md")
    assert card.data.to_dict()["configs"] == [{"config_name": "default", "data_files": "sequences.csv"}]
    assert f"Where to look in 3 images: {T} glimpses of {GLIMPSE_PX} × {GLIMPSE_PX}" in card.text
    assert f"`npz:{Path(source.data.partition(':')[2]).name}`, label across" in card.text
    assert str(tmp_path) not in card.content


def test_the_text_line_by_line(tmp_path: Path, source: nogs.Source) -> None:
    nogs.export_sequences(nogs.ExportSequences(make_run(tmp_path / "run", source).path, tmp_path / "x", "text"))
    assert (tmp_path / "x" / "4.txt").read_text() == "10, 10\n0, 0\n"
    assert len(list((tmp_path / "x").iterdir())) == 3


def test_the_command_line(tmp_path: Path, source: nogs.Source) -> None:
    write_csv(tmp_path / "x.csv", "4,across,1,10,10,", "4,across,2,0,0,", "69,across,1,0,0,", "69,across,2,0,0,")
    geometry = ("--glimpse-size", GLIMPSE_PX, "--stride", STRIDE_PX, "--glimpses", T)
    data = ("--data", source.data, "--task", "across")
    taken = driver().run(
        "sequences", "import", "--sequences", tmp_path / "x.csv", *data, *geometry, "--out", tmp_path / "out"
    )
    assert taken.code == 0, taken.err
    assert "imported 1 sequences" in taken.out
    assert "left out 1 of 2 sequences, whose images are not in its train split: 69" in taken.err
    assert json.loads((tmp_path / "out" / "left_out.json").read_text()) == {"not_in_data": [], "not_in_train": ["69"]}
    given = driver().run("sequences", "export", "--sequences", tmp_path / "out", "--out", tmp_path / "y.csv")
    assert given.code == 0, given.err
    assert (tmp_path / "y.csv").read_text().splitlines()[1:] == ["4,across,1,10,10,", "4,across,2,0,0,"]
    wrong = driver().run("sequences", "export", "--sequences", tmp_path, "--out", tmp_path / "z")
    assert (wrong.code, len(wrong.err.splitlines())) == (2, 1)


# --- other sizes


def test_snapping_is_to_the_nearest_centre_of_all_cells() -> None:
    grid, generator = Grid(64, 8, 5), torch.Generator().manual_seed(0)
    for image_px, glimpse_px in ((224, 16), (64, 8), (100, 0), (48, 20)):
        places = torch.rand(200, 2, generator=generator, dtype=torch.float64) * image_px
        cells = snap(places, grid, image_px=image_px, glimpse_px=glimpse_px)
        for (row, column), cell in zip(places.tolist(), cells.tolist(), strict=True):
            y, x = ((value + glimpse_px / 2) * 64 / image_px for value in (row, column))
            distance = [
                (top + 4 - y) ** 2 + (left + 4 - x) ** 2
                for top, left in grid.top_left_px(torch.arange(len(grid))).tolist()
            ]
            assert distance[cell] == pytest.approx(min(distance))


def test_pixels_of_larger_images_are_scaled(tmp_path: Path, source: nogs.Source) -> None:
    double = 2 * IMAGE_PX
    file = write_csv(tmp_path / "x.csv", "4,across,1,20,20,", "4,across,2,0,11,")
    assert as_dict(take(tmp_path, source, file, sequences_image_size=double)) == {4: [8, 1]}
    # a glimpse of 2 pixels with its corner at 14 has its centre at 7.5 of 16: the middle one, whose centre is at 8
    file = write_csv(tmp_path / "y.csv", "4,across,1,14,14,", "4,across,2,14,14,")
    taken = take(tmp_path, source, file, sequences_image_size=double, sequences_glimpse_size=2)
    assert as_dict(taken) == {4: [4, 4]}


# --- the published archive


def make_celeba(root: Path) -> Path:
    """Eight images, of which two are CelebA-HQ's 0 and 2, and one, its 1, is in val."""
    names = [f"{i:06}.png" for i in range(8)]
    (root / "img_align_celeba").mkdir(parents=True)
    for name in names:
        Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save(root / "img_align_celeba" / name)
    rows = [f"{name} {'1' if i % 2 else '-1'} {'1' if i % 3 else '-1'}" for i, name in enumerate(names)]
    (root / "list_attr_celeba.txt").write_text("\n".join(["8", "Young Smiling", *rows]))
    (root / "list_eval_partition.txt").write_text("\n".join(f"{name} {max(0, i - 5)}" for i, name in enumerate(names)))
    (root / "celebahq_index.txt").write_text("000003.png 0\n000006.png 1\n000001.png 2\n")
    return root


def test_published_sequences_find_their_images_by_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequences = np.zeros((2, 4, 5, 2), dtype=np.int16)
    sequences[1, 0, 0] = (208, 0)  # the lower left corner of 224 pixels
    sequences[1, 2, 1] = (0, 208)
    np.savez(tmp_path / "published.npz", sequences=sequences)
    source = nogs.Source(data=f"celeba:{make_celeba(tmp_path / 'set')}", task="Smiling")
    assert as_dict(take(tmp_path, source, tmp_path / "published.npz")) == {3: [6, 0], 1: [0, 2]}
    err = capsys.readouterr().err
    assert "left out 1 of 4 sequences, whose images are not in the data: 3" in err
    assert "left out 1 of 4 sequences, whose images are not in its train split: 1" in err
    np.savez(tmp_path / "published.npz", sequences=sequences[:1])
    with pytest.raises(nogs.UserError, match="sequences for 1 attributes, but `data` has 2 labels"):
        take(tmp_path, source, tmp_path / "published.npz")
    np.savez(tmp_path / "published.npz", other=sequences)
    with pytest.raises(nogs.UserError, match="has no array sequences"):
        take(tmp_path, source, tmp_path / "published.npz")


@pytest.mark.skipif(not PUBLISHED.exists(), reason="needs the published archive")
def test_the_published_archive_lies_on_its_own_grid() -> None:
    with np.load(PUBLISHED) as archive:
        places = torch.from_numpy(archive["sequences"].astype(np.int64))
    cells = snap(places, Grid(224, 16, 1), image_px=224, glimpse_px=16)
    assert torch.equal(Grid(224, 16, 1).top_left_px(cells), places)


# --- mistakes


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (["4,across,1,ten,10,"], "x.csv line 2: 'ten', '10' are not a row and a column in pixels"),
        (["4,across,0,10,10,"], "x.csv line 2: column step: '0' is not 1, 2, ..."),
        (["4,across,1,0,0,", "4,across,1,5,5,"], "x.csv line 3: step 1 of image 4 is there twice"),
        (["4,across,1,0,0,", "4,across,3,5,5,"], "x.csv line 2: image 4 has no step 2"),
        (["4,across,1,0,0,"], "x.csv line 2: image 4 has 1 glimpses, fewer than glimpses=2"),
        (
            ["4,across,1,0,0,", "4,across,2,0,16,"],
            "x.csv line 3: (0, 16) is not on an image of sequences_image_size=16",
        ),
        (["4,across,1,0"], "x.csv line 2: has 4 fields for 6 columns"),
        (["4,striped,1,0,0,"], "x.csv: has no row of task across, but of striped: give `task`"),
        (["69,across,1,0,0,", "69,across,2,0,0,"], "none of its 1 images is in the train split of `data`"),
    ],
)
def test_bad_csv(tmp_path: Path, source: nogs.Source, rows: list[str], reason: str) -> None:
    with pytest.raises(nogs.UserError) as caught:
        take(tmp_path, source, write_csv(tmp_path / "x.csv", *rows))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_skip_bad_lists_the_rows_and_leaves_them_out(
    tmp_path: Path, source: nogs.Source, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_csv(tmp_path / "x.csv", "4,across,1,0,0,", "4,across,2,0,0,", "5,across,1,0,0,", "5,across,2,x,0,")
    assert as_dict(take(tmp_path, replace(source, skip_bad=True), file)) == {4: [0, 0]}
    assert "x.csv line 5: 'x', '0' are not" in capsys.readouterr().err


def test_bad_text_and_bad_files(tmp_path: Path, source: nogs.Source) -> None:
    (tmp_path / "texts").mkdir()
    with pytest.raises(nogs.UserError, match=r"has no file NAME.txt"):
        take(tmp_path, source, tmp_path / "texts")
    (tmp_path / "texts" / "4.txt").write_text("0, 0\n5 5\n")
    with pytest.raises(nogs.UserError, match=r"4.txt line 2: '5 5' is not a row, a comma and a column"):
        take(tmp_path, source, tmp_path / "texts")
    (tmp_path / "table.csv").write_text("image,step\n1,2\n")
    with pytest.raises(nogs.UserError, match=r"table.csv: has no column 'task'"):
        take(tmp_path, source, tmp_path / "table.csv")
    with pytest.raises(nogs.UserError, match=r"sequences=.*nowhere does not exist"):
        take(tmp_path, source, tmp_path / "nowhere")
    with pytest.raises(nogs.UserError, match=r"choose `task` among striped, across"):
        take(tmp_path, replace(source, task=None), tmp_path / "table.csv")
    with pytest.raises(nogs.UserError, match=r"give `sequences`, .* or `parts`"):
        nogs.import_sequences(nogs.ImportSequences(nogs.Machine(tmp_path / "out"), source, GEOMETRY))


@pytest.mark.parametrize("n", [2, 3, 40])
def test_every_image_takes_the_cells_of_another(n: int) -> None:
    """A derangement: each sequence is used once, and by no image of its own."""
    cells = torch.arange(2 * n).view(n, 2)
    for seed in range(5):
        taken = cells_of_another(Sequences(torch.arange(n), cells), generator=torch.Generator().manual_seed(seed))
        assert sorted(taken.tolist()) == cells.tolist()
        assert not (taken == cells).any()
