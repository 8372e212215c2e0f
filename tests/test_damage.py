"""Files of finished runs that are missing, empty, cut short or altered: one line that names the file and the fix.

Every file of every stage of a small pipeline is damaged in every way, and read by every command that reads runs. A
command either refuses the file or ends with the numbers that it has without the damage.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import nogs
import nogs.cli
import nogs.runs.directory
from nogs.report.read import gather
from nogs.runs.directory import open_run
from nogs.runs.marker import LISTED, MARKER, write_marker
from staged import Stages, silent
from tiny import write_npz

METHODS = ("ram", "ps-nogs")
OF_TIME = {"seconds", "wall_seconds", "seconds_to_converge", "seconds_to_target", "end_to_end", "provenance", "logs"}


def flip(file: Path) -> None:
    """Change one bit at a place that depends on the file's name alone."""
    content, chance = bytearray(file.read_bytes()), random.Random(file.name)
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def replace_by_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


HARMS: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "flipped": flip,
    "directory": replace_by_directory,
}


class Finished:
    """A finished pipeline of two methods with stopping heads, one image of its set, and the commands that read it."""

    def __init__(self, place: Path) -> None:
        self.place, self.out, self.npz = place, place / "out", write_npz(place / "images.npz")
        run = open_run(self.out, "run", nogs.Run(nogs.Machine(self.out)), resume=False)
        stages = Stages(self.out, self.npz)
        stages.posterior(iterations=20)
        stages.bank()
        stages.search()
        for method in METHODS:
            stages.train(f"train/{method}-seed0", method, iterations=20)
        few = nogs.Optimisation(iterations=20, batch_size=32, validate_every=10)
        heads = nogs.FitStopping(
            stages.machine("stopping/ps-nogs-seed0"), self.out / "train" / "ps-nogs-seed0", optimisation=few
        )
        nogs.fit_stopping(heads, silent)
        models = [f"train/{method}-seed0" for method in METHODS]
        evaluation = stages.evaluate("evaluation", *models, stopping=(heads.machine.out,))
        run.save_json("results.json", evaluation.load_json("results.json"))
        run.finish()
        self.image = place / "image.png"
        Image.fromarray(np.load(self.npz)["x"][0]).save(self.image)

    def files(self) -> list[Path]:
        """Every file of every stage that COMPLETE lists, and the markers."""
        return sorted(file for file in self.out.rglob("*") if file.suffix in LISTED or file.name == MARKER)

    def predict(self) -> None:
        model, heads = self.out / "train" / "ps-nogs-seed0", self.out / "stopping" / "ps-nogs-seed0"
        nogs.predict(nogs.Predict(model, (self.image,), json=True, stopping=heads, threshold=0.1, device="cpu"))

    def evaluate(self) -> Any:
        again = self.place / "again"
        shutil.rmtree(again, ignore_errors=True)
        models = tuple(self.out / "train" / f"{method}-seed0" for method in METHODS)
        stopping = (self.out / "stopping" / "ps-nogs-seed0",)
        machine = nogs.Machine(again, device="cpu")
        config = nogs.Evaluate(machine, models, self.out / "sequences", examples=2, stopping=stopping)
        return nogs.evaluate(config, silent).load_json("results.json")

    def report(self) -> Any:
        return gather(self.out)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return Finished(tmp_path_factory.mktemp("finished"))


@contextmanager
def harmed(file: Path, harm: str) -> Iterator[None]:
    """Damage a file, and put it back."""
    content = file.read_bytes()
    HARMS[harm](file)
    try:
        yield
    finally:
        if file.is_dir():
            file.rmdir()
        file.write_bytes(content)


@pytest.fixture(scope="module")
def used(finished: Finished) -> Callable[[str], tuple[Any, set[Path]]]:
    """Of each command, its results without damage and the files that it compares with their checksums."""

    @cache
    def of(command: str) -> tuple[Any, set[Path]]:
        checked = set()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nogs.runs.directory, "check", lambda file: checked.add(file.absolute()))
            result = answer_of(getattr(finished, command))
        return result, checked | {file.parent / MARKER for file in checked}

    return of


IN_USE = [
    pytest.param(command, harm, marks=[pytest.mark.slow] * (command == "evaluate" and harm != "flipped"))
    for command in ("predict", "evaluate", "report")
    for harm in HARMS
]


