"""The one training loop: Adam, validation, the best weights kept, and a checkpoint that resumes bitwise.

Chance at iteration i is a function of (seed, i), and so is the batch, so a resumed run needs no generator
state to repeat what an uninterrupted one does.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Generator, Tensor, nn

from nogs.config.groups import Optimisation
from nogs.errors import UserError
from nogs.runs.device import chance
from nogs.runs.directory import RunDirectory
from nogs.runs.progress import Tick
from nogs.training.adam import Adam
from nogs.training.average import Average
from nogs.training.world import ALONE, World

Loss = Callable[[Int[Tensor, " b"], Generator], Tensor]
"""(positions in the training set, chance) → the scalar to descend."""
Validation = Callable[[], dict[str, float]]
"""Figures on the validation split; ``nll_nats`` is the one that counts."""

BEST = {"best": "nll_nats"}
"""File name → the validation figure whose least value it holds the weights of."""
CHECKPOINT_SECONDS = 20.0
MALLOC_OPTIONS = (-1, 1 << 30), (-2, 64 << 20), (-3, 32 << 20)
"""M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD of glibc's malloc.h, in bytes; the last is the most it takes."""


def fit(
    network: nn.Module,
    run: RunDirectory,
    *,
    loss: Loss,
    validate: Validation,
    examples: int,
    optimisation: Optimisation,
    device: torch.device,
    tick: Tick,
    keep: Mapping[str, str] = BEST,
    begin: Callable[[], None] | None = None,
    world: World = ALONE,
) -> None:
    """Train ``network``, leave its best weights in it and in ``best.safetensors``, log every validation.

    ``keep``: file name → the validation figure whose least value it holds the weights of; ``best`` is among them.
    ``begin`` is called before the first iteration, on the clock, and not again at a resumption. With
    ``optimisation.average`` the averaged weights are validated and kept in place of the trained ones. Of several
    processes of ``world`` each calls this with its own images and chance; the first one validates and writes.

    A row of log.jsonl: iteration, seconds of training alone so far, wall_seconds so far (validations and
    checkpoints too), train_loss (mean since the last row) and the validation's figures. What a kill undid is in
    neither. Stops after ``patience`` iterations without a better value of any figure of ``keep``; never if it is 0.
    """
    o = optimisation
    if device.type == "cpu":
        keep_freed_memory()
    adam = Adam(network.parameters(), learning_rate=o.learning_rate)
    average = Average(network, decay=o.average) if o.average else None
    batches = Batches(examples=examples, size=o.batch_size, seed=o.seed)
    world.share_of(batches.size, "batch_size")
    iteration, seconds, began = 0, 0.0, time.perf_counter()
    rows: list[dict[str, Any]] = []
    if world.tell(run.has("checkpoint")):
        iteration, seconds, wall_seconds = _restore(run, network, adam, average)
        began -= wall_seconds
        rows = world.tell(run.rewind_log(iteration) if world.leads else rows)
    else:
        if world.leads:
            run.rewind_log(-1)
        if begin:
            begin()
    best = {name: min(rows, key=lambda row: row[figure]) for name, figure in keep.items()} if rows else {}
    saved = time.monotonic()
    total, since = torch.zeros((), device=device), 0
    while iteration < o.iterations and not _given_up(iteration, best, o.patience):
        started = time.perf_counter()
        network.train()
        adam.zero_grad()
        with world.computing():
            value = loss(
                world.own(batches(iteration)).to(device), chance(o.seed, 1, iteration, *world.key(), device=device)
            )
        value.backward()
        world.average_gradients(network.parameters())
        adam.learning_rate = learning_rate_at(iteration, o)
        adam.step()
        if average:
            average.update()
        iteration += 1
        total, since = total + value.detach(), since + 1
        seconds += time.perf_counter() - started
        due = iteration % o.validate_every == 0 or iteration == o.iterations
        if due:
            network.eval()
            with average.applied() if average else nullcontext():
                with torch.inference_mode():
                    figures = world.tell(validate() if world.leads else {})
                train_loss = world.tell((total / since).item())
                if not all(map(math.isfinite, (train_loss, *(figures[figure] for figure in keep.values())))):
                    raise UserError(
                        f"the loss is not finite at iteration {iteration}, after {iteration - since}: "
                        f"lower the learning rate; {_what_is_kept(run, best)}"
                    )
                row = {
                    "iteration": iteration,
                    "seconds": round(seconds, 3),
                    "wall_seconds": round(time.perf_counter() - began, 3),
                    "train_loss": train_loss,
                    **figures,
                }
                total, since = torch.zeros_like(total), 0
                for name, figure in keep.items():
                    if name not in best or row[figure] < best[name][figure]:
                        best[name] = row
                        if world.leads:
                            run.save_tensors(name, network.state_dict(), iteration=iteration)
            if world.leads:
                run.log(**row)
            least = best["best"]
            tick(iteration, f"val {row['nll_nats']:.3f} (best {least['nll_nats']:.3f} at {least['iteration']})")
        # Only after a validation: the running mean of the loss starts anew there, and need not be kept.
        if world.leads and due and time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save(run, network, adam, average, Progress(iteration, seconds, time.perf_counter() - began))
            saved = time.monotonic()
    if world.tell(run.has("best")):
        network.load_state_dict(run.load_tensors("best"))
    network.eval()


