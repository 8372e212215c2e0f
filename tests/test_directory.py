"""Run directories: started, stopped anywhere, resumed, refused."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from nogs.config.stages import Report
from nogs.errors import UserError
from nogs.runs.directory import RunDirectory, finished_run, open_run, read_run
from nogs.runs.files import file_hash
from nogs.runs.identity import as_json


@dataclass(frozen=True)
class Where:
    out: Path
    resume: bool = False
    device: str = "auto"


@dataclass(frozen=True)
class Shape:
    glimpse_size: int = 8
    stride: int = 4


@dataclass(frozen=True)
class Bake:
    """A stage's configuration in miniature."""

    machine: Where
    bank: Path
    geometry: Shape = field(default_factory=Shape)
    seeds: tuple[int, ...] = (0, 1)
    jobs: int = 0


@pytest.fixture
def config(tmp_path: Path) -> Bake:
    return Bake(Where(tmp_path / "runs" / "a"), bank=tmp_path / "bank")


@pytest.fixture
def run(config: Bake) -> RunDirectory:
    return open_run(config.machine.out, "bake", config, resume=False)


def provenance(run: RunDirectory) -> dict[str, object]:
    content: dict[str, object] = json.loads((run.path / "provenance.json").read_text())
    return content


def test_a_new_run_stores_its_configuration_and_provenance(run: RunDirectory, config: Bake) -> None:
    assert run.path.is_dir()
    assert not run.complete
    assert run.config == {
        "stage": "bake",
        "machine": {"out": str(config.machine.out), "resume": False, "device": "auto"},
        "bank": str(config.bank),
        "geometry": {"glimpse_size": 8, "stride": 4},
        "seeds": [0, 1],
        "jobs": 0,
    }
    known = provenance(run)
    versions = known["versions"]
    assert isinstance(versions, dict)
    assert versions["torch"] == torch.__version__.split("+")[0] or versions["torch"] == torch.__version__
    assert {"started", "commit", "platform"} <= known.keys()
    assert "finished" not in known
    assert sorted(p.name for p in run.path.iterdir()) == ["config.json", "provenance.json"]


def test_resume_goes_on_and_leaves_a_note(run: RunDirectory, config: Bake) -> None:
    run.log(iteration=1, loss=0.5)
    run.save_tensors("weights", {"w": torch.ones(2)})
    again = open_run(config.machine.out, "bake", config, resume=True)
    assert again.rows() == [{"iteration": 1, "loss": 0.5}]
    assert again.load_tensors("weights")["w"].tolist() == [1, 1]
    open_run(config.machine.out, "bake", config, resume=True)
    notes = provenance(run)["resumed"]
    assert isinstance(notes, list)
    assert len(notes) == 2
    assert {"started", "versions"} <= provenance(run).keys()


def test_resume_where_nothing_is_yet_starts(tmp_path: Path, config: Bake) -> None:
    run = open_run(config.machine.out, "bake", config, resume=True)
    assert run.config["stage"] == "bake"
    (tmp_path / "empty").mkdir()
    open_run(tmp_path / "empty", "bake", config, resume=False)


def test_a_kill_before_the_config_is_written_leaves_a_directory_that_can_be_started(
    tmp_path: Path, config: Bake
) -> None:
    out = config.machine.out
    out.mkdir(parents=True)
    (out / "provenance.json").write_text("{}")
    (out / "config.json.partial").write_text('{"sta')
    run = open_run(out, "bake", config, resume=False)
    assert run.config["stage"] == "bake"
    assert "started" in provenance(run)


def test_a_run_is_not_overwritten(run: RunDirectory, config: Bake) -> None:
    before = (run.path / "provenance.json").read_bytes()
    with pytest.raises(UserError, match="holds another run: add resume=True"):
        open_run(run.path, "bake", config, resume=False)
    assert (run.path / "provenance.json").read_bytes() == before


def test_what_may_change_at_resume_is_the_machine(run: RunDirectory, config: Bake) -> None:
    elsewhere = replace(config, machine=Where(config.machine.out, resume=True, device="cpu"), jobs=2)
    open_run(run.path, "bake", elsewhere, resume=True)
    assert run.config["machine"]["device"] == "auto"


def test_resume_refuses_another_configuration_and_names_the_flag(run: RunDirectory, config: Bake) -> None:
    other = {
        r"`glimpse_size` \(had 8, now 12\)": replace(config, geometry=Shape(glimpse_size=12)),
        r"`stride` \(had 4, now 3\)": replace(config, geometry=Shape(stride=3)),
        r"`seeds` \(had \[0, 1\], now \[0\]\)": replace(config, seeds=(0,)),
        r"`bank` \(had .*bank, now .*elsewhere\)": replace(config, bank=Path("elsewhere")),
    }
    for complaint, different in other.items():
        with pytest.raises(UserError, match=complaint):
            open_run(run.path, "bake", different, resume=True)
    with pytest.raises(UserError, match="had bake, now fry"):
        open_run(run.path, "fry", config, resume=True)
    assert "resumed" not in provenance(run)


