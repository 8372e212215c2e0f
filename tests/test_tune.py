"""`nogs tune`: the front by brute force, a search from end to end, stopped and resumed, and what is refused."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nogs
from nogs.errors import UserError
from nogs.evaluation.tuned import Trial, TuneResults, front
from nogs.evaluation.typed_json import from_json
from nogs.report.tune_page import print_tune
from nogs.runs.directory import RunDirectory
from nogs.tuning import JOURNAL
from staged import silent
from tiny import write_npz


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
