"""Stopping by the gain map: the recorded rule against networks that really stop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import nogs
from nogs.attention.choosers import greedy
from nogs.attention.classify import classify
from nogs.attention.gain import stop_by_gain_map
from nogs.runs.directory import read_run
from nogs.specs import HardAttentionSpec
from nogs.stopping.curves import MAP, RULES, macs_by_rule
from nogs.weights import load_network
from staged import silent
from tiny import GLIMPSE_PX, STRIDE_PX, write_npz

T = 3


def test_what_the_map_spends_by_hand() -> None:
    # Three glimpses of 100, of which 20 are the location head, and an answer of 7 after each; one more map if stopped.
    assert macs_by_rule([107, 207, 307], answer_macs=7, head_macs=5, locator_macs=20)[MAP] == [127, 234, 321]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of `gain`, its stopping heads, and the evaluation of both."""
    folder = tmp_path_factory.mktemp("map")
    source = nogs.Source(data=f"npz:{write_npz(folder / 'images.npz')}")
    shape = nogs.Geometry(glimpse_size=GLIMPSE_PX, stride=STRIDE_PX, glimpses=T)
    fit = nogs.Optimisation(iterations=60, batch_size=32, validate_every=30, learning_rate=3e-3)

    def machine(name: str) -> nogs.Machine:
        return nogs.Machine(folder / name, device="cpu")

    network = nogs.AttentionNetwork(16)
    nogs.train(nogs.Train(machine("gain"), source, shape, fit, method="gain", network=network), silent)
    nogs.fit_stopping(nogs.FitStopping(machine("stopping"), folder / "gain", (0.01, 0.3), fit), silent)
    nogs.evaluate(
        nogs.Evaluate(machine("evaluation"), (folder / "gain",), stopping=(folder / "stopping",), examples=2), silent
    )
    return folder


@pytest.mark.slow
def test_every_recorded_stop_is_one_of_a_network_that_stops(folder: Path) -> None:
    """The record of all glimpses gives the steps and answers of `classify`, which leaves off at each image's own."""
    found = json.loads((folder / "evaluation" / "results.json").read_text())
    record = load_file(folder / "evaluation" / "gain-seed0.safetensors")
    _, network = load_network(
        read_run(folder / "gain", "train"), "model", kind=HardAttentionSpec, device=torch.device("cpu")
    )
    data = nogs.load(nogs.Source(data=f"npz:{folder / 'images.npz'}"))
    images, labels = data.images[record["images"]], record["labels"]
    assert set(found["stopping"]) == {*RULES, MAP}
    thresholds = [point[0] for point in json.loads((folder / "stopping" / "results.json").read_text())[MAP]]
    by_seed = found["stopping_by_seed"][MAP][0]
    assert [row[0] for row in by_seed] == thresholds
    # Between two recorded gains, where rounding cannot decide.
    gains = record["map_gain"].flatten().unique()
    for threshold in ((gains[1:] + gains[:-1]) / 2)[:: max(1, len(gains) // 8)].tolist():
        with torch.inference_mode():
            answers = classify(network, images, glimpses=T, choose=greedy, stop=stop_by_gain_map(threshold))
        steps = [next((t for t in range(1, T) if row[t - 1] < threshold), T) for row in record["map_gain"].tolist()]
        assert answers.steps.tolist() == steps
    for threshold, mean_glimpses, accuracy, _ in by_seed[:: max(1, len(by_seed) // 8)]:
        steps = torch.tensor(
            [next((t for t in range(1, T) if row[t - 1] < threshold), T) for row in record["map_gain"].tolist()]
        )
        right = record["log_probs"][torch.arange(len(steps)), steps - 1].argmax(-1) == labels
        assert mean_glimpses == pytest.approx(steps.float().mean().item())
        assert accuracy == pytest.approx(right.float().mean().item())
    assert found["stopping_advantage"][MAP].keys() == {"confidence", "act", "stochastic", "sampled_stochastic", "fixed"}
    assert MAP in found["stopping_advantage"]["eig"]
