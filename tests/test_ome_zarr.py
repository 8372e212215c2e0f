"""OME-Zarr images: boxes against the whole picture, predictions against TIFF, sets of them, and damaged ones."""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import nogs
from nogs.config.groups import Geometry, Machine, Optimisation, Source
from nogs.config.stages import Evaluate, Train
from nogs.data import fingerprint, load
from nogs.data.frame import Box, Frame
from nogs.data.pixels import overview
from nogs.data.tiled import tiff
from nogs.data.tiled.levels import LARGEST_TILE_PX
from nogs.data.tiled.opening import open_large
from nogs.data.tiled.tiles import TiledImages
from nogs.errors import UserError
from nogs.prediction.model import Model
from nogs.stages.evaluate import evaluate
from nogs.stages.train import train
from test_slides import halved, small_model
from test_slides import write as write_tiff

zarr = pytest.importorskip("zarr", minversion="3")
pytest.importorskip("tifffile")
pytestmark = pytest.mark.usefixtures("cached")
CHUNK = 16


@pytest.fixture(autouse=True)
def every_tiled_tiff_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "LARGE_PX", 0)


def noise(height: int, width: int, channels: int = 3, *, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def write(
    path: Path, pixels: np.ndarray[Any, Any], *, levels: int = 3, version: int = 2, axes: str = "cyx", **how: Any
) -> Path:
    """Write pixels [h, w, c] as a pyramid whose level k is the mean of 2^k x 2^k pixels."""
    group = zarr.open_group(path, mode="w", zarr_format=version)
    for level in range(levels):
        stored = pixels if "c" in axes else pixels[..., 0]
        order = [a for a in "yxc" if a in axes]
        stored = stored.transpose([order.index(a) for a in axes if a in order])
        stored = np.expand_dims(stored, [at for at, a in enumerate(axes) if a not in order])
        chunks = tuple(CHUNK if a in "yx" else size for a, size in zip(axes, stored.shape, strict=True))
        array = group.create_array(str(level), shape=stored.shape, dtype=stored.dtype, **{"chunks": chunks, **how})
        array[:] = stored
        pixels = halved(pixels)
    described = {
        "axes": [{"name": a} for a in axes],
        "datasets": [{"path": str(level), "coordinateTransformations": []} for level in range(levels)],
    }
    if version == 2:
        group.attrs["multiscales"] = [{"version": "0.4", **described}]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [described]}
    return path


def opened(path: Path, *how: Any) -> Any:
    image = open_large(path, *(how or (None,)))
    assert image is not None
    return image


@functools.cache
def model() -> Model:
    return small_model()


BOXES = [(0, 0, 90, 70), (3, 5, 20, 17), (15, 15, 17, 17), (16, 16, 32, 32), (-4, -2, 6, 95), (80, 0, 95, 3)]


def expected(pixels: np.ndarray[Any, Any], box: Box) -> np.ndarray[Any, Any]:
    """The box by plain slicing, in a picture with black around it."""
    around = np.pad(pixels, ((100, 100), (100, 100), (0, 0)))
    return around[box.top + 100 : box.bottom + 100, box.left + 100 : box.right + 100]


