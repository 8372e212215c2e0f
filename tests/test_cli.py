"""The command line as a new user meets it: help at once, and every mistake answered in one line."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import nogs.cli
import nogs.rundir
from tiny import CLASSES, GEOMETRY, Ended, driver, pictures, wait_for, write_npz

COMMANDS = ("demo", "run", "fit-posterior", "build-bank", "search", "train", "evaluate", "report", "predict")
NOGS = str(Path(sys.executable).parent / "nogs")
NOBODY = 65534
QUICK = (*GEOMETRY, "--iterations", 40, "--batch-size", 32, "--validate-every", 10)


def typed(*args: object) -> Ended:
    """The installed command, in a process of its own."""
    done = subprocess.run([NOGS, *map(str, args)], capture_output=True, text=True, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


def refused(ended: Ended, *says: str) -> None:
    """Exit code 2, and one line that names the culprit and the fix."""
    assert ended.code == 2, ended
    assert ended.err.startswith("nogs: ")
    assert len(ended.err.splitlines()) == 1, ended.err
    assert ended.err.endswith("\n")
    assert ended.out == ""
    for part in says:
        assert part in ended.err


def test_help_needs_no_torch() -> None:
    """What takes long is what is imported; how long it takes depends on the machine."""
    script = f"""
import sys
from nogs.cli import main
for command in ([], *([name] for name in {COMMANDS})):
    try:
        main([*command, "--help"])
    except SystemExit as end:
        assert not end.code, command
heavy = {{"torch", "torchvision", "timm", "numpy", "sklearn", "matplotlib", "PIL"}} & sys.modules.keys()
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f"nogs {name}" in done.stdout for name in COMMANDS)


def test_help_of_the_installed_command() -> None:
    ended = typed("--help")
    assert ended.code == 0
    assert ended.err == ""
    assert all(name in ended.out for name in COMMANDS)
    ended = typed("run", "--help")
    assert ended.code == 0
    flags = "--data --task --image-size --glimpse-size --stride --glimpses --batch-size --iterations --methods"
    for flag in (*flags.split(), "--annotate", "--seeds", "--device", "--out", "--resume"):
        assert flag in ended.out


