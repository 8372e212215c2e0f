"""A loaded model: images of every kind give the answer of the training's own pixels, in the pixels of the image."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import nogs
from nogs.attention.choosers import greedy
from nogs.evaluation.cost import macs_by_glimpse
from nogs.glimpses.fovea import look
from nogs.prediction.images import in_memory
from nogs.runs.directory import RunDirectory
from staged import GEOMETRY, Stages, silent
from tiny import CLASSES, GLIMPSE_PX, IMAGE_PX, T, pictures
from typed import save

pytestmark = pytest.mark.usefixtures("cached")


@pytest.fixture(scope="module")
def model(stages: Stages) -> nogs.Model:
    return nogs.load_model(stages.folder / "nogs-0")


@pytest.fixture(scope="module")
def images() -> list[np.ndarray[Any, Any]]:
    return list(pictures(np.arange(70) % 3, seed=7))


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> nogs.Model:
    """A network for RGB, trained for one iteration."""
    folder, rng = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    for number in range(8):
        save(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8), folder / "set" / "ab"[number % 2] / f"{number}.png")
    config = nogs.Train(
        nogs.Machine(folder / "run", device="cpu"),
        nogs.Source(data=f"folder:{folder / 'set'}"),
        GEOMETRY,
        nogs.Optimisation(iterations=1, validate_every=1),
        network=nogs.AttentionNetwork(8),
    )
    return nogs.load_model(nogs.train(config, silent).path)


def test_a_model_is_a_module_with_its_network(model: nogs.Model) -> None:
    assert isinstance(model, nn.Module)
    assert isinstance(model.network, nogs.HardAttention)
    assert model.classes == CLASSES
    assert not model.training
    assert {name.partition(".")[0] for name, _ in model.named_parameters()} == {"network"}


def test_the_answer_is_the_network_on_the_pixels(model: nogs.Model, images: list[np.ndarray[Any, Any]]) -> None:
    pixels = torch.from_numpy(np.stack(images))[:, None]
    with torch.inference_mode():
        rollout = model.network(pixels, glimpses=T, choose=greedy)
    macs = macs_by_glimpse(model.network, channels=1, glimpses=T)
    answers = model.predict(images)
    for place, answer in enumerate(answers):
        probs = dict(zip(CLASSES, rollout.class_logits[place, -1].softmax(-1).tolist(), strict=True))
        assert answer.probs == pytest.approx(probs, abs=1e-6)
        assert answer.label == max(probs, key=lambda name: probs[name])
        corners = model.spec.grid.top_left_px(rollout.cells[place]).tolist()
        assert [list(square) for square in answer.glimpses] == [[*corner, GLIMPSE_PX] for corner in corners]
        assert (answer.steps, answer.macs) == (T, macs[-1])
    assert len({answer.glimpses for answer in answers}) > 1


@pytest.mark.parametrize("method", ["policy", "random"])
def test_the_answer_does_not_depend_on_the_images_beside_it(
    model: nogs.Model, images: list[np.ndarray[Any, Any]], method: str
) -> None:
    """Seventy images, more than one batch."""
    if method == "random":
        model = nogs.Model(random_spec(model), model.network)
    together = model.predict(images)
    for image, answer in list(zip(images, together, strict=True))[::9]:
        alone = model.predict(image)
        assert alone.glimpses == answer.glimpses
        assert alone.probs == pytest.approx(answer.probs, abs=1e-6)
    assert len({answer.glimpses for answer in together}) > 1


def random_spec(model: nogs.Model) -> Any:
    return replace(model.spec, method="random")


def test_every_kind_of_image_gives_the_same_answer(
    colours: nogs.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A photograph of another size and shape, as a path, text, PIL image, array and tensor."""
    pixels = np.random.default_rng(3).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    file = save(pixels, tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    kinds: list[Any] = [file, str(file), "image.png", Image.open(file), Image.fromarray(pixels), pixels, tensor]
    first, *others = (colours.predict(kind) for kind in kinds)
    assert all(other == first for other in others)
    opaque = np.concatenate([pixels, np.full((40, 64, 1), 255, np.uint8)], axis=2)
    assert colours.predict(opaque) == first
    grey = pixels[..., 0]
    alike = [grey, grey[..., None], torch.from_numpy(grey), torch.from_numpy(grey)[None], Image.fromarray(grey)]
    first, *others = (colours.predict(kind) for kind in alike)
    assert all(other == first for other in others)
    for many in (np.stack([pixels, pixels]), torch.stack([tensor, tensor]), (file, pixels)):
        one, other = colours.predict(many)
        assert one.glimpses == other.glimpses == colours.predict(pixels).glimpses


def test_glimpses_are_the_pixels_that_the_network_saw(colours: nogs.Model) -> None:
    """Without resizing, the squares of the original are the patches."""
    square = np.random.default_rng(5).integers(0, 256, (IMAGE_PX, IMAGE_PX, 3), dtype=np.uint8)
    wide = np.random.default_rng(6).integers(0, 256, (IMAGE_PX, 3 * IMAGE_PX, 3), dtype=np.uint8)
    wide[:, IMAGE_PX : 2 * IMAGE_PX] = square
    pixels = torch.from_numpy(square).permute(2, 0, 1)[None]
    cells = colours(pixels).cells
    seen = look(pixels, colours.spec.grid, cells).patches[0].permute(0, 2, 3, 1).numpy()
    for image in (square, wide):
        answer = colours.predict(image)
        for patch, (row, column, side), box in zip(seen, answer.glimpses, answer.boxes, strict=True):
            np.testing.assert_array_equal(image[row : row + side, column : column + side], patch)
            assert box == (column, row, column + side, row + side)


def test_glimpses_of_an_enlarged_image_are_enlarged(colours: nogs.Model) -> None:
    """A picture of constant blocks of four pixels is reduced to the same picture of single pixels."""
    small = np.random.default_rng(5).integers(0, 256, (IMAGE_PX, IMAGE_PX, 3), dtype=np.uint8)
    large = np.asarray(Image.fromarray(small).resize((4 * IMAGE_PX, 4 * IMAGE_PX), Image.Resampling.NEAREST))
    answer, again = colours.predict(small), colours.predict(large)
    reduced = np.asarray(Image.fromarray(large).resize((IMAGE_PX, IMAGE_PX), Image.Resampling.LANCZOS))
    expected = colours.predict(reduced)
    assert [[4 * value for value in square] for square in expected.glimpses] == [list(sq) for sq in again.glimpses]
    assert answer.glimpses[0].side == GLIMPSE_PX


BAD: list[tuple[Any, str]] = [
    (np.zeros((16, 16), np.float32), r"has values of type float32, from 0 to 0: give uint8 in 0..255"),
    (np.linspace(0, 1, 768).reshape(16, 16, 3), r"has values of type float64, from 0 to 1: give uint8"),
    (np.zeros((16, 16), np.int64), r"has values of type int64"),
    (np.zeros((16, 16), bool), r"has values of type bool: give uint8"),
    (np.zeros((3, 16, 18), np.uint8), r"is an array of shape \(3, 16, 18\): put its channels last, with image.transp"),
    (np.zeros((10, 16, 18), np.uint8), r"is an array of shape \(10, 16, 18\): give \[H, W\], or .* several images as"),
    (np.zeros((0, 16), np.uint8), r"is an array of shape \(0, 16\), which is empty"),
    (np.zeros(16, np.uint8), r"is an array of shape \(16,\): give \[H, W\]"),
    (torch.zeros(16, 18, 3, dtype=torch.uint8), r"is a tensor of shape \(16, 18, 3\): put its channels first, with im"),
    (torch.zeros(3, 16, 16), r"has values of type float32"),
    (torch.zeros(2, 16, 16, dtype=torch.uint8), r"is a tensor of shape \(2, 16, 16\): give \[H, W\]"),
    (torch.zeros(3, 16, 16, dtype=torch.bfloat16), r"has values of type float32"),
    (Image.new("I;16", (16, 16)), r"has more than 8 bits a channel"),
    ("nowhere.png", r"nowhere.png: cannot be read: No such file"),
]


@pytest.mark.parametrize(("image", "complaint"), BAD)
def test_an_image_that_cannot_be_used_is_one_line(model: nogs.Model, image: Any, complaint: str) -> None:
    good = np.zeros((16, 16), np.uint8)
    with pytest.raises(nogs.UserError, match=complaint) as caught:
        model.predict([good, image])
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("images[1]: " if not isinstance(image, str) else image)
    with pytest.raises(nogs.UserError, match=complaint):
        model.predict(image)


def test_an_object_of_another_type_is_one_line() -> None:
    assert in_memory(7, None) == "is of type int: give a path, a PIL image, a NumPy array or a tensor"


def test_values_of_a_range_are_mapped_as_in_training(model: nogs.Model, images: list[np.ndarray[Any, Any]]) -> None:
    deep = nogs.Model(replace(model.spec, range=(0.0, 1.0)), model.network)
    expected = model.predict(images[0])
    assert deep.predict(images[0] / 255) == expected
    assert deep.predict(torch.from_numpy(images[0] / 255)) == expected
    assert deep.predict(images[0]) == expected


def test_no_images_are_no_answers(model: nogs.Model) -> None:
    assert model.predict([]) == []


@pytest.mark.parametrize("threshold", [float("nan"), 0.1])
def test_a_threshold_without_use_is_refused(model: nogs.Model, threshold: float) -> None:
    with pytest.raises(nogs.UserError, match="threshold"):
        model.predict(np.zeros((16, 16), np.uint8), threshold=threshold)


def test_a_saved_model_is_the_same_model(
    model: nogs.Model, stages: Stages, tmp_path: Path, images: list[np.ndarray[Any, Any]]
) -> None:
    """It is loaded from a folder, from its safetensors file alone, beside a foreign config.json, and by pickle."""
    expected = model.predict(images)
    model.save(tmp_path / "saved")
    model.save(str(tmp_path / "saved"))
    saved = tmp_path / "saved" / "model.safetensors"
    assert saved.read_bytes() == (stages.folder / "nogs-0" / "model.safetensors").read_bytes()
    (tmp_path / "alone").mkdir()
    shutil.copy(saved, tmp_path / "alone")
    assert nogs.load_model(str(tmp_path / "saved")).predict(images) == expected
    assert nogs.load_model(tmp_path / "alone").predict(images) == expected
    (tmp_path / "saved" / "config.json").write_text('{"architecture": "nogs"}')
    assert nogs.load_model(tmp_path / "saved").predict(images) == expected
    assert pickle.loads(pickle.dumps(model)).predict(images) == expected


def test_a_damaged_saved_model_is_refused(model: nogs.Model, tmp_path: Path) -> None:
    model.save(tmp_path)
    file = tmp_path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(nogs.UserError, match="is damaged, its SHA-256"):
        nogs.load_model(tmp_path)


def test_what_is_no_model_is_one_line(stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(stages.folder / "ram-0", unfinished)
    (unfinished / "COMPLETE").unlink()
    other = tmp_path / "other"
    other.mkdir()
    RunDirectory(other).save_tensors("model", {}, kind="posterior")
    for path, complaint in (
        (tmp_path, "holds no model: give a run directory of train, or a folder with model.safetensors"),
        (tmp_path / "absent", "does not exist: give a run directory of train, or owner/name on the hub"),
        ("owner/name", "model=owner/name is no folder here, and cannot be downloaded from the Hugging Face hub"),
        (unfinished, "is not finished"),
        (stages.folder / "bank", "is a run directory of `nogs build-bank`, not of `nogs train`"),
        (other, "is no network of kind 'attention'"),
    ):
        with pytest.raises(nogs.UserError, match=complaint) as caught:
            nogs.load_model(path)
        assert "\n" not in str(caught.value)


def test_a_plot_shows_image_and_numbered_glimpses(model: nogs.Model, images: list[np.ndarray[Any, Any]]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    answer = model.predict(images[0])
    axes = answer.plot()
    np.testing.assert_array_equal(axes.images[0].get_array(), np.repeat(images[0][..., None], 3, axis=2))
    assert [text.get_text() for text in axes.texts] == [str(number) for number in range(1, T + 1)]
    corners = [(patch.get_y() + 0.5, patch.get_x() + 0.5, patch.get_width()) for patch in axes.patches]
    assert corners == [tuple(square) for square in answer.glimpses]
    assert answer.label in axes.get_title()
    _, given = pyplot.subplots()
    assert model.plot(images[0], ax=given) is given
    pyplot.close("all")
