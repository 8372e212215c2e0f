"""Every stage with its networks on an accelerator: what it keeps can be read here, and nothing is mixed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import nogs
from accelerator import Elsewhere, accelerator
from staged import Stages, run_of, same_bits, silent
from tiny import write_npz


class Accelerated(Stages):
    def machine(self, name: str, *, resume: bool = False) -> nogs.Machine:
        return nogs.Machine(self.folder / name, resume=resume, device="auto")


def test_the_double_refuses_what_a_device_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with accelerator(monkeypatch) as device:
        here = torch.rand(3, 4)
        there = here.to(device)
        assert isinstance(there, Elsewhere)
        assert there.device == device
        with pytest.raises(RuntimeError, match=r"here, another on the accelerator"):
            there + here
        network = torch.nn.Linear(4, 2).to(device)
        network(there).square().sum().backward()
        assert network.weight.grad is not None
        assert network.weight.grad.device == device
        torch.testing.assert_close((there * 2).cpu(), here * 2)


@pytest.mark.slow
def test_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = Accelerated(tmp_path, write_npz(tmp_path / "set.npz"))
    few = nogs.Optimisation(iterations=20, batch_size=16, validate_every=10)
    with accelerator(monkeypatch):
        stages.posterior()
        stages.posterior("avp-cnn", network=nogs.PosteriorNetwork(posterior="avp-cnn"), optimisation=few)
        stages.bank()
        stages.search(regret=4)
        for method in ("ram", "ps-nogs", "ws-ram", "random"):
            stages.train(f"{method}-seed0", method, optimisation=few)
        nogs.record(nogs.Record(stages.machine("recorded"), tmp_path / "ram-seed0"), silent)
        stages.train("ps-ram-seed0", "ps-ram", sequences=tmp_path / "recorded", optimisation=few)
        models = [f"{method}-seed0" for method in ("ram", "ps-nogs", "ws-ram", "random", "ps-ram")]
        stopping = nogs.FitStopping(stages.machine("ram-stopping"), tmp_path / "ram-seed0", optimisation=few)
        nogs.fit_stopping(stopping, silent)
        stages.evaluate("evaluation", *models, stopping=(tmp_path / "ram-stopping",))
        nogs.fit_baselines(
            nogs.Baselines(
                stages.machine("cnns"), stages.source, resolutions=(8,), widths=(0.05,), iterations=5, validate_every=5
            ),
            silent,
        )
    found = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    assert found["methods"].keys() == {"ram", "ps-nogs", "ws-ram", "random", "ps-ram"}


@pytest.mark.parametrize("kind", ["lookahead", pytest.param("avp-cnn", marks=pytest.mark.slow)])
def test_a_search_on_the_accelerator_equals_one_on_the_cpu(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The double computes on the CPU, so its sequences and its maps are the same to the bit."""
    monkeypatch.setattr("nogs.runs.device.design_dtype", lambda device: torch.float32)
    npz = write_npz(tmp_path / "set.npz")
    here, there = Stages(tmp_path, npz), Accelerated(tmp_path, npz)
    few = nogs.Optimisation(iterations=20, batch_size=16, validate_every=10)
    here.posterior(network=nogs.PosteriorNetwork(posterior=kind), optimisation=few)
    here.bank()
    for strategy in ("race", "exhaustive"):
        here.search(f"{strategy}-here", strategy=strategy)
        with accelerator(monkeypatch):
            there.search(f"{strategy}-there", strategy=strategy)
        assert same_bits(run_of(here, f"{strategy}-here"), run_of(there, f"{strategy}-there"), "sequences.safetensors")
