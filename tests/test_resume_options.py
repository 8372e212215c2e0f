"""`nogs COMMAND --resume --out DIR`: options that are left out have the values stored in the run directory."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import nogs
from nogs.cli import COMMANDS, _parse
from nogs.config.table import STAGES, Stage
from nogs.runs.directory import open_run
from nogs.runs.identity import as_json
from staged import GEOMETRY
from tiny import GEOMETRY as GEOMETRY_FLAGS
from tiny import driver, write_npz

RESUMED = [stage for stage in STAGES if "machine" in get_type_hints(stage.config)]
FIT = ("--iterations", 40, "--batch-size", 32, "--validate-every", 5, "--hidden", 16, "--method", "random")


def config_of(stage: Stage, out: Path) -> Any:
    """A configuration with other values than the defaults, in the groups that the stage has."""
    values: dict[str, Any] = {
        "machine": nogs.Machine(out, device="cpu"),
        "source": nogs.Source(data=f"npz:{out.parent / 'images.npz'}", task="across", range=(0.0, 65535.0)),
        "geometry": GEOMETRY,
        "seeds": (4, 2),
    }
    hints = get_type_hints(stage.config)
    given = {name: value for name, value in values.items() if name in hints}
    for field in dataclasses.fields(stage.config):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in given:
            given[field.name] = (out / "a", out / "b") if field.name == "models" else out.parent / field.name
    return stage.config(**given)


@pytest.mark.parametrize("stage", RESUMED, ids=lambda stage: stage.name)
def test_options_that_are_left_out_are_the_stored_ones(stage: Stage, tmp_path: Path) -> None:
    config = config_of(stage, tmp_path / "out")
    open_run(config.machine.out, stage.name, config, resume=False)
    for out in (["--out", str(tmp_path / "out")], [f"--out={tmp_path / 'out'}"]):
        parsed = _parse(stage.name, ["--resume", *out])
        assert parsed.machine == nogs.Machine(tmp_path / "out", resume=True, device="cpu")
        assert as_json(dataclasses.replace(parsed, machine=config.machine)) == as_json(config)
        given = _parse(stage.name, ["--resume", *out, "--device", "auto"])
        assert given.machine.device == "auto"


def test_a_demo_is_resumed_where_it_is_written_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    demo = dataclasses.replace(COMMANDS["demo"].default, seeds=(7,))
    open_run(demo.machine.out, "run", demo, resume=False)
    assert _parse("demo", ["--resume"]).seeds == (7,)
    assert _parse("demo", []).seeds == COMMANDS["demo"].default.seeds


def test_without_a_run_or_with_one_of_another_stage_defaults_are_taken(tmp_path: Path) -> None:
    for content in (None, "{", "[]", json.dumps({"stage": "fit-posterior"}), json.dumps({"stage": "train"})):
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        assert _parse("train", ["--resume", "--out", str(tmp_path)]).method == "ram"


def test_a_killed_training_is_continued_by_its_directory_alone(tmp_path: Path) -> None:
    flags = ("train", "--data", f"npz:{write_npz(tmp_path / 'images.npz')}", *GEOMETRY_FLAGS, *FIT)
    whole = driver().run(*flags, "--out", tmp_path / "whole")
    assert whole.code == 0, whole.err
    changes = driver().changes()
    assert driver().run(*flags, "--out", tmp_path / "out", die_at=changes // 2).code == -signal.SIGKILL
    resumed = driver().run("train", "--resume", "--out", tmp_path / "out")
    assert resumed.code == 0, resumed.err
    one, other = (tmp_path / name / "model.safetensors" for name in ("whole", "out"))
    assert one.read_bytes() == other.read_bytes()
    again = driver().run("train", "--resume", "--out", tmp_path / "out")
    assert (again.code, driver().changes()) == (0, 0), again.err
    other_width = driver().run("train", "--resume", "--out", tmp_path / "out", "--hidden", 8)
    assert other_width.code == 2
    assert "--hidden (had 16, now 8)" in other_width.err
