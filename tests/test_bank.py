"""A bank of images of its own: shards built in one pass, that go on after a kill and tell when they are damaged."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import nogs
import nogs.stages.build_bank
from nogs.completion.bank import load_bank
from nogs.completion.retrieval import Retrieval
from nogs.completion.shards import Pictures, pack
from nogs.config.groups import Source
from nogs.data import load
from nogs.errors import UserError
from nogs.glimpses.fovea import look
from nogs.glimpses.grid import Grid
from nogs.runs.directory import RunDirectory, read_run
from nogs.runs.marker import write_marker
from nogs.sequences.table import load_sequences
from staged import Stages, same_bits
from tiny import GLIMPSE_PX, IMAGE_PX, STRIDE_PX, T, driver, pictures, write_npz

COUNT, SHARD = 23, 8
"""Three shards, the last of seven."""


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nogs.stages.build_bank, "SHARD", SHARD)


def folder_of(place: Path, *, count: int = COUNT) -> Path:
    """PNG files in two folders, and a hidden file, which is no image."""
    for index, picture in enumerate(pictures(np.arange(count) % 3, seed=5)):
        file = place / ("a", "b")[index % 2] / f"{index:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)
    (place / ".listing").write_text("hidden")
    return place


def expected_images(place: Path) -> Tensor:
    """The files in the order of their names, as Pillow alone reads them."""
    files = sorted(place.rglob("*.png"))
    return torch.from_numpy(np.stack([np.asarray(Image.open(file)) for file in files]))[:, None]


def build(tmp_path: Path, name: str, images: Path, *, resume: bool = False, skip_bad: bool = False) -> RunDirectory:
    npz = tmp_path / "images.npz"
    source = Source(data=f"npz:{npz if npz.exists() else write_npz(npz)}", skip_bad=skip_bad)
    machine = nogs.Machine(tmp_path / name, resume=resume, device="cpu")
    return nogs.build_bank(nogs.BuildBank(machine, source, images=images, components=16), lambda done, note: None)


def shards(run: RunDirectory) -> list[str]:
    return sorted(file.name for file in run.path.glob("shard-*.safetensors"))


@pytest.mark.parametrize("channels", [1, 3])
def test_packed_images_come_back_in_any_order(channels: int) -> None:
    """They are equal to within the loss of JPEG, and do not depend on what else is requested."""
    ramp = torch.linspace(0, 200, 12)[None, :, None] + 4 * torch.arange(12)
    images = torch.stack([(ramp + 2 * number).expand(channels, -1, -1) for number in range(5)]).to(torch.uint8)
    rows = torch.tensor([4, 0, 3, 0, 2])
    found = Pictures([pack(images[:2], torch.zeros(2, 1)), pack(images[2:], torch.zeros(3, 1))])(rows)
    assert (found.int() - images[rows].int()).abs().max() <= 4
    assert torch.equal(found[1], found[3])


@pytest.mark.usefixtures("small_shards")
def test_shards_hold_the_images_of_a_folder(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "faces")
    run = build(tmp_path, "bank", place)
    assert shards(run) == [f"shard-{number:05}.safetensors" for number in range(3)]
    assert [row["images"] for row in run.rows()] == [8, 8, 7]
    bank = load_bank(read_run(run.path, "build-bank"), load(Source(data=f"npz:{tmp_path / 'images.npz'}")))
    assert bank.groups is None
    assert [len(block) for block in bank.latents] == [8, 8, 7]
    expected = expected_images(place)
    found = bank.pictures(torch.arange(COUNT))
    assert found.shape == expected.shape
    # The stripes are as hard for JPEG as pictures get.
    assert (found.float() - expected.float()).abs().mean() < 3
    # Latents, by their definition: least squares, of the files themselves, to the three digits of half precision.
    basis, centred = bank.components.flatten(1).T.double(), (expected - bank.mean).flatten(1).T.double()
    z = torch.linalg.lstsq(basis, centred).solution.T
    torch.testing.assert_close(torch.cat(bank.latents).double(), z, rtol=8e-3, atol=8e-3)


def test_a_search_completes_from_a_bank_of_others(stages: Stages, tmp_path: Path) -> None:
    """They are retrieved by what was seen of them, straight or mirrored, and belong to no group."""
    bank = stages.bank(str(tmp_path / "bank"), images=folder_of(tmp_path / "faces"))
    searched = stages.search(str(tmp_path / "sequences"), bank=bank.path)
    assert load_sequences(searched).cells.shape[1] == T
    others = load_bank(bank, load(stages.source))
    images = others.pictures(torch.arange(COUNT))
    grid = Grid(IMAGE_PX, GLIMPSE_PX, STRIDE_PX)
    options = nogs.RetrievalOptions(completions=8, proposals=10, shift=0, effective=1 / 8)
    for picture in (images[[5]], images[[8]].flip(-1)):
        seen = look(picture, grid, torch.tensor([[0, 4, 8, 2]]))
        found = Retrieval(others, grid, options)(seen, groups=torch.tensor([5]), generator=torch.Generator())
        assert torch.equal(found.images, picture)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_build_that_was_stopped_goes_on_at_its_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    place = folder_of(tmp_path / "faces")
    whole = build(tmp_path, "whole", place)
    decode, batches = nogs.stages.build_bank.decode, []

    def stop_after(files, *how):  # type: ignore[no-untyped-def]
        batches.append(len(files))
        if len(batches) == after + 2:  # the first is the sample that PCA is fitted on
            raise KeyboardInterrupt
        return decode(files, *how)

    monkeypatch.setattr(nogs.stages.build_bank, "decode", stop_after)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, "stopped", place)
    assert not RunDirectory(tmp_path / "stopped").complete
    batches.clear()
    monkeypatch.setattr(
        nogs.stages.build_bank, "decode", lambda files, *how: batches.append(len(files)) or decode(files, *how)
    )
    stopped = build(tmp_path, "stopped", place, resume=True)
    assert batches == [8, 8, 7][after:]  # nothing that was done was done again
    assert shards(stopped) == shards(whole)
    assert same_bits(whole, stopped, "bank.safetensors", "components.safetensors", "log.jsonl", *shards(whole))


@pytest.mark.slow
def test_a_build_killed_between_changes_to_the_disk_goes_on_to_the_same_end(tmp_path: Path) -> None:
    command = (
        *("build-bank", "--data", f"npz:{write_npz(tmp_path / 'images.npz')}", "--components", 8),
        *("--images", folder_of(tmp_path / "faces"), "--out"),
    )
    ended = driver().run(*command, tmp_path / "whole")
    assert ended.code == 0, ended.err
    whole = RunDirectory(tmp_path / "whole")
    for moment in range(3, driver().changes() + 1, 3):
        out = tmp_path / str(moment)
        assert driver().run(*command, out, die_at=moment).code == -signal.SIGKILL
        ended = driver().run(*command, out, "--resume")
        assert ended.code == 0, ended.err
        assert same_bits(whole, RunDirectory(out), "bank.safetensors", "log.jsonl", *shards(whole))


@pytest.mark.usefixtures("small_shards")
def test_files_that_came_since_are_not_mixed_in(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "faces")
    run = build(tmp_path, "bank", place)
    (run.path / "COMPLETE").unlink()
    (place / "a" / "00.png").rename(place / "a" / "99.png")
    with pytest.raises(
        UserError, match=r"^images=.*faces: files were added or removed since .*bank was started.*another `out`$"
    ):
        build(tmp_path, "bank", place, resume=True)


def damage(file: Path) -> None:
    """One bit of one picture."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (damage, "is damaged, its SHA-256 is not the one in COMPLETE: restore it, or remove .*bank to make it again$"),
        (os.unlink, "is missing: restore it, or"),
    ],
    ids=["damaged", "missing"],
)
def test_a_shard_that_is_not_what_was_written_is_named(tmp_path: Path, harm, says: str) -> None:  # type: ignore[no-untyped-def]
    run = build(tmp_path, "bank", folder_of(tmp_path / "faces"))
    harm(run.path / "shard-00001.safetensors")
    with pytest.raises(UserError, match=rf"^.*shard-00001\.safetensors {says}"):
        load_bank(run, load(Source(data=f"npz:{tmp_path / 'images.npz'}")))


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


