"""Paths that no file can have are refused in one line, whatever argument they are given to."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import nogs
import nogs.cli
import nogs.pipeline
import nogs.stages.build_bank
from nogs.data import cache
from nogs.errors import UserError
from tiny import driver
from typed import NOGS, good, refused


def long_name(place: Path) -> Path:
    return place / ("x" * 300)


def long_path(place: Path) -> Path:
    return place.joinpath(*["x" * 100] * 50)


def below_proc(place: Path) -> Path:
    return Path("/proc/nogs")


def dangling_link(place: Path) -> Path:
    (place / "dangling").symlink_to("nothing")
    return place / "dangling"


def below_a_dangling_link(place: Path) -> Path:
    return dangling_link(place) / "below"


def looping_link(place: Path) -> Path:
    (place / "loop").symlink_to("pool")
    (place / "pool").symlink_to("loop")
    return place / "loop"


def below_a_looping_link(place: Path) -> Path:
    return looping_link(place) / "below"


def not_utf8(place: Path) -> Path:
    return place / "\udcff\udcfe"


def unknown_user(place: Path) -> Path:
    return Path("~nobodyhere/below")


def below_a_file(place: Path) -> Path:
    (place / "file").touch()
    return place / "file" / "below"


PLACES = [
    *(long_name, long_path, below_proc, dangling_link, below_a_dangling_link, looping_link, below_a_looping_link),
    *(not_utf8, unknown_user, below_a_file),
]
ARGUMENTS: dict[str, tuple[object, ...]] = {
    "build-bank --out": ("build-bank",),
    "run --out": ("run", "--glimpse-size", 6, "--stride", 5, "--glimpses", 2),
    "build-bank --data folder:": ("build-bank", "--out", "out"),
    "build-bank --data csv:": ("build-bank", "--out", "out"),
    "build-bank --data npz:": ("build-bank", "--out", "out"),
    "build-bank --images": ("build-bank", "--out", "out"),
    "search --posterior": ("search", "--bank", "bank", "--out", "out"),
    "train --sequences": ("train", "--method", "ps-nogs", "--out", "out"),
    "record --model": ("record", "--out", "out"),
    "evaluate --models": ("evaluate", "--sequences", "sequences", "--out", "out"),
    "sequences import --sequences": ("sequences", "import", "--out", "out"),
    "sequences export --sequences": ("sequences", "export", "--out", "out"),
    "report --run": ("report",),
    "report --runs": ("report", "--out", "out"),
    "predict": ("predict", "image.png"),
}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("argument", ARGUMENTS)
def test_an_invalid_path_is_refused_and_nothing_is_written(
    argument: str, place: Callable[[Path], Path], tmp_path: Path
) -> None:
    flag = argument.split(" ")[-1]
    path = place(tmp_path)
    data = [] if "--data" in argument or ARGUMENTS[argument][0] not in ("run", "build-bank") else good(tmp_path)
    given = ["--data", f"{flag}{path}"] if flag.endswith(":") else [path] if flag == "predict" else [flag, path]
    before = set(tmp_path.rglob("*"))
    command, *others = ARGUMENTS[argument]
    words = (command, *given, *others) if flag == "predict" else (command, *others, *data, *given)
    ended = driver().run(*words, cwd=tmp_path)
    refused(ended, path.parts[1].replace("\udcff\udcfe", r"\udcff\udcfe"))
    assert set(tmp_path.rglob("*")) == before


def test_the_working_directory_was_removed(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    for command in ("report --run x", "build-bank --out x"):
        script = f'cd "{tmp_path}/gone" && rmdir ../gone && exec "{NOGS}" {command}'
        (tmp_path / "gone").mkdir(exist_ok=True)
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr == "nogs: the working directory does not exist any more: change to another one\n"


@pytest.mark.parametrize("command", ["--help", "--version", "run --help"])
def test_help_needs_no_working_directory(command: str, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    script = f'cd "{tmp_path}/gone" && rmdir ../gone && exec "{NOGS}" {command}'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_home_is_expanded_in_every_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert nogs.Machine(Path("~/runs")).out == tmp_path / "runs"
    assert nogs.Report(runs=(Path("~/a"), Path("b"))).runs == (tmp_path / "a", Path("b"))
    with pytest.raises(UserError, match=r"^runs=~nobodyhere/a: unknown user ~nobodyhere; give an absolute path$"):
        nogs.Report(runs=(Path("~nobodyhere/a"),))


def test_an_unknown_user_in_the_place_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOGS_CACHE", "~nobodyhere/cache")
    with pytest.raises(UserError, match=r"^NOGS_CACHE=~nobodyhere/cache: unknown user ~nobodyhere; give an absolute"):
        cache.directory()


MEMORY = "out of memory: choose a smaller --batch-size or --image-size or --hidden"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (OSError(errno.ENAMETOOLONG, "File name too long", "x"), 2, "x: File name too long; choose another path"),
        (
            OSError(errno.ENOENT, "No such file or directory", b"x"),
            2,
            "x: No such file or directory; choose another path",
        ),
        (OSError(errno.ELOOP, "Too many levels", "x"), 2, "x: Too many levels; choose another path"),
        (OSError(errno.EACCES, "", "x"), 2, "x: no permission to read or write here; choose another place"),
        (
            OSError(errno.ENOSPC, "", "x"),
            1,
            "the disk is full (x): remove files from it; the same command with --resume goes on from here",
        ),
        (OSError(errno.EIO, "Input/output error"), 1, "input or output: Input/output error"),
        (MemoryError(), 1, MEMORY),
        (RuntimeError("CUDA out of memory. Tried to allocate"), 1, MEMORY),
        (RuntimeError("[enforce fail at alloc] DefaultCPUAllocator: can't allocate memory: you tried"), 1, MEMORY),
        (UserError("stride=0: must be at least 1"), 2, "--stride 0: must be at least 1"),
        (nogs.RunError("use jobs=1"), 1, "use --jobs 1"),
        (KeyboardInterrupt(), 1, "stopped; the same command with --resume goes on from here"),
    ],
    ids=lambda value: repr(value) if isinstance(value, BaseException) else "",
)
def test_an_error_of_the_system_is_one_line(
    error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(config: nogs.Run) -> None:
        raise error

    monkeypatch.setattr(nogs.pipeline, "run", run)
    assert nogs.cli.main(["run", "--out", "x"]) == code
    assert capsys.readouterr().err == f"nogs: {line}\n"


@pytest.mark.parametrize("error", [RuntimeError("a bug"), OSError("of a library"), KeyError("x")], ids=repr)
def test_a_bug_keeps_its_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(config: nogs.Run) -> None:
        raise error

    monkeypatch.setattr(nogs.pipeline, "run", run)
    with pytest.raises(type(error)):
        nogs.cli.main(["run", "--out", "x"])


@pytest.mark.parametrize("inodes", range(1, 7))
def test_a_disk_without_inodes_is_never_a_success(inodes: int, tmp_path: Path) -> None:
    """A run is complete, marker and all, or exits with 1 and goes on once there are inodes again."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"nr_inodes={inodes}", "x", str(disk)]
    if os.getuid() or sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a disk takes root, on Linux")
    try:
        command = ("build-bank", *good(tmp_path), "--components", 4, "--out", disk / "out")
        ended = driver().run(*command)
        assert ended.code == int(not (disk / "out" / "COMPLETE").exists())
        if ended.code:
            assert ended.err.splitlines()[-1].startswith("nogs: the disk is full")
            subprocess.run(["mount", "-o", "remount,nr_inodes=100", str(disk)], check=True)
            assert driver().run(*command, "--resume").code == 0
        assert (disk / "out" / "COMPLETE").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