@pytest.mark.parametrize(
    ("version", "axes", "how"),
    [
        (2, "cyx", {}),
        (2, "tczyx", {"chunk_key_encoding": {"name": "v2", "separator": "/"}}),
        (2, "cyx", {"chunks": (1, 20, 30)}),
        (2, "yx", {"compressors": None, "order": "F"}),
        (3, "cyx", {"shards": (3, 32, 48)}),
        (3, "yxc", {"chunks": (24, 8, 3)}),
        (3, "zyx", {}),
    ],
)
def test_every_box_of_every_level_is_that_of_the_picture(
    tmp_path: Path, version: int, axes: str, how: dict[str, Any]
) -> None:
    pixels = noise(70, 90, 3 if "c" in axes else 1)
    image = opened(write(tmp_path / "a.ome.zarr", pixels, version=version, axes=axes, **how))
    assert [(level.width, level.height) for level in image.levels] == [(90, 70), (45, 35), (22, 17)]
    assert image.channels == pixels.shape[2]
    for number in range(3):
        for box in (Box(*edges) for edges in BOXES):
            assert np.array_equal(image.pixels(number, box), expected(pixels, box))
        pixels = halved(pixels)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_answer_is_that_for_the_same_picture_as_a_tiff(tmp_path: Path, version: int, channels: int) -> None:
    pixels = noise(96, 128, channels)
    of_zarr, of_tiff = model().predict(
        [
            write(tmp_path / "a.zarr", pixels, version=version, axes="cyx" if channels == 3 else "yx"),
            write_tiff(tmp_path / "a.tif", pixels),
        ]
    )
    assert of_zarr.probs == of_tiff.probs
    assert of_zarr.glimpses == of_tiff.glimpses
    assert of_zarr.size == (128, 96)
    assert np.array_equal(np.asarray(of_zarr.overlay()), np.asarray(of_tiff.overlay()))


@pytest.mark.parametrize("version", [2, 3])
def test_only_the_chunks_that_are_looked_at_are_read(tmp_path: Path, version: int) -> None:
    path = write(tmp_path / "a.zarr", noise(256, 256, 1), version=version, axes="yx")
    image = opened(path)
    before = image.bytes_read
    names = (".zattrs", ".zarray") if version == 2 else ("zarr.json",)
    metadata = sum(file.stat().st_size for file in path.rglob("*") if file.name in names)
    assert metadata <= before < 2 * metadata  # zarr reads that of a level again
    tiled = TiledImages([image], Frame(1, 256))
    tiled.squares(torch.tensor([[[17, 33], [20, 40]]]), torch.tensor([0]), 8)  # both in the chunk of row 1, column 2
    chunk = path / ("0/1.2" if version == 2 else "0/c/1/2")
    assert image.bytes_read - before == chunk.stat().st_size
    tiled.squares(torch.tensor([[[16, 32]]]), torch.tensor([0]), 16)
    assert image.bytes_read - before == chunk.stat().st_size  # kept
    assert image.file_bytes == sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def test_a_missing_chunk_has_the_fill_value(tmp_path: Path) -> None:
    pixels = noise(64, 64)
    path = write(tmp_path / "a.zarr", pixels, fill_value=7)
    (path / "0" / "0.1.2").unlink()
    pixels[16:32, 32:48] = 7
    assert np.array_equal(opened(path).pixels(0, Box(0, 0, 64, 64)), pixels)


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<f4"])
def test_deep_pixels_are_mapped_by_the_range(tmp_path: Path, dtype: str) -> None:
    pixels = noise(48, 48)
    path = write(tmp_path / "a.zarr", (pixels * 256.0).astype(dtype))
    assert np.array_equal(opened(path, (0.0, 255 * 256.0)).pixels(0, Box(0, 0, 48, 48)), pixels)
    with pytest.raises(UserError, match=r"a\.zarr: has more than 8 bits a channel .* needs `range`"):
        model().predict(path)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Return an image of each version."""
    place = tmp_path_factory.mktemp("sound")
    write(place / "2", noise(64, 64), chunks=(3, 32, 32), levels=2)
    write(place / "3", noise(64, 64), chunks=(3, 16, 16), levels=2, version=3, shards=(3, 32, 32))
    return lambda version: place / str(version)


def edit(file: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Change the object in a file of metadata."""

    def edited(path: Path) -> None:
        content = json.loads((path / file).read_text())
        change(content)
        (path / file).write_text(json.dumps(content))

    return edited


def put(file: str, **values: Any) -> Callable[[Path], None]:
    return edit(file, lambda content: content.update(values))


