"""`nogs tune`: the front by brute force, a search from end to end, stopped and resumed, and what is refused."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

import nogs
from nogs.errors import RunError, UserError
from nogs.evaluation.tuned import Trial, TuneResults, front
from nogs.evaluation.typed_json import from_json
from nogs.report.tune_page import print_tune
from nogs.runs.directory import RunDirectory
from nogs.tuning import JOURNAL
from staged import silent
from tiny import wait_for, write_npz


def trial(macs: int, accuracy: float) -> Trial:
    return Trial(8, 4, 1, 1, 0, 32, 1e-3, macs, accuracy, 100, False)


def test_the_front_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        costs = list(zip(rng.integers(1, 20, 30).tolist(), rng.random(30).round(1).tolist(), strict=True))
        trials = [trial(*both) for both in costs]
        found = front(trials)
        macs = [trials[i].macs for i in found]
        assert macs == sorted(set(macs))
        for i, (m, a) in enumerate(costs):
            beaten = any(m2 <= m and a2 >= a and (m2, a2) != (m, a) for m2, a2 in costs)
            # Of several equal trials one is enough.
            assert (not beaten) == any(costs[j] == (m, a) for j in found), i


def config_in(folder: Path, **how: Any) -> nogs.Tune:
    if not (folder / "images.npz").exists():
        write_npz(folder / "images.npz")
    config = nogs.Tune(
        nogs.Machine(folder / "tune", device="cpu"),
        nogs.Source(data=f"npz:{folder / 'images.npz'}"),
        trials=4,
        iterations=20,
        final_iterations=20,
        validate_every=10,
        batch_size=16,
        glimpse_sizes=(4, 6),
        strides=(5,),
        glimpses=(1, 2),
        scales=(1,),
        hidden=(8, 16),
    )
    return replace(config, **how)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"method": "ps-nogs"}, "method=ps-nogs learns from sequences of one geometry"),
        ({"method": "nosuch"}, "method=nosuch does not exist"),
        ({"glimpse_sizes": (8, 99)}, "glimpse_sizes=99 exceeds image_px=16"),
        ({"hidden": ()}, r"hidden=\(none\): give one or more"),
        ({"strides": (4, 4)}, "strides=4,4: give one or more, each once"),
        ({"learning_rates": (1e-2, 1e-3)}, "learning_rates=0.01,0.001: give the lowest and the highest"),
    ],
)
def test_what_makes_no_search_is_refused_before_anything_is_written(tmp_path: Path, how: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        nogs.tune(config_in(tmp_path, **how), silent)
    assert not (tmp_path / "tune").exists()


def test_without_optuna_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"install nogs\[tune\]"):
        nogs.tune(config_in(tmp_path), silent)


def results_in(folder: Path) -> TuneResults:
    return from_json(TuneResults, json.loads((folder / "tune" / "tune.json").read_text()))


@pytest.mark.slow
def test_a_search_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir(), stopped.mkdir()
    run = nogs.tune(config_in(whole), silent)
    results = results_in(whole)
    assert run.complete
    assert len(results.trials) == 4
    assert {one.glimpse_size for one in results.trials} <= {4, 6}
    worth = [one.validation_accuracy - 0.01 * np.log(one.macs) for one in results.trials]
    assert results.best == int(np.argmax(worth))
    best = results.trials[results.best]
    final = RunDirectory(run.path / "train" / "ram-seed0")
    assert final.config["geometry"]["glimpse_size"] == best.glimpse_size
    assert final.config["network"]["hidden"] == best.hidden
    evaluation = json.loads((run.path / "evaluation" / "results.json").read_text())["methods"]["ram"]
    assert evaluation["test_accuracy"] == [results.test_accuracy]
    assert evaluation["macs_by_glimpse"][-1] == best.macs
    assert "<svg" in (run.path / "tune.html").read_text() or "data:image/svg" in (run.path / "tune.html").read_text()
    print_tune(run.path)
    assert "(best)" in capsys.readouterr().out
    for line in (run.path / JOURNAL).read_text().splitlines():
        json.loads(line)

    def until_the_third(done: int, note: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nogs.tune(config_in(stopped), until_the_third)
    assert not RunDirectory(stopped / "tune").complete
    again = config_in(stopped)
    nogs.tune(replace(again, machine=replace(again.machine, resume=True)), silent)
    assert results_in(stopped).trials == results.trials
    assert results_in(stopped).best == results.best

    # More trials are added to a search that is finished.
    more = replace(again, machine=replace(again.machine, resume=True), trials=5)
    nogs.tune(more, silent)
    assert results_in(stopped).trials[:4] == results.trials
    assert len(results_in(stopped).trials) == 5


@pytest.mark.slow
def test_a_front_is_searched_without_stopping_trials(tmp_path: Path) -> None:
    nogs.tune(config_in(tmp_path, front=True, trials=3), silent)
    results = results_in(tmp_path)
    assert not any(one.pruned for one in results.trials)
    assert results.front == front(results.trials)


def test_options_of_which_no_draw_is_a_network_are_one_line(tmp_path: Path) -> None:
    """One location, and two glimpses of it."""
    with pytest.raises(UserError, match="no valid network in 100 draws; the last: glimpses=2 does not fit a grid of 1"):
        nogs.tune(config_in(tmp_path, glimpse_sizes=(16,), glimpses=(2,)), silent)


def journal_of(folder: Path) -> list[optuna.trial.FrozenTrial]:
    journal = optuna.storages.journal.JournalFileBackend(str(folder / "tune" / JOURNAL))
    return optuna.load_study(study_name="tune", storage=optuna.storages.JournalStorage(journal)).get_trials()


def finished(trials: list[optuna.trial.FrozenTrial]) -> list[optuna.trial.FrozenTrial]:
    return [one for one in trials if one.state.name in ("COMPLETE", "PRUNED")]


def overlapping(trials: list[optuna.trial.FrozenTrial]) -> bool:
    """Return whether two trials were running at the same moment."""
    spans = [(one.datetime_start, one.datetime_complete) for one in trials if one.datetime_complete]
    return any(a[0] < b[1] and b[0] < a[1] for i, a in enumerate(spans) for b in spans[:i])


def resumed(config: nogs.Tune) -> nogs.Tune:
    return replace(config, machine=replace(config.machine, resume=True))


@pytest.mark.slow
def test_trials_side_by_side_are_those_one_after_the_other_while_draws_are_random(tmp_path: Path) -> None:
    """The first ten do not depend on what was found before, and without Hyperband on nothing else.

    Some draws, of 16 pixels, make no network, and are drawn anew.
    """
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    how: dict[str, Any] = {"front": True, "glimpse_sizes": (6, 16), "glimpses": (2,), "trials": 6}
    assert nogs.tune(config_in(here, **how), silent).complete
    assert nogs.tune(config_in(there, jobs=2, **how), silent).complete
    assert results_in(here).trials == results_in(there).trials
    assert not overlapping(journal_of(here))
    assert overlapping(journal_of(there))
    assert {of.state.name for of in journal_of(here)} == {"COMPLETE", "FAIL"}
    assert not (there / "tune" / "trials").exists()
    # The oracle: a sampler with the seed k, on a study that knows nothing.
    valid = [of for of in journal_of(there) if of.state.name == "COMPLETE"]
    for trial in valid:
        sampler = optuna.samplers.TPESampler(seed=trial.user_attrs["k"])
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        for _ in range(20):
            drawn = study.ask(trial.distributions).params
            if drawn == trial.params:
                break
        assert drawn == trial.params
    assert sorted(of.user_attrs["k"] for of in valid) == list(range(6))


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


@pytest.mark.slow
def test_a_search_whose_worker_was_killed_ends_with_each_trial_once(tmp_path: Path) -> None:
    config = config_in(tmp_path, jobs=2, trials=12, iterations=60)

    def kill_one() -> None:
        journal, running = tmp_path / "tune" / JOURNAL, tmp_path / "tune" / "trials"
        wait_for(lambda: journal.exists() and len(finished(journal_of(tmp_path))) >= 2, "two finished trials")
        wait_for(lambda: any(running.glob("*/log.jsonl")), "a trial that runs")
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)

    with meanwhile(kill_one), pytest.raises(RunError, match="a training process was killed"):
        nogs.tune(config, silent)
    before = finished(journal_of(tmp_path))
    assert "RUNNING" in {of.state.name for of in journal_of(tmp_path)}
    assert 2 <= len(before) < 12
    assert nogs.tune(resumed(config), silent).complete
    trials = finished(journal_of(tmp_path))
    assert sorted(of.user_attrs["k"] for of in trials) == list(range(12))
    assert {of.number for of in before} <= {of.number for of in trials}
    assert len(results_in(tmp_path).trials) == 12
    assert [asdict(of)["learning_rate"] for of in results_in(tmp_path).trials] == [
        of.params["learning_rate"] for of in sorted(trials, key=lambda of: of.user_attrs["k"])
    ]
    # One that was searched side by side goes on one after the other.
    twelve = results_in(tmp_path).trials
    assert nogs.tune(replace(resumed(config), jobs=1, trials=13), silent).complete
    assert results_in(tmp_path).trials[:12] == twelve
    assert len(results_in(tmp_path).trials) == 13


@pytest.mark.slow
def test_an_error_in_one_trial_ends_the_search(tmp_path: Path) -> None:
    """The folder of trial 2 is a file."""
    trials = tmp_path / "tune" / "trials"

    def obstruct() -> None:
        wait_for(trials.exists, "the first trial")
        (trials / "2").touch()

    with meanwhile(obstruct), pytest.raises(UserError, match=f"out={trials / '2'} is a file") as ended:
        nogs.tune(config_in(tmp_path, jobs=2, trials=40, iterations=200), silent)
    assert len(str(ended.value).splitlines()) == 1
    wait_for(lambda: not multiprocessing.active_children(), "the end of all workers")
    assert len(finished(journal_of(tmp_path))) < 10
