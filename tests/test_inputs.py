"""A stage takes as input only finished runs of the right kind that go together, and labels by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import nogs
import nogs.stages.search
from nogs.runs.directory import RunDirectory
from nogs.sequences.table import load_sequences
from staged import ANNOTATED, GEOMETRY, Stages
from tiny import T, write_npz


@pytest.fixture
def again(stages: Stages, tmp_path: Path) -> Stages:
    """A copy of the finished runs, to be broken; they still name the originals as their input."""
    copy = Stages(tmp_path / "copy", Path(stages.source.data.removeprefix("npz:")))
    shutil.copytree(stages.folder, copy.folder)
    return copy


@pytest.mark.parametrize("consumer", ["search", "train", "evaluate"])
def test_an_unfinished_run_is_no_input(again: Stages, tmp_path: Path, consumer: str) -> None:
    consume: dict[str, tuple[str, Callable[[str], RunDirectory]]] = {
        "search": ("posterior", lambda out: again.search(out)),
        "train": ("sequences", lambda out: again.train(out, "ps-nogs")),
        "evaluate": ("ram-0", lambda out: again.evaluate(out, "ram-0")),
    }
    needed, stage = consume[consumer]
    (again.folder / needed / "COMPLETE").unlink()
    with pytest.raises(nogs.UserError, match=f"{needed} is not finished: run its `nogs .*` again with resume=True"):
        stage(str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_run_of_another_kind_is_no_input(stages: Stages, tmp_path: Path) -> None:
    wrong: list[tuple[str, Callable[[str], RunDirectory]]] = [
        ("bank is a run directory of `nogs build-bank`", lambda out: stages.search(out, posterior="bank")),
        ("posterior is .* not of `nogs build-bank`", lambda out: stages.search(out, bank=stages.folder / "posterior")),
        ("bank is .* not of `nogs search`", lambda out: stages.train(out, "ps-nogs", sequences=stages.folder / "bank")),
        ("sequences is .* not of `nogs train`", lambda out: stages.evaluate(out, "sequences")),
        ("stages.* is not a run directory", lambda out: stages.evaluate(out, ".")),
        ("needs? .*`sequences`|give `sequences`", lambda out: stages.train(out, "ps-nogs", sequences=None)),
    ]
    for complaint, stage in wrong:
        with pytest.raises(nogs.UserError, match=complaint):
            stage(str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()


def test_runs_that_do_not_go_together_are_refused(stages: Stages, tmp_path: Path) -> None:
    other = Stages(stages.folder, write_npz(tmp_path / "other.npz"))
    coarser = replace(GEOMETRY, stride=10)
    out = str(tmp_path / "out")
    wrong: list[tuple[str, Callable[[], RunDirectory]]] = [
        (r"`stride` \(had 5, now 10\)", lambda: stages.train(out, "ps-nogs", geometry=coarser)),
        (r"`glimpses` \(had 2, now 1\)", lambda: stages.train(out, "ps-nogs", geometry=replace(GEOMETRY, glimpses=1))),
        (r"`data` \(had npz:.*images.npz, now npz:.*other.npz\)", lambda: other.train(out, "ps-nogs")),
        ("seed 0: give one", lambda: stages.evaluate(out, "ram-0", "ram-0")),
        ("`models`: give at least one", lambda: stages.evaluate(out)),
    ]
    for complaint, stage in wrong:
        with pytest.raises(nogs.UserError, match=complaint):
            stage()
        assert not (tmp_path / "out").exists()
    other.bank(str(tmp_path / "bank"))
    with pytest.raises(nogs.UserError, match="build them from the same images"):
        stages.search(out, bank=tmp_path / "bank")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """A posterior over two labels at once, and a bank."""
    folder = tmp_path_factory.mktemp("many")
    made = Stages(folder, write_npz(folder / "labels.npz", multilabel=True))
    made.posterior()
    made.bank()
    return made


def test_one_posterior_of_many_labels_serves_a_task(many: Stages) -> None:
    search = many.search("sequences", task="across")
    assert load_sequences(search).cells.shape == (ANNOTATED, T)
    one = Stages(many.folder, many.folder / "labels.npz", task="across")
    trained = one.train("trained", "ps-nogs")
    assert trained.load_metadata("model")["classes"] == ["not across", "across"]
    results = json.loads((one.evaluate("evaluation", "trained").path / "results.json").read_text())
    assert results["task"] == "across"
    assert results["classes"] == ["not across", "across"]
    assert len(results["sequences"]["nll_nats_by_glimpse"]) == T
    striped = Stages(many.folder, many.folder / "labels.npz", task="striped")
    with pytest.raises(nogs.UserError, match=r"`task` \(had across, now striped\)"):
        striped.train("never", "ps-nogs")


def test_a_task_is_selected_by_name(many: Stages, stages: Stages) -> None:
    out = "never"
    wrong: list[tuple[str, Callable[[], RunDirectory]]] = [
        ("choose one of striped, across", lambda: many.search(out)),
        ("task=bald: .*choose one of striped, across", lambda: many.search(out, task="bald")),
        ("choose `task` among striped, across", lambda: many.train(out, "ram")),
        ("leave `task` out", lambda: stages.search(out, task="across")),
    ]
    for complaint, stage in wrong:
        with pytest.raises(nogs.UserError, match=complaint):
            stage()
        assert not (many.folder / out).exists()
        assert not (stages.folder / out).exists()
