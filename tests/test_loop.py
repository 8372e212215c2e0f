"""The training loop: batches, overfitting, patience, and a resume that equals an uninterrupted run bitwise."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

import nogs.training.loop
from nogs.attention.choosers import greedy, sampling
from nogs.attention.network import HardAttention
from nogs.attention.objectives import partially_supervised_loss
from nogs.config.groups import Optimisation
from nogs.glimpses.grid import Grid
from nogs.runs.directory import RunDirectory
from nogs.training.loop import BEST, Batches, fit

CPU = torch.device("cpu")
LABELS = torch.arange(8) % 2
Noted = Callable[[int, str], None]


class Killed(Exception):  # noqa: N818 (not an error of ours)
    """Raised in place of a kill."""


def quietly(done: int, note: str) -> None:
    """A tick that shows nothing."""


def images() -> Tensor:
    return torch.randint(0, 256, (8, 1, 9, 9), dtype=torch.uint8, generator=Generator().manual_seed(0))


def small_network(seed: int = 0) -> HardAttention:
    torch.manual_seed(seed)
    return HardAttention(Grid(image_px=9, glimpse_px=3, stride_px=3), channels=1, classes=2, hidden=16)


def train(
    run: RunDirectory,
    network: nn.Module,
    optimisation: Optimisation,
    *,
    tick: Noted = quietly,
    die_at: int | None = None,
) -> None:
    """Fit to the eight images; ``die_at``: the number of the loss that is never computed."""
    x, calls = images(), 0

    def loss(batch: Tensor, generator: Generator) -> Tensor:
        nonlocal calls
        if calls == die_at:
            raise Killed
        calls += 1
        rollout = network(x[batch], glimpses=2, choose=sampling(generator))
        none_supervised = torch.zeros(len(batch), dtype=torch.bool)
        return partially_supervised_loss(rollout, LABELS[batch], none_supervised, supervised_labels=False)

    def validate() -> dict[str, float]:
        assert not network.training
        class_logits = network(x, glimpses=2, choose=greedy).class_logits[:, -1]
        hits = class_logits.argmax(-1) == LABELS
        return {"nll_nats": F.cross_entropy(class_logits, LABELS).item(), "accuracy": hits.float().mean().item()}

    fit(
        network,
        run,
        loss=loss,
        validate=validate,
        examples=8,
        optimisation=optimisation,
        device=CPU,
        tick=tick,
    )


def new_run(path: Path) -> RunDirectory:
    path.mkdir()
    return RunDirectory(path)


def without_seconds(run: RunDirectory) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if not key.endswith("seconds")} for row in run.rows()]


def assert_same(network: nn.Module, other: nn.Module) -> None:
    for name, value in network.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize(("examples", "size"), [(12, 4), (12, 12), (7, 1), (5, 64)])
def test_an_epoch_covers_every_example_once(examples: int, size: int) -> None:
    batches = Batches(examples=examples, size=size, seed=3)
    steps = max(1, examples // size)
    orders = []
    for epoch in range(3):
        order = torch.cat([batches(epoch * steps + step) for step in range(steps)]).tolist()
        assert sorted(order) == list(range(examples))
        orders.append(tuple(order))
    assert len(set(orders)) == 3


def test_the_rest_of_an_epoch_is_dropped_and_differs_between_epochs() -> None:
    batches, dropped = Batches(examples=10, size=4, seed=0), Counter[int]()
    for epoch in range(40):
        seen = torch.cat([batches(2 * epoch), batches(2 * epoch + 1)]).tolist()
        assert len(set(seen)) == 8
        dropped.update(set(range(10)) - set(seen))
    assert len(dropped) == 10


def test_batches_are_a_function_of_seed_and_iteration() -> None:
    forwards, backwards = (Batches(examples=20, size=4, seed=1) for _ in range(2))
    expected = {iteration: forwards(iteration).tolist() for iteration in range(12)}
    for iteration in reversed(range(12)):
        assert backwards(iteration).tolist() == expected[iteration]
    other = Batches(examples=20, size=4, seed=2)
    assert [other(i).tolist() for i in range(12)] != list(expected.values())


def test_it_overfits_eight_images(tmp_path: Path) -> None:
    run, network = new_run(tmp_path / "a"), small_network()
    train(run, network, Optimisation(iterations=300, batch_size=8, learning_rate=1e-2, validate_every=50))
    rows = run.rows()
    assert [row["iteration"] for row in rows] == [50, 100, 150, 200, 250, 300]
    best = min(rows, key=lambda row: row["nll_nats"])
    assert best["nll_nats"] < 0.05
    assert best["accuracy"] == 1
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)
    # The best weights are what is left in the network, and on disk.
    assert run.load_metadata("best")["iteration"] == best["iteration"]
    class_logits = network(images(), glimpses=2, choose=greedy).class_logits[:, -1]
    assert F.cross_entropy(class_logits, LABELS).item() == pytest.approx(best["nll_nats"], abs=1e-6)
    assert not network.training


OPTIMISATION = Optimisation(iterations=33, batch_size=3, learning_rate=1e-2, validate_every=5, seed=4)


AVERAGED = replace(OPTIMISATION, average=0.8)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, HardAttention]:
    run, network = new_run(tmp_path_factory.mktemp("whole") / "run"), small_network()
    train(run, network, OPTIMISATION)
    return run, network


@pytest.mark.parametrize("die_at", [2, 17, 32])
def test_resumed_equals_uninterrupted_with_averaged_weights(
    die_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nogs.training.loop, "CHECKPOINT_SECONDS", 0)
    whole, network = new_run(tmp_path / "whole"), small_network()
    train(whole, network, AVERAGED)
    run = new_run(tmp_path / "run")
    with pytest.raises(Killed):
        train(run, small_network(), AVERAGED, die_at=die_at)
    resumed = small_network(seed=9 if run.has("checkpoint") else 0)
    train(run, resumed, AVERAGED)
    assert without_seconds(run) == without_seconds(whole)
    assert_same(resumed, network)


def test_averaged_weights_are_validated_and_kept(tmp_path: Path) -> None:
    """After iteration i: d^(i-1) w_1 + (1 - d) Σ_j≥2 d^(i-j) w_j, and the trained weights learn on undisturbed."""
    network, trained, validated, d, iterations = nn.Linear(3, 1), [], [], 0.8, 9

    def loss(batch: Tensor, generator: Generator) -> Tensor:
        trained.append(network.weight.detach().clone())
        return F.mse_loss(network(batch[:, None].float().expand(-1, 3)), batch[:, None].float())

    def validate() -> dict[str, float]:
        validated.append(network.weight.detach().clone())
        return {"nll_nats": -float(len(validated))}

    def fitted(name: str, average: float) -> RunDirectory:
        torch.manual_seed(0)
        network.reset_parameters()
        trained.clear()
        validated.clear()
        run = new_run(tmp_path / name)
        optimisation = Optimisation(iterations, 4, 0.1, validate_every=1, average=average)
        fit(
            network,
            run,
            loss=loss,
            validate=validate,
            examples=4,
            optimisation=optimisation,
            device=CPU,
            tick=quietly,
        )
        return run

    fitted("raw", 0.0)
    weights = [*trained[1:], validated[-1]]
    run = fitted("averaged", d)
    assert all(torch.equal(now, then) for now, then in zip(trained[1:], weights, strict=False))
    for i in range(1, iterations + 1):
        expected = d ** (i - 1) * weights[0] + (1 - d) * sum(d ** (i - j) * weights[j - 1] for j in range(2, i + 1))
        torch.testing.assert_close(validated[i - 1], expected)
    assert torch.equal(run.load_tensors("best")["weight"], validated[-1])
    assert torch.equal(network.weight, validated[-1])


@pytest.mark.parametrize("killed", [("tick", 5), ("tick", 15), ("tick", 33), ("loss", 2), ("loss", 17), ("loss", 32)])
def test_resumed_equals_uninterrupted_bitwise(
    killed: tuple[str, int],
    uninterrupted: tuple[RunDirectory, HardAttention],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed while it shows progress, or between two validations; before any checkpoint, and after the last."""
    monkeypatch.setattr(nogs.training.loop, "CHECKPOINT_SECONDS", 0)
    where, at = killed

    def tick(done: int, note: str) -> None:
        if (where, done) == killed:
            raise Killed

    run = new_run(tmp_path / "run")
    with pytest.raises(Killed):
        train(run, small_network(), OPTIMISATION, tick=tick, die_at=at if where == "loss" else None)
    # A kill in a tick leaves a row of a validation that the checkpoint does not know of.
    checkpointed = (at - 1) // 5 * 5 if where == "tick" else at // 5 * 5
    assert run.has("checkpoint") == (checkpointed > 0)
    if checkpointed:
        assert run.load_metadata("checkpoint")["iteration"] == checkpointed
    resumed = small_network(seed=9 if checkpointed else 0)  # a checkpoint holds all there is to know
    train(run, resumed, OPTIMISATION)
    whole, network = uninterrupted
    assert without_seconds(run) == without_seconds(whole)
    assert_same(resumed, network)
    for name, value in whole.load_tensors("best").items():
        assert torch.equal(run.load_tensors("best")[name], value), name
    assert run.load_metadata("best") == whole.load_metadata("best")


