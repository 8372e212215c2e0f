"""Where runs are written and read: what is there already, who may write, and how much room there is."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import nogs.cli
import nogs.runs.directory
from tiny import GEOMETRY, driver
from typed import QUICK, folder, good, refused

NOBODY = 65534


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of build-bank, beside its images in good.npz."""
    place = tmp_path_factory.mktemp("bank")
    ended = driver().run("build-bank", *good(place), "--out", place / "bank")
    assert ended.code == 0, ended.err
    return place / "bank"


def test_a_directory_that_holds_another_run_is_left_alone(bank: Path) -> None:
    data = ("--data", f"npz:{bank.parent / 'good.npz'}")
    before = {file: file.read_bytes() for file in bank.iterdir()}
    again = ("build-bank", *data, "--out", bank)
    refused(driver().run(*again), f"--out {bank} holds another run", "add --resume", "or choose another")
    refused(
        driver().run(*again, "--resume", "--components", 9), "--components (had 256, now 9)", "choose another --out"
    )
    refused(driver().run("run", *data, "--out", bank), f"--out {bank} holds another run")
    refused(driver().run("run", *data, "--out", bank, "--resume"), "(had build-bank, now run)")
    assert {file: file.read_bytes() for file in bank.iterdir()} == before


@pytest.mark.parametrize("resume", [(), ("--resume",)], ids=["", "--resume"])
def test_files_that_are_not_ours_are_left_alone(tmp_path: Path, resume: tuple[str, ...]) -> None:
    thesis = tmp_path / "out" / "thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("mine")
    for stage in ("run", "train"):
        refused(driver().run(stage, *good(tmp_path), "--out", thesis.parent, *resume), "thesis.tex", "an empty one")
        refused(driver().run(stage, *good(tmp_path), "--out", thesis, *resume), f"{thesis} is a file", "a directory")
        below = thesis / "a" / "b"
        refused(driver().run(stage, *good(tmp_path), "--out", below, *resume), f"{thesis} is a file", "a directory")
    assert [file.name for file in thesis.parent.iterdir()] == ["thesis.tex"]
    assert thesis.read_text() == "mine"


@pytest.fixture
def as_nobody(tmp_path: Path) -> Iterator[int | None]:
    """Yield the user to run as: nobody if the tests run as root, whom no permission stops, else None (the same).

    Everyone may enter the folders above ``tmp_path`` meanwhile.
    """
    if os.getuid():
        yield None
        return
    modes = {place: place.stat().st_mode for place in (tmp_path, *tmp_path.parents)}
    modes = {place: mode for place, mode in modes.items() if not mode & 0o001}
    for place in modes:
        place.chmod(0o755)
    yield NOBODY
    for place, mode in modes.items():
        place.chmod(mode)


def test_no_permission(tmp_path: Path, as_nobody: int | None) -> None:
    data = good(tmp_path)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    for out in (locked / "out", locked):
        ended = driver().run("run", *GEOMETRY, *data, "--out", out, uid=as_nobody)
        refused(ended, f"--out {out}: no permission to write in {locked}", "choose another place")
    (tmp_path / "good.npz").chmod(0o000)
    (tmp_path / "free").mkdir()
    (tmp_path / "free").chmod(0o777)
    ended = driver().run("build-bank", *data, "--out", tmp_path / "free", uid=as_nobody)
    refused(ended, "good.npz", "Permission denied")
    assert not list((tmp_path / "free").iterdir())


def test_inputs_that_are_not_runs(tmp_path: Path, bank: Path) -> None:
    out = ("--out", tmp_path / "out")
    nowhere, good_npz = tmp_path / "nowhere", f"npz:{bank.parent / 'good.npz'}"
    mistakes: list[tuple[tuple[object, ...], list[str]]] = [
        (("search", "--posterior", nowhere, "--bank", bank), [f"{nowhere} is not a run directory"]),
        (("search", "--posterior", bank, "--bank", bank), ["of `nogs build-bank`, not of `nogs fit-posterior`"]),
        (("train", "--data", good_npz, "--method", "rum"), ["rum does not exist", "choose among ram, ps-nogs"]),
        (("train", "--data", good_npz, "--method", "ps-nogs"), ["give --sequences, a run of `nogs search`"]),
        (("evaluate", "--models", nowhere, "--sequences", nowhere), [f"{nowhere} is not a run directory"]),
    ]
    for args, says in mistakes:
        refused(driver().run(*args, *out), *says)
        assert not (tmp_path / "out").exists()
    refused(driver().run("report", "--run", bank), f"--run {bank} holds no evaluation", "nogs run")
    refused(
        driver().run("predict", nowhere, bank.parent / "good.npz"), f"{nowhere} does not exist: give a run directory"
    )
    refused(driver().run("predict", bank, bank.parent / "good.npz"), "not of `nogs train`")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.getuid() or not sys.platform.startswith("linux") or not _mount("-t", "tmpfs", "-o", "size=1m", "x", place):
        pytest.skip("mounting a small disk takes root, on Linux")
    yield place
    subprocess.run(["umount", place], check=True)


def _mount(*args: object) -> bool:
    return not subprocess.run(["mount", *map(str, args)], capture_output=True, check=False).returncode


@pytest.mark.parametrize("stage", ["fit-posterior", "build-bank"])
def test_a_full_disk_is_named_and_once_there_is_room_the_run_goes_on(
    tmp_path: Path, small_disk: Path, stage: str
) -> None:
    quick = () if stage == "build-bank" else QUICK
    command = (stage, *good(tmp_path), *quick, "--out")
    (small_disk / "ballast").write_bytes(b"\0" * (960_000 if stage == "build-bank" else 300_000))
    ended = driver().run(*command, small_disk / "out")
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith("nogs: the disk is full")
    assert "--resume" in ended.err
    assert "Traceback" not in ended.err
    assert not (small_disk / "out" / "COMPLETE").exists()
    (small_disk / "ballast").unlink()
    assert _mount("-o", "remount,size=64m", small_disk)
    ended = driver().run(*command, small_disk / "out", "--resume")
    assert ended.code == 0, ended.err
    assert driver().run(*command, tmp_path / "roomy").code == 0
    name = "bank.safetensors" if stage == "build-bank" else "model.safetensors"
    found, expected = load_file(small_disk / "out" / name), load_file(tmp_path / "roomy" / name)
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [
        (errno.ENOSPC, 1, "the disk is full"),
        (errno.EDQUOT, 1, "the disk is full"),
        (errno.EACCES, 2, "no permission to read or write here"),
        (errno.EROFS, 2, "no permission to read or write here"),
    ],
    ids=["full", "quota", "permission", "read-only"],
)
def test_errors_of_the_file_system_become_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    code: int,
    says: str,
) -> None:
    def refuse(self: Path, *args: object, **how: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "replace", refuse)
    args = ["build-bank", *map(str, good(tmp_path)), "--out", str(tmp_path / "out")]
    assert nogs.cli.main(args) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("nogs: ")
    assert says in error
    assert "provenance.json" in error
    assert not (tmp_path / "out" / "provenance.json.partial").exists()  # it gave the room back


def test_the_cache_may_be_unwritable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("NOGS_CACHE", str(tmp_path / "cache"))
    root = folder(tmp_path / "set", {"cats": 5, "dogs": 5})
    assert nogs.cli.main(["build-bank", "--data", f"folder:{root}", "--out", str(tmp_path / "out")]) == 0
    shutil.rmtree(root)