@pytest.mark.parametrize(("command", "harm"), IN_USE)
def test_a_damaged_file_is_refused_where_it_is_used(
    finished: Finished, used: Callable[[str], tuple[Any, set[Path]]], command: str, harm: str
) -> None:
    _, checked = used(command)
    files = [file for file in finished.files() if file in checked]
    if harm == "missing":  # a pipeline without its own marker is one that is not finished
        files = [file for file in files if file != finished.out / MARKER]
    assert len(files) >= {"predict": 6, "evaluate": 20, "report": 12}[command]
    for file in files:
        with harmed(file, harm):
            answer = answer_of(getattr(finished, command))
            assert isinstance(answer, nogs.UserError), file
            assert "\n" not in str(answer)
            assert str(file) in str(answer) or str(file.parent) in str(answer), (file, answer)
            assert re.search("remove|again", str(answer)), (file, answer)


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_file_that_is_not_used_may_be_missing(
    finished: Finished, used: Callable[[str], tuple[Any, set[Path]]], command: str
) -> None:
    """The report refuses a finished pipeline in which anything is missing."""
    result, checked = used(command)
    unused = [file for file in finished.files() if file not in checked]
    contents = {file: file.read_bytes() for file in unused}
    assert len(unused) > 5
    try:
        for file in unused:
            file.unlink()
        assert answer_of(getattr(finished, command)) == result
    finally:
        for file, content in contents.items():
            file.write_bytes(content)


def test_a_report_refuses_a_finished_pipeline_with_any_damage(finished: Finished) -> None:
    for file in finished.files():
        for harm in ("missing", "flipped"):
            with harmed(file, harm):
                answer = answer_of(finished.report)
                if file == finished.out / MARKER and harm == "missing":
                    assert not isinstance(answer, nogs.UserError)  # as of a pipeline that is not finished
                    continue
                assert isinstance(answer, nogs.UserError), file
                assert "\n" not in str(answer)
                assert str(file) in str(answer) or str(file.parent) in str(answer), (file, answer)


def answer_of(command: Callable[[], Any]) -> Any:
    """Return the result of a command, or the error that it raises for the user."""
    try:
        return plain(command())
    except nogs.UserError as error:
        return error


def plain(content: Any) -> Any:
    """Results as comparable values, without times."""
    if is_dataclass(content):
        content = {field.name: getattr(content, field.name) for field in fields(content)}
    if isinstance(content, dict):
        return {key: plain(value) for key, value in content.items() if key not in OF_TIME}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    return content.tolist() if isinstance(content, torch.Tensor) else content


def deep(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\x80\xff", b"[]", b"null", b"7", b'"text"', b"{", b"{}", b'{"stage": 3}', b'{"stage": ["train"]}'),
        *(deep(100_000).encode(), deep(200).encode(), b'{"stage": ' + b"9" * 10_000 + b"}"),
    ],
    ids=lambda content: content[:12].decode("latin1") or "empty",
)
@pytest.mark.parametrize("name", ["config.json", "provenance.json", "results.json", MARKER])
def test_json_of_any_shape_is_refused_in_one_line(
    finished: Finished, tmp_path: Path, name: str, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a finished run, and of one that is to be resumed."""
    out = tmp_path / "bank"
    command = ["build-bank", "--data", f"npz:{finished.npz}", "--out", str(out), "--resume"]
    shutil.copytree(finished.out / "bank", out)
    if name == "results.json":
        (out / name).write_text('{"images": 100}')
        write_marker(out)
    (out / name).write_bytes(content)
    assert nogs.cli.main(command) == 2
    assert one_line(capsys.readouterr().err)
    if name in ("config.json", "provenance.json"):
        (out / MARKER).unlink()
        code = nogs.cli.main(command)
        lines = capsys.readouterr().err.splitlines()
        assert code == 2 or name == "provenance.json"
        assert code == 0 or len(lines) == 1


def one_line(err: str) -> bool:
    return len(err.splitlines()) == 1 and err.startswith("nogs: ")


def test_the_marker_lists_what_a_run_holds(finished: Finished) -> None:
    listed = json.loads((finished.out / "train" / "ram-seed0" / MARKER).read_text())["files"]
    assert {"config.json", "provenance.json", "log.jsonl", "best.safetensors", "model.safetensors"} <= listed.keys()
    assert "report.html" not in json.loads((finished.out / MARKER).read_text())["files"]