def test_killed_twice(
    uninterrupted: tuple[RunDirectory, HardAttention], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nogs.training.loop, "CHECKPOINT_SECONDS", 0)
    run = new_run(tmp_path / "run")
    for die_at in (12, 11):  # at iteration 12, and at 10 + 11
        with pytest.raises(Killed):
            train(run, small_network(), OPTIMISATION, die_at=die_at)
    resumed = small_network(seed=9)
    train(run, resumed, OPTIMISATION)
    assert without_seconds(run) == without_seconds(uninterrupted[0])
    assert_same(resumed, uninterrupted[1])


def test_chance_is_new_at_every_iteration_and_another_for_another_seed(tmp_path: Path) -> None:
    drawn: dict[int, list[int]] = {}
    for seed in (0, 1):
        network, draws = nn.Linear(1, 1), drawn.setdefault(seed, [])

        def loss(batch: Tensor, generator: Generator, network: nn.Linear = network, draws: list[int] = draws) -> Tensor:
            draws.append(int(torch.randint(2**40, (), generator=generator)))
            return network.weight.sum()

        fit(
            network,
            new_run(tmp_path / str(seed)),
            loss=loss,
            validate=lambda: {"nll_nats": 0.0},
            examples=4,
            optimisation=Optimisation(iterations=20, batch_size=4, validate_every=20, seed=seed),
            device=CPU,
            tick=quietly,
        )
    assert len({*drawn[0], *drawn[1]}) == 40


