"""Sets of images small enough to run every stage on, and `nogs` commands in processes that can be killed anywhere.

Importing nogs takes seconds, so a driver imports it once and forks a process for each command. As a typed command, the
process has its own files and exit code, and can be killed alone.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

IMAGE_PX, GLIMPSE_PX, STRIDE_PX, T = 16, 6, 5, 2
CLASSES = ("0", "1", "2")
GEOMETRY = ("--glimpse-size", str(GLIMPSE_PX), "--stride", str(STRIDE_PX), "--glimpses", str(T))
"""Nine locations: glimpses at 0, 5 and 10 pixels."""


def pictures(labels: np.ndarray[Any, Any], seed: int) -> np.ndarray[Any, Any]:
    """uint8 [N, 16, 16]: stripes across, stripes down or a chessboard in one of nine places, on faint noise."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 40, (len(labels), IMAGE_PX, IMAGE_PX), dtype=np.uint8)
    row, column = np.indices((GLIMPSE_PX, GLIMPSE_PX))
    stamps = [255 * (of % 2 == 0) for of in (row, column, row + column)]
    for image, label in zip(x, labels, strict=True):
        top, left = rng.integers(0, 3, 2) * STRIDE_PX
        image[top : top + GLIMPSE_PX, left : left + GLIMPSE_PX] = stamps[label]
    return x


def write_npz(path: Path, *, count: int = 160, multilabel: bool = False) -> Path:
    """A set of three classes, or of two labels (`striped`: not a chessboard; `across`), split 100/30/30."""
    y = np.arange(count) % len(CLASSES)
    x = pictures(y, seed=0)
    split = np.repeat(["train", "val", "test"], [count - 60, 30, 30])
    if multilabel:
        np.savez(path, x=x, y=np.stack((y < 2, y == 0), 1).astype(int), names=["striped", "across"], split=split)
    else:
        np.savez(path, x=x, y=y, split=split)
    return path


class Ended(NamedTuple):
    code: int
    out: str
    err: str


class Driver:
    """Runs `nogs` commands, each in a process of its own; ``folder`` is for their output."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process, self._folder = process, folder

    def start(
        self,
        *args: object,
        checkpoint_seconds: float = 0.0,
        die_at: int | None = None,
        uid: int | None = None,
        cwd: Path | None = None,
    ) -> int:
        """Start a command, or a Python file that uses nogs, and return its process id.

        ``die_at`` n: SIGKILL at its n-th change to the disk.
        """
        return int(
            self._ask(
                args=[str(arg) for arg in args],
                files=[str(self._folder / name) for name in ("out", "err", "changes")],
                checkpoint_seconds=checkpoint_seconds,
                die_at=die_at,
                uid=uid,
                cwd=str(cwd or self._folder),
            )
        )

    def wait(self, pid: int) -> Ended:
        """Its exit code (minus the signal, if one ended it) and what it printed."""
        code = int(self._ask(wait=pid))
        return Ended(code, (self._folder / "out").read_text(), (self._folder / "err").read_text())

    def run(self, *args: object, **how: Any) -> Ended:
        return self.wait(self.start(*args, **how))

    def changes(self) -> int:
        """How often the last command that came to its end changed the disk."""
        return int((self._folder / "changes").read_text())

    def _ask(self, **request: object) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@cache
def driver() -> Driver:
    """Return the driver of this test process, which ends when the test process does."""
    folder = Path(tempfile.mkdtemp(prefix="nogs-driver-"))
    folder.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NOGS_CACHE": str(folder / "cache"), "COLUMNS": "200"},
    )

    @atexit.register
    def close() -> None:
        process.communicate()  # closes its input, at the end of which it stops
        shutil.rmtree(folder)

    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return Driver(process, folder)


def wait_for(happened: Callable[[], bool], what: str, *, seconds: float = 500.0) -> None:
    """Wait until ``happened()`` is true. The limit only ends tests that would hang; it is no measure of speed."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"{what}: not in {seconds} s"
        time.sleep(0.01)


def _serve() -> None:
    """Run the driver process: read one request a line, and answer each with one line."""
    # Imported here, because worker processes of a command import this file too.
    import torchmetrics.functional.classification  # noqa: F401

    import nogs.pipeline
    import nogs.report.tables
    import nogs.stages.predict  # noqa: F401

    # A shell starts background processes with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        pid = os.fork()
        if pid:
            print(pid, flush=True)
            continue
        code = 1
        try:
            code = _command(**request)
        except SystemExit as end:  # raised by the parser, or with the exit code
            code = int(end.code or 0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _command(
    args: list[str],
    files: list[str],
    checkpoint_seconds: float,
    die_at: int | None,
    uid: int | None,
    cwd: str,
) -> int:
    """Run one `nogs` command in this process, and write its number of changes to the disk to the last of ``files``."""
    import torch

    import nogs.cli
    import nogs.stages.search
    import nogs.training.loop

    os.setsid()
    out, err, tally = (os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for file in files)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.chdir(cwd)
    if uid is not None:
        os.setgid(uid)
        os.setuid(uid)
    warnings.simplefilter("error")
    sys.dont_write_bytecode = True  # the first import of a module would count as a change to the disk
    torch.set_num_threads(1)
    nogs.training.loop.CHECKPOINT_SECONDS = checkpoint_seconds
    nogs.stages.search.CHUNK = 15  # several chunks of few sequences
    changes = 0

    def watch(event: str, details: tuple[Any, ...]) -> None:
        nonlocal changes
        to_write = event == "open" and isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR)
        if not to_write and event not in ("os.rename", "os.mkdir"):
            return
        changes += 1
        if changes == die_at:
            if to_write and str(details[0]).endswith("log.jsonl"):
                os.write(os.open(details[0], os.O_WRONLY | os.O_APPEND | os.O_CREAT), b'{"torn')
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    if args and args[0].endswith(".py"):
        sys.argv = args
        runpy.run_path(args[0], run_name="__main__")
        return 0
    code = nogs.cli.main(args)
    os.write(tally, str(changes).encode())
    return code


if __name__ == "__main__":
    _serve()
