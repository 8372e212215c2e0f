"""Sets of tiled TIFFs: training, evaluation and prediction from tiles; what is kept; files that do not fit."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import nogs
from nogs.config.groups import Geometry, Machine, Optimisation, Source
from nogs.config.stages import Evaluate, Train
from nogs.data import fingerprint, load
from nogs.data.pixels import mean_image, overview, pictures
from nogs.data.tiled import shared, tiff
from nogs.data.tiled.shared import Shared
from nogs.data.tiled.slide import Slide
from nogs.data.tiled.tiles import TiledImages
from nogs.errors import UserError
from nogs.glimpses.grid import Grid
from nogs.report.figures.maps import coverage
from nogs.stages.evaluate import evaluate
from nogs.stages.train import train
from test_slides import halved, picture, write

pytest.importorskip("tifffile")
pytestmark = pytest.mark.usefixtures("cached")
SIDE, SEEN = 64, 32


@pytest.fixture(autouse=True)
def every_tiled_tiff_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "LARGE_PX", 0)


def pixels_of(name: str, number: int) -> np.ndarray:
    """A noisy picture that is bright for class b."""
    noise = np.random.default_rng(number).integers(0, 128, (SIDE, SIDE, 3), dtype=np.uint8)
    return noise + np.uint8(100 * (name == "b"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six slides of each of two classes."""
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(6):
            write(tmp_path / "set" / name / f"{number}.tif", pixels_of(name, number))
    return tmp_path / "set"


def source(root: Path, image_size: int | None = SEEN, **how: object) -> Source:
    return Source(data=f"folder:{root}", image_size=image_size, **how)


def tiled(root: Path, **how: object) -> TiledImages:
    images = load(source(root, **how)).images
    assert isinstance(images, TiledImages)
    return images


def whole(image_px: int = SEEN) -> torch.Tensor:
    """All images as they are at level 1."""
    return torch.from_numpy(np.stack([halved(pixels_of(n, i)) for n in "ab" for i in range(6)])).permute(0, 3, 1, 2)


def test_squares_overviews_and_pictures_are_those_of_the_images_in_memory(root: Path) -> None:
    images, expected, every = tiled(root), whole(), torch.arange(12)
    assert images.shape == expected.shape
    assert torch.equal(images[every], expected)
    for px in (16, 8):
        assert (overview(images, every, px).int() - overview(expected, every, px).int()).abs().max() <= 1
    assert torch.equal(pictures(images, every[3:5]), expected[3:5])
    assert torch.equal(mean_image(images, every), expected.float().mean(0))


def test_the_size_is_that_of_most_files_unless_given(root: Path) -> None:
    assert tiled(root, image_size=None).shape[-1] == SIDE
    write(root / "a" / "0.tif", picture(96, 96))
    with pytest.raises(UserError, match=r"0\.tif: is 96x96 pixels, but .* is 64x64: give --image-size|`image_size`"):
        load(source(root, None))
    assert len(load(source(root, None, skip_bad=True))) == 11
    assert len(load(source(root))) == 12


def test_a_later_start_opens_no_file_and_computes_no_overview(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(source(root))
    views = overview(first.images, torch.arange(12), 8)
    monkeypatch.setattr(shared, "_open", None)
    second = load(source(root))
    assert fingerprint(second) == fingerprint(first)
    assert torch.equal(overview(second.images, torch.arange(12), 8), views)
    assert torch.equal(second.images.drawn(8), views)


def test_the_fingerprint_is_that_of_the_pixels(root: Path, tmp_path: Path) -> None:
    before = fingerprint(load(source(root)))
    os.utime(root / "a" / "0.tif", ns=(1, 1))
    assert fingerprint(load(source(root))) == before
    write(root / "a" / "0.tif", pixels_of("a", 77))
    assert fingerprint(load(source(root))) != before


def test_open_files_and_decoded_tiles_are_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "OPEN_FILES", 2)
    monkeypatch.setenv("NOGS_TILE_CACHE", "0.002")
    opened, closed = [], []
    really_open, really_close = shared._open, os.close
    monkeypatch.setattr(shared, "_open", lambda path: opened.append(really_open(path)) or opened[-1])
    monkeypatch.setattr(shared.os, "close", lambda file: closed.append(file) or really_close(file))
    images = tiled(root)
    rows = torch.arange(12).repeat(2)
    first = torch.randint(-4, SEEN, (24, 5, 2), generator=torch.Generator().manual_seed(0))
    kept, expected = tiled(root), whole()
    read = images.squares(first, rows, 7)
    span = torch.arange(7)
    for at in range(24):
        for t in range(5):
            line, column = ((start + span).clamp(0, SEEN - 1) for start in first[at, t])
            assert torch.equal(read[at, t], expected[rows[at]][:, line[:, None], column])
    of_set = images.slides[0]._shared
    assert len(of_set.files) <= 2
    assert of_set.tiles._bytes <= 2000
    assert len(opened) - len(closed) <= 4  # of two sets
    assert torch.equal(kept.squares(first, rows, 7), read)