def scripted(
    run: RunDirectory, losses: list[float], *, patience: int, done: list[int], others: list[float] | None = None
) -> nn.Linear:
    """Validation losses as in a script, and another figure too; the network's weight is the number of steps taken."""
    network, script, other_script = nn.Linear(1, 1, bias=False), iter(losses), iter(others or ())
    nn.init.zeros_(network.weight)

    def validate() -> dict[str, float]:
        done.append(round(network.weight.item()))
        figures = {"nll_nats": next(script)}
        return figures if others is None else {**figures, "other_nats": next(other_script)}

    # Adam's first steps along a constant slope are each as long as the learning rate.
    fit(
        network,
        run,
        loss=lambda batch, generator: -network.weight.sum(),
        validate=validate,
        examples=4,
        optimisation=Optimisation(
            iterations=100, batch_size=4, learning_rate=1.0, validate_every=10, patience=patience
        ),
        device=CPU,
        tick=quietly,
        keep=BEST if others is None else {**BEST, "best-other": "other_nats"},
    )
    return network


def test_patience_stops_and_the_best_stays(tmp_path: Path) -> None:
    run, done = new_run(tmp_path / "run"), list[int]()
    network = scripted(run, [0.9, 0.5, 0.7, 0.5, 0.6, 0.1], patience=30, done=done)
    assert done == [10, 20, 30, 40, 50]  # best at 20; an equal is no better
    assert [row["iteration"] for row in run.rows()] == done
    assert network.weight.item() == pytest.approx(20, abs=0.01)


def test_patience_between_two_validations_stops_there(tmp_path: Path) -> None:
    run, done = new_run(tmp_path / "run"), list[int]()
    scripted(run, [0.9, 0.5, 0.7, 0.8], patience=15, done=done)
    assert done == [10, 20, 30]


def test_patience_is_remembered_across_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nogs.training.loop, "CHECKPOINT_SECONDS", 0)
    run, done = new_run(tmp_path / "run"), list[int]()
    with pytest.raises(StopIteration):
        scripted(run, [0.9, 0.5, 0.7], patience=30, done=done)
    network = scripted(run, [0.6, 0.6, 0.1], patience=30, done=done)
    assert done == [10, 20, 30, 40, 40, 50]
    assert network.weight.item() == pytest.approx(20, abs=0.01)


