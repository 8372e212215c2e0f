"""Killed at any moment, the same command with --resume ends with the same numbers as if nothing had happened.

SIGKILL comes at moments drawn by chance among all changes that a command makes to the disk: between a file
and its renaming, between the renaming and the row in the log, in the middle of that row. What was computed
and not yet written is lost at each of them.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from nogs.runs.directory import RunDirectory
from tiny import GEOMETRY, driver, wait_for, write_npz

KILLS = 4
OF_TIME = {"seconds", "wall_seconds", "seconds_to_converge", "seconds_to_target", "end_to_end"}


class Command(NamedTuple):
    """A stage and its flags, all but --out and --resume."""

    stage: str
    flags: tuple[object, ...]

    def run(self, out: Path, *more: object, **how: Any) -> tuple[int, str]:
        code, _, err = driver().run(self.stage, *self.flags, "--out", out, *more, **how)
        assert "Traceback" not in err, err
        return code, err


class Commands(NamedTuple):
    """Every stage, as it is typed, and where each was run without a kill; how often each changed the disk."""

    whole: Path
    commands: dict[str, Command]
    changes: dict[str, int]


FIT = ("--iterations", 60, "--batch-size", 32, "--validate-every", 5)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Commands:
    whole = tmp_path_factory.mktemp("whole")
    data = ("--data", f"npz:{write_npz(whole / 'images.npz')}")
    sequences = ("--sequences", whole / "sequences")
    commands = {
        "posterior": Command("fit-posterior", (*data, *GEOMETRY, *FIT, "--annotate", 40, "--hidden", 32)),
        "bank": Command("build-bank", (*data, "--components", 16)),
        "sequences": Command(
            "search", ("--posterior", whole / "posterior", "--bank", whole / "bank", "--completions", 16)
        ),
        "ram": Command("train", (*data, *GEOMETRY, *FIT)),
        "nogs": Command("train", (*data, *GEOMETRY, *FIT, "--method", "ps-nogs", *sequences)),
        "wake-sleep": Command("train", (*data, *GEOMETRY, *FIT, "--method", "ws-ram")),
        "dime": Command("train", (*data, *GEOMETRY, *FIT, "--method", "dime")),
        "recorded": Command("record", ("--model", whole / "ram", "--annotate", 40)),
        "evaluation": Command("evaluate", ("--models", whole / "ram", whole / "nogs", *sequences)),
    }
    changes = {}
    for name, command in commands.items():
        code, err = command.run(whole / name)
        assert code == 0, err
        changes[name] = driver().changes()
    return Commands(whole, commands, changes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["posterior", "bank", "ram", "nogs", "wake-sleep", "recorded", "evaluation"])
def test_a_stage_killed_again_and_again_goes_on_to_the_same_end(
    uninterrupted: Commands, tmp_path: Path, name: str
) -> None:
    command, changes = uninterrupted.commands[name], uninterrupted.changes[name]
    out, moments = tmp_path / "out", random.Random(name)
    code, err = command.run(out, die_at=moments.randint(1, changes // 2))
    assert code == -signal.SIGKILL, err
    for _ in range(KILLS):
        # A resumed command first makes four changes to say so; it may come to its end before it is killed.
        code, err = command.run(out, "--resume", die_at=moments.randint(4, 5 + changes // KILLS))
        assert code in (0, -signal.SIGKILL), err
        assert (out / "COMPLETE").exists() == (code == 0)
    code, err = command.run(out, "--resume")
    assert code == 0, err
    assert_same(uninterrupted.whole / name, out)


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_search_killed_at_each_moment_goes_on_to_the_same_end(
    uninterrupted: Commands, tmp_path: Path, every: int
) -> None:
    """The file of a chunk and its row in the log are written at two moments, and neither may be lost."""
    command = uninterrupted.commands["sequences"]
    for moment in range(1, uninterrupted.changes["sequences"] + 1, every):
        out = tmp_path / str(moment)
        code, err = command.run(out, die_at=moment)
        assert code == -signal.SIGKILL, err
        code, err = command.run(out, "--resume")
        assert code == 0, err
        assert_same(uninterrupted.whole / "sequences", out)


@pytest.mark.parametrize("name", ["posterior", "nogs", "wake-sleep", "dime"])
def test_a_training_goes_on_from_its_checkpoint(uninterrupted: Commands, tmp_path: Path, name: str) -> None:
    """Killed late, what is left to do is little; killed before any checkpoint, everything is done again."""
    command, changes = uninterrupted.commands[name], uninterrupted.changes[name]
    for folder, seconds in (("often", 0.0), ("never", 3600.0)):
        command.run(tmp_path / folder, checkpoint_seconds=seconds, die_at=changes // 2)
        code, err = command.run(tmp_path / folder, "--resume", checkpoint_seconds=seconds)
        assert code == 0, err
        assert_same(uninterrupted.whole / name, tmp_path / folder)
        if folder == "often":
            assert driver().changes() < 0.7 * changes
    assert not (tmp_path / "never" / "checkpoint.safetensors").exists()


def test_killed_in_the_middle_of_computing(uninterrupted: Commands, tmp_path: Path) -> None:
    """From outside, while it trains."""
    command, out = uninterrupted.commands["nogs"], tmp_path / "out"
    pid = driver().start(command.stage, *command.flags, "--out", out)
    wait_for((out / "log.jsonl").exists, "a first validation")
    os.kill(pid, signal.SIGKILL)
    driver().wait(pid)
    code, err = command.run(out, "--resume")
    assert code == 0, err
    assert_same(uninterrupted.whole / "nogs", out)


@pytest.mark.slow
def test_a_killed_pipeline_goes_on_to_what_its_stages_do_one_by_one(tmp_path: Path) -> None:
    """Killed before the search ends, and while a training runs beside it, which must end with it."""
    out, moments, resume = tmp_path / "run", random.Random("run"), ()
    whole = Command(
        "run",
        (
            *("--data", f"npz:{write_npz(tmp_path / 'images.npz')}", *GEOMETRY, "--annotate", 40),
            *("--posterior-iterations", 40, "--iterations", 400, "--batch-size", 32, "--validate-every", 20),
            *("--methods", "ps-nogs", "--seeds", 1, "--jobs", 2),
        ),
    )
    while not (out / "sequences").exists():
        # Enough to get a stage further; and fewer than a search makes, so that no kill comes after it.
        code, err = whole.run(out, *resume, die_at=moments.randint(15, 18))
        assert code == -signal.SIGKILL, err
        resume = ("--resume",)
    pid = driver().start("run", *whole.flags, "--out", out, "--resume")
    training = out / "train" / "ps-nogs-seed1"
    wait_for((training / "log.jsonl").exists, "a training's first validation")
    beside = children(pid)
    assert beside
    os.kill(pid, signal.SIGKILL)
    driver().wait(pid)
    wait_for(lambda: not any(map(alive, beside)), "the end of what ran beside it")
    assert not (training / "COMPLETE").exists()

    code, err = whole.run(out, "--resume")
    assert code == 0, err
    for stage in ("posterior", "bank", "sequences", "train/ps-nogs-seed1", "evaluation"):
        config = RunDirectory(out / stage).config
        code, err = Command(config["stage"], tuple(flags(config))).run(tmp_path / "by-hand" / stage)
        assert code == 0, err
        assert_same(tmp_path / "by-hand" / stage, out / stage)
    results = [json.loads((run / "results.json").read_text()) for run in (out, tmp_path / "by-hand" / "evaluation")]
    assert but_time(results[0]) == but_time(results[1])
    assert (out / "report.html").exists()
    assert (out / "COMPLETE").exists()


def flags(config: dict[str, Any]) -> Iterator[object]:
    """The command line that config.json stands for: it is all that is needed to run a stage again."""
    for key, value in config.items():
        name = key.replace("_", "-")
        if isinstance(value, dict) and key != "machine":
            yield from flags(value)
        elif isinstance(value, bool):
            yield f"--{name}" if value else f"--no-{name}"
        elif isinstance(value, list):
            yield from (f"--{name}", *value)
        elif value is not None and key not in ("stage", "machine"):
            yield from (f"--{name}", value)


def assert_same(whole: Path, resumed: Path) -> None:
    """Every tensor bitwise, every figure and row of the log but times."""
    assert files(whole) == files(resumed)
    for name in files(whole):
        if name.endswith(".safetensors"):
            expected, found = load_file(whole / name), load_file(resumed / name)
            assert expected.keys() == found.keys()
            assert all(torch.equal(expected[key], found[key]) for key in expected), name
    if (whole / "log.jsonl").exists():
        rows = [
            [but_time(json.loads(line)) for line in (run / "log.jsonl").read_text().splitlines()]
            for run in (whole, resumed)
        ]
        assert rows[0] == rows[1]
    if (whole / "results.json").exists():
        results = [but_time(json.loads((run / "results.json").read_text())) for run in (whole, resumed)]
        assert results[0] == results[1]


def files(run: Path) -> set[str]:
    """The files of a run, without checkpoints, which depend on time, and without those that a kill left partial."""
    return {file.name for file in run.iterdir() if file.suffix != ".partial" and file.name != "checkpoint.safetensors"}


def but_time(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: but_time(value) for key, value in content.items() if key not in OF_TIME}
    return content


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=True)
    return [int(line) for line in found.stdout.split()]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return state.stdout.strip() not in ("",) and not state.stdout.startswith("Z")