def test_threads_read_what_one_reads(root: Path) -> None:
    images, rows = tiled(root), torch.arange(12)
    first = torch.randint(0, SEEN - 7, (12, 5, 2), generator=torch.Generator().manual_seed(0))
    alone, threads = tiled(root).squares(first, rows, 7), torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        assert torch.equal(images.squares(first, rows, 7), alone)
    finally:
        torch.set_num_threads(threads)


def test_files_of_a_slide_set_are_freed_with_it(root: Path) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0

    before = count()
    images = tiled(root)
    images[torch.arange(12)]
    assert count() == before + 12 or not before
    del images
    assert count() == before


@pytest.mark.parametrize("what", ["png", "small", "damaged"])
def test_a_file_that_does_not_fit_is_one_line_with_its_name(root: Path, what: str) -> None:
    path = root / "b" / ("odd.tif" if what == "damaged" else "odd.png")
    if what == "damaged":
        write(path, pixels_of("b", 9))
        path.write_bytes(path.read_bytes()[:900])
    else:
        Image.fromarray(pixels_of("b", 9)).save(path)
    with pytest.raises(UserError, match=r"b/odd\.\w+: (is decoded whole, but .*0\.tif is a tiled TIFF|.*)") as found:
        load(source(root))
    assert "\n" not in str(found.value)
    assert len(load(source(root, skip_bad=True))) == 12


def test_a_file_that_changes_or_vanishes_after_the_start_is_named(root: Path) -> None:
    images = tiled(root)
    os.utime(root / "a" / "1.tif", ns=(1, 1))
    with pytest.raises(UserError, match=r"a/1\.tif: was changed while it was read"):
        images[torch.tensor([1])]
    (root / "a" / "2.tif").unlink()
    with pytest.raises(UserError, match=r"a/2\.tif: cannot be read: No such file"):
        images[torch.tensor([2])]


def test_grey_slides_have_one_channel_and_mixed_ones_three(root: Path) -> None:
    for name in ("a", "b"):
        for number in range(6):
            write(root / name / f"{number}.tif", pixels_of(name, number)[..., :1])
    assert tiled(root).shape[1] == 1
    write(root / "a" / "0.tif", pixels_of("a", 0))
    images = tiled(root)
    assert images.shape[1] == 3
    assert torch.equal(images[torch.tensor([0])], whole()[:1])


def test_a_table_lists_slides_too(root: Path) -> None:
    lines = [f"{name}/{number}.tif,{name}" for name in "ab" for number in range(6)]
    (root / "labels.csv").write_text("\n".join(["file,label", *lines]))
    images = load(Source(data=f"csv:{root / 'labels.csv'}", image_size=SEEN))
    assert isinstance(images.images, TiledImages)
    assert torch.equal(images.images[torch.arange(12)], whole())


def test_twins_in_two_classes_are_noticed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "b" / "0.tif").write_bytes((root / "a" / "0.tif").read_bytes())
    load(source(root))
    assert "the same image is in two classes" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["many", "-1", "nan"])