def test_patience_of_zero_never_stops(tmp_path: Path) -> None:
    run, done = new_run(tmp_path / "run"), list[int]()
    scripted(run, [0.1, *(0.5 for _ in range(9))], patience=0, done=done)
    assert done == list(range(10, 101, 10))


def test_each_kept_figure_has_weights_of_its_own_and_patience_waits_for_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``nll_nats`` is least at 20, the other at 40: patience of 20 ends at 60, across a resumption too."""
    monkeypatch.setattr(nogs.training.loop, "CHECKPOINT_SECONDS", 0)
    losses, others = [0.9, 0.5, 0.7, 0.8, 0.9, 0.9], [0.9, 0.8, 0.7, 0.3, 0.4, 0.5]
    run, done = new_run(tmp_path / "run"), list[int]()
    with pytest.raises(StopIteration):
        scripted(run, losses[:3], patience=20, done=done, others=others)
    network = scripted(run, [*losses[3:], 0.0], patience=20, done=done, others=others[3:])
    assert done == [10, 20, 30, 40, 40, 50, 60]
    assert network.weight.item() == pytest.approx(20, abs=0.01)
    assert run.load_tensors("best")["weight"].item() == pytest.approx(20, abs=0.01)
    assert run.load_tensors("best-other")["weight"].item() == pytest.approx(40, abs=0.01)


def test_rows_hold_the_mean_loss_since_the_last(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    scripted(run, [0.9, 0.5, 0.7, 0.8, 0.9], patience=20, done=[])
    # The loss is minus the steps taken before: the means of 0..9, 10..19, ...
    means = [row["train_loss"] for row in run.rows()]
    assert means == pytest.approx([-4.5, -14.5, -24.5, -34.5], abs=0.01)


def test_seconds_are_of_training_alone_and_wall_seconds_of_everything_across_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a simulated clock a step takes 1 s, a validation 10 s, a checkpoint 100 s, and showing progress 1,000 s."""
    now = 0.0
    monkeypatch.setattr(nogs.training.loop.time, "perf_counter", lambda: now)
    monkeypatch.setattr(nogs.training.loop, "CHECKPOINT_SECONDS", 0)
    save, network, killed = nogs.training.loop._save, nn.Linear(1, 1), True

    def spend(seconds: float) -> None:
        nonlocal now
        now += seconds

    def loss(batch: Tensor, generator: Generator) -> Tensor:
        spend(1)
        return network.weight.sum()

    def validate() -> dict[str, float]:
        spend(10)
        return {"nll_nats": 0.0}

    def slow_save(*args: Any) -> None:
        spend(100)
        save(*args)

    def tick(done: int, note: str) -> None:
        spend(1000)
        if killed and done == 4:
            raise Killed

    def go_on() -> None:
        optimisation = Optimisation(iterations=6, batch_size=4, validate_every=2)
        fit(
            network,
            run,
            loss=loss,
            validate=validate,
            examples=4,
            optimisation=optimisation,
            device=CPU,
            tick=tick,
        )

    monkeypatch.setattr(nogs.training.loop, "_save", slow_save)
    run = new_run(tmp_path / "run")
    with pytest.raises(Killed):
        go_on()
    assert [(row["seconds"], row["wall_seconds"]) for row in run.rows()] == [(2, 12), (4, 1124)]
    killed = False
    spend(50_000)  # switched off
    go_on()
    # The checkpoint at 2 was taken after 1,012 seconds; what it took to write, it cannot know.
    assert [(row["seconds"], row["wall_seconds"]) for row in run.rows()] == [(2, 12), (4, 1024), (6, 2136)]


AGAIN = """
import resource
import torch
from nogs.training.loop import BEST, keep_freed_memory

torch.set_num_threads(1)
keep_freed_memory()

def step():
    held = [torch.empty(2**18).fill_(1) for _ in range(16)]  # 16 MiB in 4,096 pages, as a graph holds

for _ in range(4):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_what_a_step_frees_is_there_for_the_next(tmp_path: Path) -> None:
    """Ten steps write 4,096 pages each: without, the system hands out up to 40,000 of them anew."""
    script = tmp_path / "again.py"
    script.write_text(AGAIN)
    kept = subprocess.run([sys.executable, str(script)], check=True, capture_output=True, text=True)
    assert int(kept.stdout) < 4_000