@pytest.mark.parametrize("resume", [False, True])
def test_files_that_are_not_a_runs_are_left_alone(tmp_path: Path, config: Bake, resume: bool) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"not a run's \(thesis\.tex\): choose an empty one"):
        open_run(tmp_path, "bake", config, resume=resume)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UserError, match="is a file: choose a directory"):
        open_run(tmp_path / "thesis.tex", "bake", config, resume=resume)


def test_finish_marks_it_complete_and_adds_to_the_provenance(run: RunDirectory, config: Bake) -> None:
    run.finish(seconds=1.5)
    assert run.complete
    known = provenance(run)
    assert known["seconds"] == 1.5
    assert {"started", "finished"} <= known.keys()
    assert not list(run.path.glob("*.partial"))
    again = open_run(run.path, "bake", config, resume=True)  # nothing is left to do, and nothing is changed
    assert again.complete
    assert provenance(again) == known


def test_only_a_finished_run_of_the_right_kind_is_an_input(tmp_path: Path, run: RunDirectory) -> None:
    with pytest.raises(UserError, match="nowhere is not a run directory of `nogs bake`"):
        read_run(tmp_path / "nowhere", "bake")
    with pytest.raises(UserError, match="is not finished: run its `nogs bake` again with resume=True"):
        read_run(run.path, "bake")
    run.finish()
    assert read_run(run.path, "bake").config == run.config
    with pytest.raises(UserError, match="is a run directory of `nogs bake`, not of `nogs fry`"):
        read_run(run.path, "fry")


def test_the_log_keeps_every_whole_row_and_drops_a_torn_one(run: RunDirectory) -> None:
    assert run.rows() == []
    for iteration in (100, 200):
        run.log(iteration=iteration, nll_nats=1 / iteration, note="naïve\n")
    with (run.path / "log.jsonl").open("a") as file:
        file.write('{"iteration": 300, "nll_na')  # killed here
    assert [row["iteration"] for row in run.rows()] == [100, 200]
    assert run.rows()[1] == {"iteration": 200, "nll_nats": 0.005, "note": "naïve\n"}


def test_rewinding_the_log_makes_a_resumed_log_equal_an_uninterrupted_one(run: RunDirectory, tmp_path: Path) -> None:
    whole = open_run(tmp_path / "whole", "bake", Bake(Where(tmp_path / "whole"), bank=tmp_path), resume=False)
    for iteration in (100, 200, 300):
        whole.log(iteration=iteration, loss=0.1)
    run.log(iteration=100, loss=0.1)
    run.log(iteration=200, loss=0.1)  # after the last checkpoint, at 100
    with (run.path / "log.jsonl").open("a") as file:
        file.write('{"iteration": 300, "lo')
    assert run.rewind_log(100) == [{"iteration": 100, "loss": 0.1}]
    for iteration in (200, 300):
        run.log(iteration=iteration, loss=0.1)
    assert (run.path / "log.jsonl").read_bytes() == (whole.path / "log.jsonl").read_bytes()
    assert run.rewind_log(-1) == []


def test_tensors_come_back_as_they_were(run: RunDirectory) -> None:
    tensors = {
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "images": torch.arange(8, dtype=torch.uint8).reshape(1, 2, 2, 2),
        "parameter": torch.ones(3, requires_grad=True),
        "nothing": torch.zeros(0, 5, dtype=torch.int64),
        "half": torch.tensor([1.5], dtype=torch.bfloat16),
    }
    assert not run.has("weights")
    run.save_tensors("weights", tensors, config={"hidden": 64, "classes": ["a", "b"]}, iteration=7)
    assert run.has("weights")
    loaded = run.load_tensors("weights")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
    assert run.load_metadata("weights") == {"config": {"hidden": 64, "classes": ["a", "b"]}, "iteration": 7}
    run.save_tensors("weights", {"w": torch.zeros(1)})  # replaced whole
    assert run.load_tensors("weights").keys() == {"w"}
    assert run.load_metadata("weights") == {}
    assert not list(run.path.glob("*.partial"))