def level_at(place: str) -> Callable[[Path], None]:
    return edit(".zattrs", lambda content: content["multiscales"][0]["datasets"][0].update(path=place))


def codec(id: str) -> Callable[[Path], None]:
    return put("0/.zarray", filters=[{"id": id}])


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda path: (path / ".zattrs").unlink(), r"has neither zarr\.json nor \.zattrs"),
        (lambda path: (path / ".zattrs").write_text("{"), r"\.zattrs is damaged"),
        (lambda path: (path / ".zattrs").write_text("[1]"), r"\.zattrs is damaged"),
        (lambda path: (path / ".zattrs").write_text("[" * 10**5), r"\.zattrs is damaged"),
        (lambda path: (path / ".zattrs").write_text("{}"), "has no `multiscales`"),
        (put(".zattrs", multiscales=[{"axes": ["c", "y", "x"], "datasets": [{"path": "0"}]}]), "has no `multiscales`"),
        (put(".zattrs", multiscales=[{"axes": [{"name": "xyx"}], "datasets": []}]), "has no `multiscales`"),
        (put(".zattrs", multiscales=[{"axes": [{"name": "y"}], "datasets": [{"path": "0"}]}]), "has the axes 'y'"),
        (lambda path: shutil.rmtree(path / "1"), "has no level '1', which its metadata names"),
        (level_at("../b.zarr/0"), "names a level '../b.zarr/0', which is outside"),
        (level_at("0/../../b.zarr/0"), "which is outside"),
        (level_at("/etc"), "names a level '/etc', which is outside"),
        (level_at(""), "which is outside"),
        (level_at("..\\b"), "which is outside"),
        (put("0/.zarray", dtype="|O"), r"level '0' has pixels of type \|O"),
        (put("0/.zarray", dtype=[["a", "|u1"]]), "level '0' has pixels of type"),
        (codec("pickle"), "stored by the codec pickle"),
        (put("0/.zarray", compressor={"id": "pickle"}), "stored by the codec pickle"),
        (put("0/.zarray", compressor=3), "level '0' has damaged metadata"),
        (put("0/.zarray", chunks=[1, 10**9, 10**9]), "has chunks of 1x1000000000x1000000000 pixels"),
        (put("0/.zarray", chunks=[10**9, 16, 16]), "has chunks of"),
        (put("0/.zarray", chunks=[1, 0, 16]), "says a size of 1x0x16"),
        (put("0/.zarray", shape=[3, 64]), "has not the axes 'cyx'"),
        (put("0/.zarray", shape=[2, 64, 64]), "has 2 channels"),
        (put("1/.zarray", shape=[3, 32, 20]), "level '1' says 20x32 pixels, which is no reduction of 64x64"),
        (put("1/.zarray", shape=[1, 32, 32]), "level '1' has other channels"),
        (put("0/.zarray", zarr_format=7), "level '0' cannot be opened"),
        (lambda path: (path / "1" / ".zarray").write_bytes(b"no"), r"1/\.zarray is damaged"),
    ],
)
def test_a_damaged_image_is_one_line(
    tmp_path: Path, sound: Callable[[int], Path], fault: Callable[[Path], None], reason: str
) -> None:
    path = shutil.copytree(sound(2), tmp_path / "a.zarr")
    fault(path)
    with pytest.raises(UserError, match=rf"a\.zarr: .*({reason})") as found:
        model().predict(path)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (put("zarr.json", attributes={}), "has no attributes `ome`"),
        (put("zarr.json", attributes={"ome": []}), "has no `multiscales`"),
        (put("0/zarr.json", data_type="string"), "pixels of type string"),
        (put("0/zarr.json", codecs=[{"name": "vlen-utf8"}]), "codec vlen-utf8"),
        (put("0/zarr.json", codecs=[{"name": "numcodecs.pickle"}]), "codec pickle"),
        (
            edit("0/zarr.json", lambda level: level["codecs"][0]["configuration"]["codecs"].append({"name": "evil"})),
            "codec evil",
        ),
        (
            edit("0/zarr.json", lambda of: of["chunk_grid"].update(configuration={"chunk_shape": [3, 2**30, 2**30]})),
            "has shards of",
        ),
    ],
)
def test_a_damaged_image_of_version_3_is_one_line(
    tmp_path: Path, sound: Callable[[int], Path], fault: Callable[[Path], None], reason: str
) -> None:
    path = shutil.copytree(sound(3), tmp_path / "a.zarr")
    fault(path)
    with pytest.raises(UserError, match=rf"a\.zarr: .*{reason}") as found:
        model().predict(path)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("stored", [b"", b"\0" * 40, b"nothing"])
