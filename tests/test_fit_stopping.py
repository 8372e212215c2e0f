"""Stopping from end to end: heads fitted, every rule counted on the test split, and images really left early."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import nogs
from nogs.runs.directory import RunDirectory
from nogs.runs.marker import write_marker
from nogs.stages.fit_stopping import _halves
from nogs.stopping.curves import RULES
from tiny import GEOMETRY, GLIMPSE_PX, STRIDE_PX, driver, write_npz

T, TESTED, COSTS = 3, 30, (0.01, 0.3)
SHAPE = nogs.Geometry(glimpse_size=GLIMPSE_PX, stride=STRIDE_PX, glimpses=T)
NETWORK = nogs.AttentionNetwork(16)
FIT = nogs.Optimisation(iterations=60, batch_size=32, validate_every=20)


def silent(done: int, note: str) -> None:
    pass


class Runs:
    """RAM under two seeds, each with its heads, and all judged; `again` makes one of them anew."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source = folder, nogs.Source(data=f"npz:{write_npz(folder / 'images.npz')}")

    def machine(self, name: str) -> nogs.Machine:
        return nogs.Machine(self.folder / name, device="cpu")

    def train(self, name: str, seed: int = 0, **how: Any) -> RunDirectory:
        config = nogs.Train(
            self.machine(name),
            self.source,
            SHAPE,
            replace(FIT, iterations=200, seed=seed),
            network=NETWORK,
        )
        return nogs.train(replace(config, **how), silent)

    def stopping(self, name: str, model: str, **how: Any) -> RunDirectory:
        config = nogs.FitStopping(self.machine(name), self.folder / model, COSTS, FIT)
        return nogs.fit_stopping(replace(config, **how), silent)

    def evaluate(self, name: str, *stopping: str) -> RunDirectory:
        models = tuple(self.folder / model for model in ("ram-0", "ram-1"))
        paths = tuple(self.folder / fitted for fitted in stopping)
        config = nogs.Evaluate(self.machine(name), models, self.folder / "sequences", examples=2, stopping=paths)
        return nogs.evaluate(config, silent)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    made = Runs(tmp_path_factory.mktemp("stopping"))
    folder = made.folder
    nogs.fit_posterior(
        nogs.FitPosterior(made.machine("posterior"), made.source, SHAPE, optimisation=FIT, annotate=10), silent
    )
    nogs.build_bank(nogs.BuildBank(made.machine("bank"), made.source, components=8), silent)
    few = nogs.RetrievalOptions(completions=8, proposals=16, shift=1)
    nogs.search(
        nogs.Search(made.machine("sequences"), folder / "posterior", folder / "bank", retrieval=few, first=16), silent
    )
    for seed in (0, 1):
        made.train(f"ram-{seed}", seed)
        made.stopping(f"stopping-{seed}", f"ram-{seed}")
    made.evaluate("evaluation", "stopping-1", "stopping-0")
    return made


def results_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())


@pytest.mark.slow
def test_the_run_holds_heads_and_curves_on_held_out_images(runs: Runs) -> None:
    run = RunDirectory(runs.folder / "stopping-0")
    assert run.complete
    assert run.load_metadata("model")["costs"] == list(COSTS)
    curves = results_of(run.path)
    assert tuple(curves) == RULES
    for rule in ("eig", "accuracy", "confidence"):
        glimpses = [row[1] for row in curves[rule]]
        assert glimpses[-1] == T
        assert glimpses == sorted(glimpses)
        assert max(np.diff([1, *glimpses])) < 0.3  # ten images are held out, so a step is some of them
    assert [row[0] for row in curves["act"]] == list(COSTS)


