"""Several processes that train one network: the gradient of one, one run directory, one line for each fault."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import nogs
import worlds
from nogs.attention.methods import METHODS
from nogs.attention.train_step import Batch, draw_batch, partial_supervision
from nogs.config.groups import Together
from nogs.errors import RunError, UserError
from nogs.runs.device import chance
from nogs.runs.directory import RunDirectory
from nogs.training.world import World, train_together
from staged import rows_but_time, same_bits, silent
from tiny import GLIMPSE_PX, STRIDE_PX, T, write_npz

CPU = torch.device("cpu")
ONE, TWO = Together(), Together(devices=2)
LOOPBACK = "0100007F", "00000000000000000000000001000000"


class Share(World):
    """Process ``rank`` of two, of which nothing is averaged."""

    size = 2

    def __init__(self, rank: int) -> None:
        self.rank = rank


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the gradients of two processes, for every method."""
    folder = tmp_path_factory.mktemp("gradients")
    train_together(partial(worlds.save_gradients, folder), TWO, CPU)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_the_gradient_of_two_processes_is_the_mean_of_their_shares(averaged: Path, name: str) -> None:
    """Of the shares computed one after the other in this process; both processes have it."""
    shares = [worlds.gradients(worlds.step(name, Share(rank))) for rank in range(2)]
    assert shares[0].keys() == shares[1].keys()
    assert any((shares[0][key] - shares[1][key]).abs().max() > 1e-4 for key in shares[0])
    for rank in range(2):
        found = load_file(averaged / f"{name}-{rank}.safetensors")
        assert found.keys() == shares[0].keys()
        for key, gradient in found.items():
            torch.testing.assert_close(gradient, (shares[0][key] + shares[1][key]) / 2, atol=1e-5, rtol=1e-5, msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["path", "centre"])
def test_it_is_the_gradient_of_the_whole_batch_where_nothing_is_drawn(averaged: Path, name: str) -> None:
    whole = worlds.gradients(worlds.step(name, World()))
    for key, gradient in load_file(averaged / f"{name}-0.safetensors").items():
        torch.testing.assert_close(gradient, whole[key], atol=1e-5, rtol=1e-5, msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ram", "ps-nogs"])
def test_it_is_the_gradient_of_the_whole_batch_along_the_same_cells(averaged: Path, name: str) -> None:
    """Free and supervised images of both processes in one batch."""
    shares = [worlds.training(name, Share(rank)) for rank in range(2)]
    one = shares[0]
    drawn = [draw_batch(one, Share(rank).own(worlds.BATCH), chance(worlds.SEED, rank)) for rank in range(2)]
    images, rollouts, labels, supervised, _ = zip(*drawn, strict=True)
    rollout = type(rollouts[0])(*(torch.cat(column) for column in zip(*rollouts, strict=True)))
    batch = Batch(torch.cat(images), rollout, torch.cat(labels), torch.cat(supervised), drawn[0].supervised_labels)
    partial_supervision(one, batch).backward()
    found = load_file(averaged / f"{name}-0.safetensors")
    for key, parameter in one.network.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[key], parameter.grad, atol=1e-5, rtol=1e-5, msg=key)


@pytest.mark.slow
def test_the_first_process_tells_the_others_and_none_listens_to_a_network(averaged: Path) -> None:
    for rank in range(2):
        known = json.loads((averaged / f"{rank}.json").read_text())
        assert known["told"] == {"rank": 0}
        assert set(known["listens"]) <= set(LOOPBACK)


def config_of(
    folder: Path, name: str, *, resume: bool = False, iterations: int = 20, together: Together = ONE
) -> nogs.Train:
    source = nogs.Source(f"npz:{folder / 'images.npz'}")
    fit = nogs.Optimisation(iterations=iterations, batch_size=16, validate_every=5, average=0.9)
    geometry = nogs.Geometry(glimpse_size=GLIMPSE_PX, stride=STRIDE_PX, glimpses=T)
    machine = nogs.Machine(folder / name, resume=resume, device="cpu")
    network = nogs.AttentionNetwork(8)
    return nogs.Train(machine, source, geometry, fit, method="gain", network=network, together=together)


@pytest.mark.slow
def test_a_training_of_two_processes_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Ended by an error of the first process after its tenth iteration, whose checkpoint both go on from."""
    write_npz(tmp_path / "images.npz")
    train_together(partial(worlds.train, config_of(tmp_path, "whole", together=TWO), None), TWO, CPU)
    part = config_of(tmp_path, "part", together=TWO)
    with pytest.raises(RunError, match=r"^stopped$"):
        train_together(partial(worlds.train, part, 10), TWO, CPU)
    assert not RunDirectory(tmp_path / "part").complete
    nogs.train(replace(part, machine=replace(part.machine, resume=True)))
    whole, resumed = (RunDirectory(tmp_path / name) for name in ("whole", "part"))
    assert whole.complete
    assert resumed.complete
    assert same_bits(whole, resumed, "model.safetensors", "model-sampled.safetensors")
    assert rows_but_time(whole) == rows_but_time(resumed)
    # One process with the same seed draws other cells.
    nogs.train(config_of(tmp_path, "alone"), silent)
    assert not same_bits(whole, RunDirectory(tmp_path / "alone"), "model.safetensors")


@pytest.mark.slow
def test_bfloat16_trains_in_this_process(tmp_path: Path) -> None:
    write_npz(tmp_path / "images.npz")
    nogs.train(config_of(tmp_path, "half", together=Together(precision="bf16-mixed")), silent)
    nogs.train(config_of(tmp_path, "alone"), silent)
    half, whole = (RunDirectory(tmp_path / name) for name in ("half", "alone"))
    losses = [[row["nll_nats"] for row in run.rows()] for run in (half, whole)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], abs=0.05)
    weights: dict[str, Tensor] = load_file(half.path / "model.safetensors")
    assert all(value.dtype == torch.float32 for value in weights.values() if value.is_floating_point())


def test_one_process_needs_no_fabric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    write_npz(tmp_path / "images.npz")
    nogs.train(config_of(tmp_path, "alone", iterations=5), silent)
    with pytest.raises(UserError, match=r"need Lightning Fabric: install nogs\[fabric\]$"):
        nogs.train(config_of(tmp_path, "two", together=TWO), silent)
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"devices": 0}, r"^devices=0: must be at least 1$"),
        ({"devices": 5000}, r"^devices=5000: this machine has \d+ of type cpu; choose at most that$"),
        ({"nodes": 2}, r"^nodes=2: start this command on each machine by torchrun or srun"),
    ],
)
def test_impossible_devices_are_one_line(tmp_path: Path, options: dict[str, int], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        nogs.train(config_of(tmp_path, "run", together=Together(**options)), silent)
    assert not (tmp_path / "run").exists()


def test_images_that_cannot_be_shared_evenly_are_refused() -> None:
    assert Share(1).share_of(8, "batch_size") == 4
    with pytest.raises(UserError, match=r"^batch_size=9 is not divisible by 2 processes: choose a multiple$"):
        Share(0).share_of(9, "batch_size")
    batch = torch.arange(8)
    assert sorted([*Share(0).own(batch).tolist(), *Share(1).own(batch).tolist()]) == batch.tolist()