@pytest.mark.parametrize("harm", [truncate, lambda file: file.write_text("not an image")], ids=["truncated", "text"])
def test_an_image_that_cannot_be_read_is_named_and_can_be_left_out(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    harm,  # type: ignore[no-untyped-def]
) -> None:
    place = folder_of(tmp_path / "faces")
    harm(place / "b" / "07.png")
    with pytest.raises(UserError, match=r"^.*07\.png: .*; mend it.*skip_bad=True"):
        build(tmp_path, "bank", place)
    run = build(tmp_path, "without", place, skip_bad=True)
    assert [row["images"] for row in run.rows()] == [COUNT - 1]
    assert "07.png" in capsys.readouterr().err


def test_an_absent_or_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name, says in (("absent", "is not a folder"), ("file", "is not a folder"), ("empty", "has 0 usable images")):
        with pytest.raises(UserError, match=rf"^images=.*{name}: {says}"):
            build(tmp_path, "bank", tmp_path / name)
        assert not (tmp_path / "bank").exists()


def test_images_take_the_size_of_the_data(tmp_path: Path) -> None:
    for index in range(4):
        file = tmp_path / "large" / f"{index}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40 + index, 50), (10 * index,) * 3).save(file)
    build(tmp_path, "bank", tmp_path / "large")
    bank = load_bank(RunDirectory(tmp_path / "bank"), load(Source(data=f"npz:{tmp_path / 'images.npz'}")))
    assert bank.pictures(torch.arange(4)).shape == (4, 1, IMAGE_PX, IMAGE_PX)


def test_a_bank_of_an_older_nogs_is_refused_in_one_line(tmp_path: Path) -> None:
    run = build(tmp_path, "bank", folder_of(tmp_path / "faces"))
    run.save_tensors("bank", run.load_tensors("bank"))
    write_marker(run.path)
    with pytest.raises(UserError, match=r"^bank=.* was saved by an incompatible version: run `nogs build-bank` again$"):
        load_bank(run, load(Source(data=f"npz:{tmp_path / 'images.npz'}")))