def test_a_kill_while_writing_leaves_the_old_file(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    run.save_json("results.json", {"n": 1})
    run.save_text("report.html", "old")
    run.save_tensors("maps", {"m": torch.ones(1)})

    def killed(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    writes: list[Callable[[], None]] = [
        lambda: run.save_json("results.json", {"n": 2}),
        lambda: run.save_text("report.html", "new"),
        lambda: run.save_tensors("maps", {"m": torch.zeros(1)}),
        lambda: run.finish(),
    ]
    for write in writes:
        with pytest.raises(KeyboardInterrupt):
            write()
    assert json.loads((run.path / "results.json").read_text()) == {"n": 1}
    assert (run.path / "report.html").read_text() == "old"
    assert run.load_tensors("maps")["m"].item() == 1
    assert not run.complete


def test_hashes_and_plain_json(tmp_path: Path, config: Bake) -> None:
    file = tmp_path / "x.bin"
    file.write_bytes(bytes(range(256)) * 1000)
    assert file_hash(file) == hashlib.sha256(bytes(range(256)) * 1000).hexdigest()
    assert as_json(config)["bank"] == str(config.bank)
    assert as_json(config)["seeds"] == [0, 1]


@dataclass(frozen=True)
class Pantry:
    """A group with the data, like `nogs.config.groups.Source`."""

    data: str = "digits"


@dataclass(frozen=True)
class Shop:
    """A stage that reads other runs, and data."""

    machine: Where
    bank: Path
    shelves: tuple[Path, ...] = ()
    source: Pantry = field(default_factory=Pantry)


def test_a_pipeline_is_moved_as_one_and_its_runs_still_find_each_other(tmp_path: Path) -> None:
    whole, elsewhere = tmp_path / "whole", tmp_path / "far" / "away"
    open_run(whole, "run", Bake(Where(whole), bank=tmp_path), resume=False)
    inner = whole / "train" / "a"
    shop = Shop(Where(inner), bank=whole / "bank", shelves=(whole / "train" / "b", tmp_path / "other"))
    run = open_run(inner, "shop", shop, resume=False)
    stored = json.loads((inner / "config.json").read_text())
    assert (stored["bank"], stored["shelves"]) == ("../../bank", ["../b", str(tmp_path / "other")])
    assert run.config == {"stage": "shop", **as_json(shop)}
    elsewhere.parent.mkdir()
    whole.rename(elsewhere)
    moved = RunDirectory(elsewhere / "train" / "a").config
    assert moved["bank"] == str(elsewhere / "bank")
    assert moved["shelves"] == [str(elsewhere / "train" / "b"), str(tmp_path / "other")]
    there = replace(
        shop,
        machine=Where(elsewhere / "train" / "a", resume=True),
        bank=elsewhere / "bank",
        shelves=(elsewhere / "train" / "b", tmp_path / "other"),
    )
    assert open_run(elsewhere / "train" / "a", "shop", there, resume=True).config == moved


def test_paths_hold_wherever_they_are_read_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given relative to one working directory, read from another; a home folder is left to whoever reads it."""
    monkeypatch.chdir(tmp_path)
    shop = Shop(Where(Path("a")), bank=Path("bank"), shelves=(Path("x/../b"),), source=Pantry("folder:cats"))
    run = open_run(Path("a"), "shop", shop, resume=False)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    config = RunDirectory(tmp_path / "a").config
    assert config["bank"] == str(tmp_path / "bank")
    assert config["shelves"] == [str(tmp_path / "b")]
    assert config["source"] == {"data": f"folder:{tmp_path / 'cats'}"}
    again = replace(shop, bank=Path("../bank"), shelves=(Path("../b"),), source=Pantry("folder:../cats"))
    assert open_run(Path("../a"), "shop", again, resume=True).config == config
    assert run.path == Path("a")
    for spec in ("digits", "folder:~/cats", "folder:~nobody-of-this-name/cats", "folder:"):
        assert as_json(Pantry(spec)) == {"data": spec}


WRITER = """
import sys, time
from pathlib import Path
from nogs.config.stages import Report
from nogs.runs.directory import open_run
out = Path(sys.argv[1])
open_run(out, "bake", Report(out), resume=True)
print("open", flush=True)
time.sleep(600)
"""


def test_two_processes_do_not_write_one_run(tmp_path: Path) -> None:
    """One line for the second, before it changes anything; and a kill frees the directory."""
    out, config = tmp_path / "out", Report(tmp_path / "out")
    first = subprocess.Popen([sys.executable, "-c", WRITER, str(out)], stdout=subprocess.PIPE, text=True)
    assert first.stdout
    try:
        assert first.stdout.readline() == "open\n"
        before = {file: file.read_bytes() for file in out.iterdir()}
        for ask, resume in ((open_run, True), (finished_run, True), (finished_run, False)):
            with pytest.raises(UserError, match=f"out={out}: another nogs process is writing .*wait until it ends"):
                ask(out, "bake", config, resume=resume)
        assert {file: file.read_bytes() for file in out.iterdir()} == before
    finally:
        first.kill()
        first.communicate()
    run = open_run(out, "bake", config, resume=True)
    open_run(out, "bake", config, resume=True)  # this process may, as after an error in a notebook
    assert writing_is_refused(out)
    run.finish()
    assert not writing_is_refused(out)
    assert finished_run(out, "bake", config, resume=True) is not None


def writing_is_refused(path: Path) -> bool:
    """Whether a process without a lock of its own on the directory gets none."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def test_a_file_system_without_locks_is_written_all_the_same(
    tmp_path: Path, config: Bake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(handle: int, operation: int) -> None:
        raise OSError(errno.EBADF, "as NFS answers for a directory")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    open_run(config.machine.out, "bake", config, resume=False).finish()


def test_provenance_names_the_machine(run: RunDirectory) -> None:
    hardware = str(provenance(run)["hardware"])
    assert f"({os.cpu_count()} cores)" in hardware
    assert not hardware.startswith("(")
    assert ("," in hardware) == torch.cuda.is_available()