def test_a_bound_that_is_no_number_is_refused(root: Path, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOGS_TILE_CACHE", given)
    with pytest.raises(UserError, match="NOGS_TILE_CACHE"):
        load(source(root))


def test_a_damaged_record_is_made_again(root: Path, cached: Path) -> None:
    before = fingerprint(load(source(root)))
    (record,) = cached.glob("*.slides")
    content = json.loads(record.read_text())
    for harm in ("", "[]", json.dumps({**content, "states": []}), json.dumps({**content, "frame": [3]})):
        record.write_text(harm)
        assert fingerprint(load(source(root))) == before
        assert json.loads(record.read_text()) == content


def test_a_cache_that_cannot_be_written_costs_a_notice(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NOGS_CACHE", str(tmp_path / "file" / "below"))
    images = tiled(root)
    assert images.drawn(8).shape == (12, 3, 8, 8)
    assert "cannot be written" in capsys.readouterr().err


def test_files_that_were_written_alike_share_how_they_are_decoded(root: Path) -> None:
    of_set = Shared()
    read = [Slide(root / "a" / f"{number}.tif", shared=of_set) for number in range(6)]
    assert len({id(one.levels[0].layout) for one in read}) == 1
    assert len(of_set.layouts) == 3
    odd = Slide(write(root / "a" / "odd.tif", pixels_of("a", 0), compression="jpeg"), shared=of_set)
    assert odd.levels[0].layout is not read[0].levels[0].layout
    for one in (*read, odd):
        one.close()


@pytest.fixture
def trained(root: Path, tmp_path: Path) -> Iterator[tuple[Path, Source]]:
    how = source(root, split_seed=1)
    geometry, optimisation = Geometry(8, 4, 2, overview=8), Optimisation(30, 4, 3e-3, validate_every=10)
    config = Train(Machine(tmp_path / "train"), how, geometry, optimisation, method="gain")
    train(config)
    return tmp_path / "train", how


def test_predict_answers_for_a_file_as_evaluate_did(trained: tuple[Path, Source], root: Path, tmp_path: Path) -> None:
    run, how = trained
    evaluate(Evaluate(Machine(tmp_path / "evaluate"), (run,)))
    kept = load_file(tmp_path / "evaluate" / "gain-seed0.safetensors")
    data = load(how)
    answers = nogs.load_model(run).predict([str(root / data.names[row]) for row in kept["images"].tolist()])
    for answer, log_probs in zip(answers, kept["log_probs"][:, -1], strict=True):
        assert list(answer.probs.values()) == pytest.approx(log_probs.exp().tolist(), abs=1e-5)


def test_the_map_of_looks_is_reduced_for_large_images(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid(64, 8, 8)
    shares = torch.zeros(len(grid))
    shares[9], shares[60] = 0.5, 0.25
    fine = coverage(shares, grid)
    monkeypatch.setattr("nogs.report.figures.maps.LARGEST_PX", 16)
    assert np.array_equal(coverage(shares, grid), fine[::4, ::4])
    assert fine.sum() == 64 * 0.75


def test_a_cache_of_tiles_keeps_the_last_used_ones_within_its_bound() -> None:
    """Against a list of the keys in the order of their use."""
    rng, most, whole = np.random.default_rng(0), 10, slice(None)
    cache, of = shared.TileCache(most * 48), rng.integers(0, 256, (30, 4, 4, 3), dtype=np.uint8)
    used: list[int] = []
    for number in rng.integers(0, 30, 500).tolist():
        kept = cache.cut((None, 0, number), slice(1, 3), whole)
        assert (kept is None) == (number not in used)
        if kept is None:
            cache.put((None, 0, number), of[number])
        else:
            assert np.array_equal(kept, of[number, 1:3])
            used.remove(number)
        used = [*used, number][-most:]
    cache.put((None, 1, 0), np.zeros((40, 4, 3), dtype=np.uint8))  # larger than what was kept: 480 bytes, all alone
    assert cache.cut((None, 0, used[-1]), whole, whole) is None
    cache.put((None, 1, 1), np.zeros((41, 4, 3), dtype=np.uint8))  # more than the bound
    assert cache.cut((None, 1, 1), whole, whole) is None
    assert cache.cut((None, 1, 0), whole, whole) is not None


def test_a_system_without_more_mappings_bounds_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, tile, whole = shared.TileCache(10**6), np.ones((4, 4, 3), dtype=np.uint8), slice(None)
    cache.put((None, 0, 0), tile)
    monkeypatch.setattr(shared.mmap, "mmap", lambda *_: (_ for _ in ()).throw(OSError(12, "none left")))
    cache.put((None, 0, 1), tile)
    assert cache.cut((None, 0, 1), whole, whole) is None
    cache.put((None, 0, 2), 2 * tile)
    assert np.array_equal(cache.cut((None, 0, 2), whole, whole), 2 * tile)
