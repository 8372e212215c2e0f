"""The command line as a new user meets it: help at once, and words that stand for nothing answered in one line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

import nogs.cli
import nogs.runs.directory
import nogs.stages.predict
from tiny import CLASSES, Ended, driver, wait_for
from typed import NOGS, QUICK, good, refused, save, typed

COMMANDS = (
    *("demo", "run", "bench", "fit-posterior", "build-bank", "search", "record", "train", "fit-stopping", "baselines"),
    *("sequences import", "sequences export", "evaluate", "report", "predict", "slides"),
)


def test_help_needs_no_torch() -> None:
    """Imports are compared, not seconds, because seconds depend on the machine."""
    script = f"""
import sys
from nogs.cli import main
for command in ([], *(name.split() for name in {COMMANDS})):
    try:
        main([*command, "--help"])
    except SystemExit as end:
        assert not end.code, command
heavy = {{"torch", "torchvision", "timm", "numpy", "scipy", "sklearn", "matplotlib", "PIL"}} & sys.modules.keys()
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
        ((), "command"),
        (("sequences",), "sequences import"),
        (("frobnicate",), "frobnicate"),
        (("run",), "--out"),
        (("run", "--out", "x", "--frobnicate"), "--frobnicate"),
        (("run", "--out", "x", "--glimpses", "many"), "--glimpses"),
        (("run", "--out", "x", "--seeds", "0,one"), "--seeds"),
        (("train", "--out", "x", "--supervision", "strict"), "--supervision"),
        (("predict",), "MODEL"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_that_does_not_parse(args: tuple[str, ...], culprit: str, tmp_path: Path) -> None:
    ended = driver().run(*args, cwd=tmp_path)
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert culprit in ended.err
    assert not list(tmp_path.iterdir())
    refused(ended)


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ("frobnicate", r"nogs: there is no command frobnicate: choose among demo, run, .*"),
        (
            "run --out x --iteration 3",
            r"nogs: --iteration: `nogs run` takes no such argument; did you mean --iterations\?",
        ),
        ("run --out x --qqq", r"nogs: --qqq: `nogs run` takes no such argument; see `nogs run --help`"),
        ("run --out x --glimpses 3 4", r"nogs: 4: `nogs run` takes no such argument; see `nogs run --help`"),
        ("train --out x --methods ram", r"nogs: --methods: `nogs train` .*; did you mean --method\?"),
        ("train --out x --method x", r"nogs: --method x does not exist: choose among ram, ps-nogs\b.*"),
        (
            "train --out x --supervision strict",
            r"nogs: .*'strict'.*'--supervision'.*'location', 'published'.*",
        ),
        ("train --out x --hidden 1.5", r"nogs: .*--hidden: .*'1.5'; .*--hidden INT hidden units.*"),
        (
            "search --bank x",
            r"nogs: .*--posterior PATH .*--out PATH run directory to write \(required\); .*nogs search --help",
        ),
        ("run --out", r"nogs: .*'--out'.*nogs run --help"),
    ],
)
@pytest.mark.parametrize("columns", [60, 200])
def test_errors_of_the_parser_are_one_line_with_the_fix(
    args: str, line: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The parser draws a box as wide as the terminal, which must not break the line."""
    monkeypatch.setenv("COLUMNS", str(columns))
    assert nogs.cli.main(args.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(line + r"\n", printed.err)
    assert not re.search(r"[│─╭╯\x1b]", printed.err)


def test_version_option(capsys: pytest.CaptureFixture[str]) -> None:
    """`nogs --version`, `nogs.__version__` and the installed distribution have one version."""
    assert nogs.cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"nogs {nogs.__version__}\n"
    assert nogs.__version__ == version("nogs")


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("glimpse_px=40 exceeds image_px=32", "--glimpse-size 40 exceeds --image-size 32"),
        ("stride_px=0: must be at least 1", "--stride 0: must be at least 1"),
        ("seeds=0,1,0: give each once", "--seeds 0,1,0: give each once"),
        ("add resume=True", "add --resume"),
        ("or mirror=False.", "or --no-mirror."),
        ("give `sequences`, a run of `nogs search`", "give --sequences, a run of `nogs search`"),
        ("(split_seed=3, `task`)", "(--split-seed 3, --task)"),
        ("data=folder:/images/seed=3/out=4: no image", "--data folder:/images/seed=3/out=4: no image"),
        ("focus=2.0 is no option of this command", "focus=2.0 is no option of this command"),
        ("`focus` neither, nor is seed =3", "`focus` neither, nor is seed =3"),
    ],
)
def test_arguments_become_flags(message: str, line: str) -> None:
    assert nogs.cli.in_flags(message, "run") == line


def test_positional_arguments_become_their_words() -> None:
    assert nogs.cli.in_flags("model=runs/x is unfinished; see `images`", "predict") == (
        "MODEL runs/x is unfinished; see IMAGE"
    )


@pytest.mark.parametrize("edges", ["╭─ ─╮│╰╯", "+- -+|++"])
@pytest.mark.parametrize("colour", ["", "\x1b[31m"])
def test_the_box_of_the_parser_is_undone(edges: str, colour: str) -> None:
    left, right, side, low_left, low_right = edges[0], edges[-4], edges[-3], edges[-2], edges[-1]
    line = edges[1]
    box = "\n".join(
        (
            f"{colour}{left}{line} Value error {line * 9}{right}",
            f"{colour}{side} 'x' is not     {side}",
            f"{side} a number.      {side}",
            f"{side} {line * 14} {side}",
            f"{side} --help | more  {side}",
            f"{low_left}{line * 16}{low_right}",
        )
    )
    assert nogs.cli._without_box(box) == "Value error: 'x' is not a number; --help | more"


def test_help_names_the_positional_arguments() -> None:
    ended = driver().run("predict", "--help")
    assert ended.code == 0
    assert " MODEL IMAGE" in ended.out.splitlines()[0]
    assert "╭─ positional arguments" in ended.out  # help keeps its boxes


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--iterations", 0), "--iterations 0: must be at least 1"),
        (("--batch-size", -1), "--batch-size -1: must be at least 1"),
        (("--validate-every", 0), "--validate-every 0: must be at least 1"),
        (("--annotate", 0), "--annotate 0: must be at least 1"),
        (("--seeds", "0,-1"), "--seeds -1: must be at least 0"),
        (("--split-seed", -1), "--split-seed -1: must be at least 0"),
        (("--jobs", -1), "--jobs -1: must be at least 0"),
        (("--scales", 0), "--scales 0: must be at least 1"),
        (("--stride", 0), "--stride 0: must be at least 1"),
        (("--image-size", 0), "--image-size 0: must be at least 1"),
        (("--learning-rate", "nan"), "--learning-rate nan: must be a number"),
        (("--learning-rate", 0), "--learning-rate 0.0: must be greater than 0"),
        (("--seeds", ","), "--seeds (none): give one or more"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_meaningless_numbers_are_refused(tmp_path: Path, flags: tuple[object, ...], reason: str) -> None:
    refused(driver().run("run", *good(tmp_path), *flags, "--out", tmp_path / "out"), reason)
    assert not (tmp_path / "out").exists()


def test_files_that_are_not_images(tmp_path: Path) -> None:
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
    # Of several, those that can be read are answered. Glimpses are in pixels of the file, whose centre is cropped.
    folder = tmp_path / "photographs"
    folder.mkdir()
    (folder / "broken.png").write_bytes(b"no image")
    save(np.zeros((40, 32, 3), dtype=np.uint8), folder / "tall.png")
    ended = driver().run("predict", trained, folder, "--json")
    assert ended.code == 1
    assert "broken.png: " in ended.err.splitlines()[0]
    assert "1 of 2 images cannot be read" in ended.err.splitlines()[-1]
    (answer,) = map(json.loads, ended.out.splitlines())
    assert answer["file"].endswith("tall.png")
    assert all(4 <= row <= 36 - 12 and 0 <= column <= 32 - 12 for row, column in answer["glimpses"])


@pytest.mark.parametrize("presses", [1, 3])
def test_control_c_stops_with_one_line_that_names_resume(presses: int, tmp_path: Path) -> None:
    command = ("train", *good(tmp_path), *QUICK, "--iterations", 10_000, "--out", tmp_path / "out")
    pid = driver().start(*command)
    wait_for((tmp_path / "out" / "log.jsonl").exists, "a first validation")
    ended = interrupted(pid, presses)
    assert ended.err.splitlines()[-1].startswith("nogs: stopped; the same command with --resume goes on")
    # Interrupted in open(), the interpreter reports the unclosed file itself: that one traceback is not ours.
    lines = ended.err.splitlines()
    ours = [
        line for before, line in zip(["", *lines], lines, strict=False) if not before.startswith("Exception ignored")
    ]
    assert not [line for line in ours if line.startswith("Traceback")]
    assert "KeyboardInterrupt" not in ended.err


def test_control_c_while_the_command_ends_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pressed again at every moment of the ending: in a clean-up, and as the line is printed."""
    written = []

    class Terminal(io.StringIO):
        def write(self, text: str) -> int:
            os.kill(os.getpid(), signal.SIGINT)
            written.append(text)
            return len(text)

    def predict(config: nogs.Predict) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(nogs.stages.predict, "predict", predict)
    monkeypatch.setattr(sys, "stderr", Terminal())
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert nogs.cli.main(["predict", "model"]) == 1
    finally:
        signal.signal(signal.SIGINT, before)
    assert "".join(written) == "nogs: stopped\n"


@pytest.mark.parametrize("command", ["--help", "run --help", "--version"])
def test_a_closed_pipe_is_no_error(command: str) -> None:
    """The reader closes the pipe, as `head` does in `nogs predict ... | head`."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([NOGS, *command.split()], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("seconds", [0.2, 0.5])
def test_control_c_while_workers_start(seconds: float, tmp_path: Path) -> None:
    """A terminal sends it to all processes of the command, and a worker that imports has no handler of its own."""
    command = ("run", *good(tmp_path), *QUICK, "--posterior-iterations", 20, "--annotate", 15, "--jobs", 2)
    pid = driver().start(*command, "--out", tmp_path / "out")
    children = Path(f"/proc/{pid}/task/{pid}/children")
    if not children.exists():
        pytest.skip("the processes of a command are listed by Linux alone")
    wait_for(lambda: len(children.read_text().split()) == 3, "two workers, and what tracks their resources")
    time.sleep(seconds)
    ended = interrupted(pid, 2)
    # The driver's processes end without the clean-up of an interpreter, of which the resource tracker warns.
    assert [line for line in ended.err.splitlines() if line.startswith("nogs: ")] == [
        "nogs: stopped; the same command with --resume goes on from here"
    ]
    assert "Traceback" not in ended.err
    assert "KeyboardInterrupt" not in ended.err


def interrupted(pid: int, presses: int) -> Ended:
    """Press Ctrl-C, as a terminal does: the signal goes to the process group."""
    for _ in range(presses):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGINT)
        time.sleep(0.1)
    ended = driver().wait(pid)
    assert ended.code == 1
    return ended


def test_a_bug_is_not_reported_as_invalid_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It keeps its traceback; Python then exits with 1."""

    def broken(*args: object, **how: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr(nogs.runs.directory, "environment", broken)
    with pytest.raises(KeyError, match="oops"):
        nogs.cli.main(["build-bank", *map(str, good(tmp_path)), "--out", str(tmp_path / "out")])