@pytest.mark.parametrize(
    ("version", "how"), [(2, {}), (3, {}), (3, {"shards": (3, 64, 64)}), (2, {"compressors": None})]
)
def test_a_damaged_chunk_is_one_line(tmp_path: Path, stored: bytes, version: int, how: dict[str, Any]) -> None:
    path = write(tmp_path / "a.zarr", noise(64, 64), version=version, **{"levels": 1, "chunks": (3, 64, 64), **how})
    for file in path.rglob("*"):
        if file.is_file() and file.name not in (".zattrs", ".zarray", ".zgroup", "zarr.json"):
            file.write_bytes(stored)
    with pytest.raises(UserError, match=r"a\.zarr: has a damaged tile, number \d+ of level \d: \w+") as found:
        model().predict(path)
    assert "\n" not in str(found.value)


def test_a_chunk_that_is_a_fifo_is_not_opened(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", noise(64, 64), levels=1)
    (path / "0" / "0.0.0").unlink()
    os.mkfifo(path / "0" / "0.0.0")
    with pytest.raises(UserError, match=r"damaged tile, number 0 of level 0: .*FIFO"):
        model().predict(path)


def test_a_tile_may_be_as_large_as_a_tiff_allows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", noise(64, 64), levels=1)
    put("0/.zarray", chunks=[3, LARGEST_TILE_PX, LARGEST_TILE_PX])(path)
    assert opened(path).levels[0].tile_width == LARGEST_TILE_PX


def test_without_the_extra_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nogs.data.tiled.opening.has_zarr", lambda: False)
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(UserError, match=r"a\.zarr: .*install nogs\[zarr\]"):
        model().predict(tmp_path / "a.zarr")


def test_predict_takes_folders_patterns_and_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [write(tmp_path / "set" / f"{number}.zarr", noise(64, 64, seed=number)) for number in range(2)]
    model().save(tmp_path / "model")
    for given in (paths, [tmp_path / "set"], [tmp_path / "set" / "*.zarr"]):
        nogs.predict(nogs.Predict(tmp_path / "model", tuple(given), json=True))
        answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [answer["file"] for answer in answers] == [str(path) for path in paths]
        assert 0 < answers[0]["read_bytes_share"] < 1


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images of each of two classes."""
    for name in ("a", "b"):
        for number in range(3):
            pixels = noise(64, 64, seed=number + 3 * (name == "b"))
            write(tmp_path / "set" / name / f"{number}.zarr", pixels, version=3, chunks=(3, 32, 32))
    return tmp_path / "set"


def test_a_set_is_read_by_tiles(root: Path) -> None:
    source = Source(data=f"folder:{root}", image_size=32)
    first, every = load(source), torch.arange(6)
    whole = np.stack([halved(noise(64, 64, seed=seed)) for seed in range(6)])
    expected = torch.from_numpy(whole).permute(0, 3, 1, 2)
    assert isinstance(first.images, TiledImages)
    assert torch.equal(first.images[every], expected)
    assert (overview(first.images, every, 8).int() - overview(expected, every, 8).int()).abs().max() <= 1
    assert first.names[0] == "a/0.zarr"
    lines = [f"{name},{name[0]}" for name in first.names]
    (root / "labels.csv").write_text("\n".join(["file,label", *lines]))
    of_table = load(Source(data=f"csv:{root / 'labels.csv'}", image_size=32))
    assert torch.equal(of_table.images[every], expected)


def test_a_set_is_known_until_a_chunk_changes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(data=f"folder:{root}", image_size=32)
    before = fingerprint(load(source))
    with monkeypatch.context() as patch:
        patch.setattr("nogs.data.tiled.ome_zarr.OmeZarr._read_levels", None)  # a later start opens no file
        assert fingerprint(load(source)) == before
    os.utime(root / "a" / "0.zarr" / "0" / "c" / "0" / "0" / "0")
    assert fingerprint(load(source)) == before
    zarr.open_array(root / "a" / "0.zarr" / "2", mode="r+")[:] = 0
    assert fingerprint(load(source)) != before


def test_other_images_and_damaged_ones_are_named(root: Path) -> None:
    source = Source(data=f"folder:{root}", image_size=32)
    tiff_file = write_tiff(root / "a" / "9.tif", noise(64, 64, seed=9))
    assert len(load(source)) == 7  # together with TIFFs
    tiff_file.unlink()
    (root / "b" / "0.zarr" / "zarr.json").unlink()
    with pytest.raises(UserError, match=r"b/0\.zarr: has neither"):
        load(source)
    shutil.rmtree(root / "b" / "0.zarr")
    Image.new("RGB", (8, 8)).save(root / "a" / "small.png")
    with pytest.raises(UserError, match=r"small\.png: is decoded whole, but .*0\.zarr is read by tiles"):
        load(source)


def test_a_folder_of_images_without_classes_is_one_line(root: Path) -> None:
    with pytest.raises(UserError, match="has no sub-folders"):
        load(Source(data=f"folder:{root / 'a'}", image_size=32))


@pytest.mark.slow
def test_training_and_evaluation_are_those_of_the_same_pictures_as_tiffs(root: Path, tmp_path: Path) -> None:
    """The same weights, the same accuracy of each image, and predictions that are those of the evaluation."""
    splits = ("train", "val", "test")
    for suffix in ("zarr", "tif"):
        lines = [f"{name}/{number}.{suffix},{name},{splits[number]}" for name in "ab" for number in range(3)]
        (root / f"{suffix}.csv").write_text("\n".join(["file,label,split", *lines]))
    for file in root.glob("*/*.zarr"):
        array = np.asarray(zarr.open_array(file / "0", mode="r")[:])
        write_tiff(file.with_suffix(".tif"), array.transpose(1, 2, 0))
    weights, kept = {}, {}
    for suffix in ("zarr", "tif"):
        how = Source(data=f"csv:{root / suffix}.csv", image_size=32)
        geometry, optimisation = Geometry(8, 4, 2, overview=8), Optimisation(6, 2, 3e-3, validate_every=3)
        run = tmp_path / suffix
        train(Train(Machine(run), how, geometry, optimisation, method="gain"))
        evaluate(Evaluate(Machine(tmp_path / f"{suffix}-evaluate"), (run,)))
        weights[suffix] = nogs.load_model(run).network.state_dict()
        kept[suffix] = load_file(tmp_path / f"{suffix}-evaluate" / "gain-seed0.safetensors")
    assert all(torch.equal(value, weights["tif"][name]) for name, value in weights["zarr"].items())
    assert all(torch.equal(value, kept["tif"][name]) for name, value in kept["zarr"].items())
    answers = nogs.load_model(tmp_path / "zarr").predict([root / name / "2.zarr" for name in "ab"])
    for answer, log_probs in zip(answers, kept["zarr"]["log_probs"][:, -1], strict=True):
        assert list(answer.probs.values()) == pytest.approx(log_probs.exp().tolist(), abs=1e-5)