def learning_rate_at(iteration: int, optimisation: Optimisation) -> float:
    """Return the step size of an iteration, counted from 0."""
    o = optimisation
    if o.schedule == "constant":
        return o.learning_rate
    return o.learning_rate * 0.5 * (1 + math.cos(math.pi * iteration / o.iterations))


def _given_up(iteration: int, best: Mapping[str, Mapping[str, Any]], patience: int) -> bool:
    """Return whether no kept figure has improved in the last ``patience`` iterations; never for patience=0."""
    if not best or patience == 0:
        return False
    return iteration - max(row["iteration"] for row in best.values()) >= patience


def _what_is_kept(run: RunDirectory, best: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what a training that diverged leaves: its last checkpoint and its best weights."""
    if not best:
        return "nothing was kept before it"
    kept = f"the best weights, of iteration {best['best']['iteration']}, are kept"
    if not run.has("checkpoint"):
        return kept
    return f"the last checkpoint is of iteration {run.load_metadata('checkpoint')['iteration']}, and {kept}"


def keep_freed_memory() -> None:
    """Make the C library keep freed memory for the next step, which allocates the same again.

    glibc otherwise gives tensors of 128 KiB and more, and the top of its heap, back to the system, which then has
    to hand out and clear every page anew: a quarter to a third of a step. Other C libraries are left as they are.
    """
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, number in MALLOC_OPTIONS:
            mallopt(option, number)


class Progress(NamedTuple):
    """The part of a checkpoint beside the weights: iterations done, and seconds spent."""

    iteration: int
    seconds: float
    wall_seconds: float


class Batches:
    """Positions in the training set of each iteration's batch: a new permutation every epoch.

    The last, smaller batch of an epoch is dropped.
    """

    def __init__(self, *, examples: int, size: int, seed: int) -> None:
        self._examples, self.size, self._seed = examples, min(size, examples), seed
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    def __call__(self, iteration: int) -> Int[Tensor, " b"]:
        epoch, step = divmod(iteration, self._examples // self.size)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = torch.randperm(self._examples, generator=chance(self._seed, 2, epoch))
        return self._order[step * self.size : (step + 1) * self.size]


def _save(run: RunDirectory, network: nn.Module, adam: Adam, average: Average | None, progress: Progress) -> None:
    parts = {"network": network.state_dict(), "adam": adam.state(), "average": average.state() if average else {}}
    tensors = {f"{part}/{key}": value for part, state in parts.items() for key, value in state.items()}
    run.save_tensors("checkpoint", tensors, **progress._asdict())


def _restore(run: RunDirectory, network: nn.Module, adam: Adam, average: Average | None) -> Progress:
    tensors, meta = run.load_tensors("checkpoint"), run.load_metadata("checkpoint")
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "adam": {}, "average": {}}
    for path, value in tensors.items():
        part, _, key = path.partition("/")
        parts[part][key] = value
    network.load_state_dict(parts["network"])
    adam.load_state(parts["adam"])
    if average:
        average.load_state(parts["average"])
    return Progress(**meta)