@pytest.mark.parametrize(
    ("args", "culprit"),
    [
        ((), "subcommand"),
        (("frobnicate",), "frobnicate"),
        (("run",), "--out"),
        (("run", "--out", "x", "--frobnicate"), "--frobnicate"),
        (("run", "--out", "x", "--glimpses", "many"), "--glimpses"),
        (("run", "--out", "x", "--seeds", "0,one"), "--seeds"),
        (("train", "--out", "x", "--supervision", "strict"), "--supervision"),
        (("predict",), "PATH"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_that_does_not_parse(args: tuple[str, ...], culprit: str, tmp_path: Path) -> None:
    ended = driver().run(*args, cwd=tmp_path)
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert culprit in ended.err
    assert not list(tmp_path.iterdir())


def save(image: np.ndarray[Any, Any], file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file)
    return file


def folder(root: Path, counts: dict[str, int], suffix: str = "png") -> Path:
    """Images of one folder a class."""
    root.mkdir()
    for label, (name, count) in enumerate(counts.items()):
        for place, image in enumerate(pictures(np.full(count, label), seed=label)):
            save(image, root / name / f"{place}.{suffix}")
    return root


def table(root: Path, rows: list[str]) -> Path:
    """A CSV of ten images, ``rows`` among them."""
    folder(root, {"a": 5, "b": 5})
    good = [f"{name}/{place}.png,{name}" for name in "ab" for place in range(5)]
    (root / "table.csv").write_text("\n".join(["file,label", good[0], *rows, *good[1:]]))
    return root / "table.csv"


def empty_folder(place: Path) -> tuple[list[object], list[str]]:
    (place / "empty").mkdir()
    return ["--data", f"folder:{place / 'empty'}"], [str(place / "empty"), "give each class a folder of images"]


def folder_without_images(place: Path) -> tuple[list[object], list[str]]:
    (place / "set" / "cats").mkdir(parents=True)
    return ["--data", f"folder:{place / 'set'}"], ["cats has no images", "fill or remove it"]


def class_of_one(place: Path) -> tuple[list[object], list[str]]:
    root = folder(place / "set", {"cats": 5, "dogs": 1})
    return ["--data", f"folder:{root}"], ["class dogs has 1 image", "give it three or more"]


def one_class(place: Path) -> tuple[list[object], list[str]]:
    return ["--data", f"folder:{folder(place / 'set', {'cats': 5})}"], ["only one class, cats", "give two or more"]


def truncated_jpeg(place: Path) -> tuple[list[object], list[str]]:
    file = folder(place / "set", {"cats": 5, "dogs": 5}, "jpg") / "dogs" / "3.jpg"
    file.write_bytes(file.read_bytes()[:-200])
    return ["--data", f"folder:{place / 'set'}"], [str(file), "runcated", "--skip-bad"]


def not_an_image(place: Path) -> tuple[list[object], list[str]]:
    file = folder(place / "set", {"cats": 5, "dogs": 5}) / "cats" / "notes.txt"
    file.write_text("mine")
    return ["--data", f"folder:{place / 'set'}"], [str(file), "not an image", "--skip-bad"]


def sizes_that_differ(place: Path) -> tuple[list[object], list[str]]:
    root = folder(place / "set", {"cats": 5, "dogs": 5})
    file = save(np.zeros((20, 30), dtype=np.uint8), root / "dogs" / "wide.png")
    return ["--data", f"folder:{root}"], [str(file), "30x20", "16x16", "--image-size"]


def missing_file(place: Path) -> tuple[list[object], list[str]]:
    file = table(place / "set", ["a/9.png,a"])
    return ["--data", f"csv:{file}"], [f"{file} line 3", "a/9.png", "--skip-bad"]


def nan_label(place: Path) -> tuple[list[object], list[str]]:
    file = table(place / "set", ["a/4.png,NaN"])
    return ["--data", f"csv:{file}"], [f"{file} line 3", "column label", "'NaN'", "--skip-bad"]


def nan_in_an_archive(place: Path) -> tuple[list[object], list[str]]:
    y = np.arange(30) % 3.0
    y[7] = np.nan
    np.savez(place / "nan.npz", x=pictures(np.zeros(30, dtype=int), 0), y=y)
    return ["--data", f"npz:{place / 'nan.npz'}"], ["nan.npz row 7", "nan", "--skip-bad"]


def pickled_archive(place: Path) -> tuple[list[object], list[str]]:
    np.savez(place / "objects.npz", x=np.array([{}, {}], dtype=object), y=np.zeros(2))
    return ["--data", f"npz:{place / 'objects.npz'}"], ["objects.npz", "np.savez(path, x=x, y=y)"]


def no_such_place(place: Path) -> tuple[list[object], list[str]]:
    return ["--data", f"folder:{place / 'nowhere'}"], [f"{place / 'nowhere'} does not exist"]


def no_such_source(place: Path) -> tuple[list[object], list[str]]:
    return ["--data", f"foldr:{place}"], ["foldr", f"did you mean folder:{place}?"]


def good(place: Path) -> list[object]:
    return ["--data", f"npz:{write_npz(place / 'good.npz')}"]


def large_glimpse(place: Path) -> tuple[list[object], list[str]]:
    return [*good(place), "--glimpse-size", 17], ["--glimpse-size 17", "16 px", "choose at most 16"]


def many_glimpses(place: Path) -> tuple[list[object], list[str]]:
    return [*good(place), "--glimpses", 10], ["--glimpses 10", "9 locations", "choose 1 to 9"]


def no_glimpses(place: Path) -> tuple[list[object], list[str]]:
    return [*good(place), "--glimpses", 0], ["--glimpses 0", "choose 1 to 9"]


def no_such_task(place: Path) -> tuple[list[object], list[str]]:
    npz = write_npz(place / "labels.npz", multilabel=True)
    return ["--data", f"npz:{npz}", "--task", "bald"], ["--task bald", "choose one of striped, across"]


def no_task(place: Path) -> tuple[list[object], list[str]]:
    return ["--data", f"npz:{write_npz(place / 'labels.npz', multilabel=True)}"], ["--task", "striped, across"]


def task_of_one_label(place: Path) -> tuple[list[object], list[str]]:
    return [*good(place), "--task", "bald"], ["--task bald", "one label only"]


def no_such_method(place: Path) -> tuple[list[object], list[str]]:
    return [*good(place), "--methods", "ram,rum"], ["--methods rum", "choose among ram, ps-nogs"]


def no_such_device(place: Path) -> tuple[list[object], list[str]]:
    return [*good(place), "--device", "abacus"], ["--device abacus", "choose auto, cpu, cuda or mps"]


def a_method_twice(place: Path) -> tuple[list[object], list[str]]:
    return [*good(place), "--methods", "ram,ram"], ["--methods ram,ram", "each once"]


def a_seed_twice(place: Path) -> tuple[list[object], list[str]]:
    return [*good(place), "--seeds", "0,1,0"], ["--seeds 0,1,0", "each once"]


@pytest.mark.parametrize(
    "mistake",
    [
        empty_folder,
        folder_without_images,
        class_of_one,
        one_class,
        truncated_jpeg,
        not_an_image,
        sizes_that_differ,
        missing_file,
        nan_label,
        nan_in_an_archive,
        pickled_archive,
        no_such_place,
        no_such_source,
        large_glimpse,
        many_glimpses,
        no_glimpses,
        no_such_task,
        no_task,
        task_of_one_label,
        no_such_method,
        no_such_device,
        a_method_twice,
        a_seed_twice,
    ],
    ids=lambda mistake: mistake.__name__,
)
def test_a_mistake_is_answered_in_one_line_and_leaves_nothing(
    tmp_path: Path, mistake: Callable[[Path], tuple[list[object], list[str]]]
) -> None:
    args, says = mistake(tmp_path)
    before = set(tmp_path.rglob("*"))
    geometry = [] if "--glimpses" in args or "--glimpse-size" in args else GEOMETRY
    small = ("--glimpse-size", 6, "--stride", 5) if "--glimpses" in args else ()
    refused(driver().run("run", *geometry, *small, *args, "--out", tmp_path / "out"), *says)
    assert set(tmp_path.rglob("*")) == before


def test_the_installed_command_says_the_same(tmp_path: Path) -> None:
    args, says = class_of_one(tmp_path)
    refused(typed("fit-posterior", *args, "--out", tmp_path / "out"), *says)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["fit-posterior", "build-bank", "train"])
def test_a_stage_with_a_mistake_leaves_nothing_and_can_be_typed_again(tmp_path: Path, stage: str) -> None:
    args, says = truncated_jpeg(tmp_path)
    quick = ("--components", 4) if stage == "build-bank" else QUICK
    refused(driver().run(stage, *args, *quick, "--out", tmp_path / "out"), *says)
    assert not (tmp_path / "out").exists()
    ended = driver().run(stage, *args, "--skip-bad", *quick, "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert "3.jpg" in ended.err  # what was left out is listed


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--iterations", 0), "--iterations 0: must be at least 1"),
        (("--batch-size", -1), "--batch-size -1: must be at least 1"),
        (("--validate-every", 0), "--validate-every 0: must be at least 1"),
        (("--annotate", 0), "--annotate 0: must be at least 1"),
        (("--seeds", "0,-1"), "--seeds -1: must be at least 0"),
        (("--split-seed", -1), "--split-seed -1: must be at least 0"),
        (("--jobs", -1), "--jobs -1: must be at least 0"),
        (("--scales", 0), "--scales 0: must be at least 1"),
        (("--stride", 0), "--stride is 0: it must be at least 1"),
        (("--image-size", 0), "--image-size 0: must be one pixel or more"),
        (("--learning-rate", "nan"), "--learning-rate nan: must be greater than 0"),
        (("--learning-rate", 0), "--learning-rate 0.0: must be greater than 0"),
        (("--seeds", ","), "--seeds (none): give one or more"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_numbers_that_mean_nothing(tmp_path: Path, flags: tuple[object, ...], says: str) -> None:
    refused(driver().run("run", *good(tmp_path), *flags, "--out", tmp_path / "out"), says)
    assert not (tmp_path / "out").exists()


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
def test_a_strangers_files_are_left_alone(tmp_path: Path, resume: tuple[str, ...]) -> None:
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
    """Permissions mean nothing to root: give that up where the tests run as root. All of tmp_path can be reached."""
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


def test_inputs_of_stages_that_are_none(tmp_path: Path, bank: Path) -> None:
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
    refused(driver().run("predict", nowhere, bank.parent / "good.npz"), f"{nowhere} is not a run directory")
    refused(driver().run("predict", bank, bank.parent / "good.npz"), "not of `nogs train`")


def test_images_that_are_none(tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    ended = driver().run("train", *good(tmp_path), *QUICK, "--out", trained)
    assert ended.code == 0, ended.err
    refused(driver().run("predict", trained), "no image is given", "one or more")
    refused(driver().run("predict", trained, tmp_path / "nothing.png"), "nothing.png", "No such file")
    refused(driver().run("predict", trained, tmp_path / "good.npz"), "good.npz", "not an image")
    picture = save(np.zeros((40, 30, 3), dtype=np.uint8), tmp_path / "a photograph.png")
    ended = driver().run("predict", trained, picture)
    assert ended.code == 0, ended.err
    assert ended.out.startswith(f"{picture}: ")
    assert ended.out.split(": ")[-1].split(" ")[0] in CLASSES


def test_control_c_stops_and_says_how_to_go_on(tmp_path: Path) -> None:
    command = ("train", *good(tmp_path), *QUICK, "--iterations", 10_000, "--out", tmp_path / "out")
    pid = driver().start(*command)
    wait_for((tmp_path / "out" / "log.jsonl").exists, "a first validation")
    os.kill(pid, signal.SIGINT)
    ended = driver().wait(pid)
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith("nogs: stopped; the same command with --resume goes on")
    # Interrupted in open(), the interpreter reports the unclosed file itself: that one traceback is not ours.
    lines = ended.err.splitlines()
    ours = [
        line for before, line in zip(["", *lines], lines, strict=False) if not before.startswith("Exception ignored")
    ]
    assert not [line for line in ours if line.startswith("Traceback")]
    assert "KeyboardInterrupt" not in ended.err


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
    (small_disk / "ballast").write_bytes(b"\0" * (900_000 if stage == "build-bank" else 300_000))
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
def test_what_the_disk_says_becomes_one_line(
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


def test_a_bug_is_no_users_mistake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It keeps its traceback; Python then exits with 1."""

    def broken(*args: object, **how: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr(nogs.rundir, "_environment", broken)
    with pytest.raises(KeyError, match="oops"):
        nogs.cli.main(["build-bank", *map(str, good(tmp_path)), "--out", str(tmp_path / "out")])


def test_the_cache_may_be_unwritable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("NOGS_CACHE", str(tmp_path / "cache"))
    root = folder(tmp_path / "set", {"cats": 5, "dogs": 5})
    assert nogs.cli.main(["build-bank", "--data", f"folder:{root}", "--out", str(tmp_path / "out")]) == 0
    shutil.rmtree(root)
