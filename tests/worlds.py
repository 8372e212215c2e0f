"""What several processes compute in tests: functions that a started process can import."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Generator, Tensor

import nogs
import nogs.stages.train
import nogs.training.loop
from nogs.attention.choosers import Chooser, sampling
from nogs.attention.methods import METHODS, OBJECTIVES, chooser
from nogs.attention.network import HardAttention
from nogs.attention.train_step import Objective, Training
from nogs.errors import RunError
from nogs.glimpses.grid import Grid
from nogs.runs.device import chance
from nogs.sequences.table import Sequences
from nogs.training.world import World

T, SUPERVISED, CLASSES = 2, 4, 3
PATH = (8, 2)
BATCH = torch.tensor([7, 2, 5, 0, 9, 11, 3, 6])
SEED = 5


def training(name: str, world: World) -> Training:
    """A step of a method on twelve images, with the share of the supervised images that a process computes."""
    torch.manual_seed(1)
    grid = Grid(image_px=9, glimpse_px=3, stride_px=3)
    draw = Generator().manual_seed(2)
    sequences = Sequences(torch.tensor([3, 8, 1, 4]), torch.randint(len(grid), (4, T), generator=draw))

    def choose(generator: Generator) -> Chooser:
        row = METHODS[name]
        path = PATH if row.looks == "path" else None
        return chooser(row, grid, generator=generator, path=path, policy=sampling(generator))

    config = nogs.Train(
        nogs.Machine(Path("nowhere")),
        geometry=nogs.Geometry(glimpses=T),
        method=name,
        supervised_batch=world.share_of(SUPERVISED, "supervised_batch"),
        gains=nogs.GainOptions(pretraining=0.0),
    )
    network = HardAttention(grid, channels=1, classes=CLASSES, hidden=8)
    pixels = torch.randint(0, 256, (12, 1, 9, 9), dtype=torch.uint8, generator=draw)
    labels = torch.randint(CLASSES, (12,), generator=draw)
    has_sequences = METHODS[name].sequences != "none"
    return Training(config, network, choose, sequences if has_sequences else None, pixels, labels)


def gradients(objective: Objective) -> dict[str, Tensor]:
    named = objective.trained.named_parameters()
    return {name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None}


def step(name: str, world: World) -> Objective:
    """Compute the gradients of a process's share of ``BATCH``."""
    objective = OBJECTIVES[METHODS[name].policy](training(name, world))
    objective.loss(world.own(BATCH), chance(SEED, *world.key())).backward()
    return objective


def save_gradients(folder: Path, world: World) -> None:
    """Write the averaged gradients of every method, as each process has them, and the addresses that it listens on."""
    for name in METHODS:
        objective = step(name, world)
        world.average_gradients(objective.trained.parameters())
        save_file(gradients(objective), folder / f"{name}-{world.rank}.safetensors")
    told = world.tell({"rank": world.rank})
    (folder / f"{world.rank}.json").write_text(json.dumps({"told": told, "listens": _listening()}))


def train(config: nogs.Train, stop_at: int | None, world: World) -> None:
    """Train with a checkpoint after each validation; the first process fails after ``stop_at`` iterations."""
    nogs.training.loop.CHECKPOINT_SECONDS = 0.0

    def tick(done: int, note: str) -> None:
        if done == stop_at:
            raise RunError("stopped")

    nogs.stages.train._train(replace(config), tick, world)


def _listening() -> list[str]:
    """Addresses of the sockets on which this process waits for connections, as in /proc/net/tcp."""
    links = [fd for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
    own = {str(fd.readlink()) for fd in links if fd.is_symlink()}
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    rows += [line.split() for line in Path("/proc/self/net/tcp6").read_text().splitlines()[1:]]
    return [row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own]