@pytest.mark.slow
def test_groups_and_images_stay_on_one_side(runs: Runs) -> None:
    data = nogs.load(runs.source)
    data = replace(data, groups=data.groups // 6)  # two of each class
    fitted, held = _halves(data, 0)
    assert sorted([*fitted.tolist(), *held.tolist()]) == data.members("val").tolist()
    assert not set(data.groups[fitted].tolist()) & set(data.groups[held].tolist())
    assert 0 < len(held) <= len(fitted)


@pytest.mark.slow
def test_every_curve_follows_from_the_record(runs: Runs) -> None:
    """Each row counted anew, image by image, from what the evaluation kept."""
    found = results_of(runs.folder / "evaluation")
    assert found["stopping"].keys() == set(RULES)
    macs = found["methods"]["ram"]["macs_by_glimpse"]
    answer, head = 16 * 3, 3 * T * 32 + 32 * (T - 1)
    for seed in (0, 1):
        record = load_file(runs.folder / "evaluation" / f"ram-seed{seed}.safetensors")
        assert record["act_halting"].shape == record["stop_probs"].shape == (TESTED, T, len(COSTS))
        labelled, labels = record["log_probs"].argmax(-1).tolist(), record["labels"].tolist()
        chosen = results_of(runs.folder / f"stopping-{seed}")["eig"]
        rows = found["stopping_by_seed"]["eig"][seed]
        for (threshold, *_), row in zip(chosen, rows, strict=True):
            steps = [
                next((t for t in range(1, T) if gains[t - 1] < threshold), T)
                for gains in record["entropy_gain"].tolist()
            ]
            spent = [macs[t - 1] + (t - 1) * answer + min(t, T - 1) * head for t in steps]
            right = [answers[t - 1] == y for answers, t, y in zip(labelled, steps, labels, strict=True)]
            assert row == pytest.approx([threshold, np.mean(steps), np.mean(right), np.mean(spent)])
        by_glimpse = found["methods"]["ram"]["test_accuracy_by_glimpse"][seed]
        fixed = found["stopping_by_seed"]["fixed"][seed]
        assert fixed == [pytest.approx([t, t, by_glimpse[t - 1], macs[t - 1]]) for t in range(1, T + 1)]
        for k, row in enumerate(found["stopping_by_seed"]["stochastic"][seed]):
            going = record["stop_probs"][:, : T - 1, k] <= 0.5
            assert row[1] == pytest.approx(1 + going.long().cumprod(1).sum().item() / TESTED)
    for rule, rows in found["stopping"].items():
        assert np.array(rows) == pytest.approx(np.mean(found["stopping_by_seed"][rule], axis=0))
    for rows in itertools.chain(*(rivals.values() for rivals in found["stopping_advantage"].values())):
        assert all(row["low"] <= row["difference"] + 1e-9 and row["difference"] <= row["high"] + 1e-9 for row in rows)


@pytest.mark.slow
def test_area_under_the_curve_by_counting_pairs(runs: Runs) -> None:
    """The share of (image of a class, image of another) that are ranked right, ties half; averaged over classes."""
    record = load_file(runs.folder / "evaluation" / "ram-seed0.safetensors")
    probs, labels = record["log_probs"][:, -1].exp(), record["labels"]
    areas = []
    for c in range(3):
        own, other = probs[labels == c, c, None], probs[labels != c, c]
        areas.append(((own > other).double() + (own == other).double() / 2).mean().item())
    scores = results_of(runs.folder / "evaluation")["methods"]["ram"]
    assert scores["test_auroc"][0] == pytest.approx(np.mean(areas), abs=1e-5)


@pytest.mark.slow
def test_predict_stops_where_the_record_does(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    data, record = nogs.load(runs.source), load_file(runs.folder / "evaluation" / "ram-seed0.safetensors")
    gains = record["entropy_gain"]
    threshold = (gains[:, 0].median() + 1e-6).item()
    files = [tmp_path / f"{place}.png" for place in range(TESTED)]
    for file, image in zip(files, record["images"].tolist(), strict=True):
        Image.fromarray(data.images[image, 0].numpy()).save(file)
    stopping = runs.folder / "stopping-0"
    config = nogs.Predict(runs.folder / "ram-0", tuple(files), json=True, device="cpu")
    nogs.predict(replace(config, stopping=stopping, threshold=threshold))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for place, answer in enumerate(lines):
        expected = next((t for t in range(1, T) if gains[place, t - 1] < threshold), T)
        assert answer["steps"] == len(answer["glimpses"]) == expected
        probs = record["log_probs"][place, expected - 1].exp().tolist()
        assert list(answer["probs"].values()) == pytest.approx(probs, abs=1e-5)
    assert len({answer["macs"] for answer in lines}) == len({answer["steps"] for answer in lines}) > 1
    with pytest.raises(nogs.UserError, match="`stopping` without `threshold`"):
        nogs.predict(replace(config, stopping=stopping))
    with pytest.raises(nogs.UserError, match="was fitted on another network"):
        nogs.predict(replace(config, stopping=runs.folder / "stopping-1", threshold=0.1))
    older = RunDirectory(Path(shutil.copytree(stopping, tmp_path / "older")))
    older.save_tensors("model", older.load_tensors("model"), **older.load_metadata("model"), hidden=64)
    write_marker(older.path)
    with pytest.raises(nogs.UserError, match="describes no network: `hidden` is unknown"):
        nogs.predict(replace(config, stopping=older.path, threshold=0.1))


@pytest.mark.slow
def test_what_cannot_be_stopped_is_refused(runs: Runs, tmp_path: Path) -> None:
    runs.train("once", geometry=replace(SHAPE, glimpses=1), optimisation=FIT)
    with pytest.raises(nogs.UserError, match="looks once"):
        runs.stopping(str(tmp_path / "x"), "once")
    runs.stopping("of-once-more", "ram-0", costs=(0.5,))
    with pytest.raises(nogs.UserError, match="different `costs`"):
        runs.evaluate(str(tmp_path / "y"), "stopping-1", "of-once-more")
    runs.train("other", optimisation=replace(FIT, seed=2))
    runs.stopping("of-other", "other")
    with pytest.raises(nogs.UserError, match="add that to `models`"):
        runs.evaluate(str(tmp_path / "z"), "of-other")
    with pytest.raises(nogs.UserError, match=r"costs=0\.0: must be greater than 0"):
        runs.stopping(str(tmp_path / "w"), "ram-0", costs=(0.0,))
    assert not any((tmp_path / name).exists() for name in "xyzw")


@pytest.mark.slow
def test_killed_it_goes_on_to_the_same_end(tmp_path: Path) -> None:
    data = ("--data", f"npz:{write_npz(tmp_path / 'images.npz')}")
    fit = ("--batch-size", 16, "--validate-every", 5)
    assert driver().run("train", *data, *GEOMETRY, *fit, "--iterations", 20, "--out", tmp_path / "ram").code == 0
    command = ("fit-stopping", "--model", tmp_path / "ram", "--costs", "0.01,0.1", *fit, "--iterations", 20)
    ended = driver().run(*command, "--out", tmp_path / "whole")
    assert ended.code == 0, ended.err
    changes, moments, out = driver().changes(), random.Random(0), tmp_path / "killed"
    ended = driver().run(*command, "--out", out, die_at=changes // 3)
    assert ended.code == -signal.SIGKILL, ended.err
    ended = driver().run(*command, "--out", out, "--resume", die_at=moments.randint(6, changes // 2))
    assert ended.code == -signal.SIGKILL, ended.err
    ended = driver().run(*command, "--out", out, "--resume")
    assert ended.code == 0, ended.err
    for file in ("model.safetensors", "results.json"):
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


@pytest.mark.slow
def test_fitting_brings_the_held_out_loss_down(runs: Runs) -> None:
    for head in ("entropy_gain", "act", "stochastic"):
        losses = [row["nll_nats"] for row in RunDirectory(runs.folder / "stopping-0" / head).rows()]
        assert min(losses) <= losses[0]
        assert all(np.isfinite(losses))
    best = RunDirectory(runs.folder / "stopping-0" / "act").load_tensors("best")
    model = RunDirectory(runs.folder / "stopping-0").load_tensors("model")
    assert all(torch.equal(value, model[f"act.{name}"]) for name, value in best.items())
