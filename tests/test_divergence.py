"""A training whose loss stops being finite: one line that names the iteration and what is kept, and a way on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

import nogs.training.loop
from nogs.config.groups import Optimisation
from nogs.errors import UserError
from nogs.runs.directory import RunDirectory
from nogs.training.loop import fit

OPTIMISATION = Optimisation(iterations=12, batch_size=2, validate_every=3, learning_rate=0.1)


def trained(folder: Path, *, diverges_after: int | None = None, validation_diverges: bool = False) -> RunDirectory:
    """Fit y = x; from the iteration after ``diverges_after`` on, the loss is NaN."""
    folder.mkdir(exist_ok=True)
    run, calls = RunDirectory(folder), 0
    start = run.load_metadata("checkpoint")["iteration"] if run.has("checkpoint") else 0
    torch.manual_seed(0)
    network = nn.Linear(1, 1)
    x = torch.linspace(-1, 1, 8)[:, None]

    def loss(batch: Tensor, generator: Generator) -> Tensor:
        nonlocal calls
        calls += 1
        value = (network(x[batch]) - x[batch]).square().mean()
        return value * float("nan") if diverges_after is not None and start + calls > diverges_after else value

    def validate() -> dict[str, float]:
        value = (network(x) - x).square().mean().item()
        return {"nll_nats": float("inf") if validation_diverges else value}

    fit(
        network,
        run,
        loss=loss,
        validate=validate,
        examples=8,
        optimisation=OPTIMISATION,
        device=torch.device("cpu"),
        tick=lambda done, note: None,
    )
    run.save_tensors("last", network.state_dict())
    return run


def test_the_line_names_the_iteration_and_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"not finite at iteration 3, after 0: .* nothing was kept"):
        trained(tmp_path / "at once", validation_diverges=True)
    with pytest.raises(UserError, match=r"at iteration 9, after 6: .* best weights, of iteration 6, are kept"):
        trained(tmp_path / "later", diverges_after=7)
    monkeypatch.setattr(nogs.training.loop, "CHECKPOINT_SECONDS", -1.0)
    with pytest.raises(UserError, match=r"the last checkpoint is of iteration 6, and the best weights, of iteration 6"):
        trained(tmp_path / "checkpointed", diverges_after=8)


def test_what_is_kept_goes_on_as_if_nothing_had_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nogs.training.loop, "CHECKPOINT_SECONDS", -1.0)
    whole = trained(tmp_path / "whole")
    with pytest.raises(UserError):
        trained(tmp_path / "diverged", diverges_after=8)
    again = trained(tmp_path / "diverged")
    assert (again.path / "last.safetensors").read_bytes() == (whole.path / "last.safetensors").read_bytes()
