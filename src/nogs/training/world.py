"""The processes that train one network together: one by default, or several devices and machines by Lightning Fabric.

Every process has the same weights. Of a batch, process r of n computes images r, r + n, r + 2n, ... with chance of its
own, and as many supervised images as each of the others. The gradients are averaged over the processes, so they are
those of the whole batch: each term of a loss is a mean over its images, and every process has as many of them.
The first process validates, writes and decides, and tells the others.

Fabric is `nogs[fabric]`. It knows devices, precisions and clusters. Gradients are averaged here, because the losses run
parts of a network many times in a step, which its wrapper for modules does not allow.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from nogs.config.groups import Together
from nogs.errors import RunError, UserError
from nogs.runs.workers import begin, starting

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")
Work = Callable[["World"], None]
ERROR = "error.json"


class World:
    """One process alone. ``rank`` counts processes from 0; ``leads``: whether this one validates and writes."""

    rank, size = 0, 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def device(self, chosen: torch.device) -> torch.device:
        """Return the device of this process, of the type of ``chosen``."""
        return chosen

    def share_of(self, count: int, argument: str) -> int:
        """Return the part of ``count`` images that each process computes. Raises UserError if parts differ."""
        if count % self.size:
            raise UserError(f"{argument}={count} is not divisible by {self.size} processes: choose a multiple")
        return count // self.size

    def own(self, batch: Int[Tensor, " b"]) -> Int[Tensor, " s"]:
        """Return the images of a batch that this process computes."""
        return batch[self.rank :: self.size]

    def key(self) -> tuple[int, ...]:
        """Return what the chance of this process depends on beside seed and iteration."""
        return () if self.size == 1 else (self.rank,)

    def computing(self) -> AbstractContextManager[object]:
        """Return the context of the chosen precision, for losses."""
        return nullcontext()

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients by their means over all processes."""

    def tell(self, value: T) -> T:
        """Return the first process's ``value`` in every process. It is sent as JSON. Waits for all of them."""
        return value


class Several(World):
    """One of the processes that ``fabric`` connects."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.rank, self.size = fabric.global_rank, fabric.world_size

    def device(self, chosen: torch.device) -> torch.device:
        return self.fabric.device

    def computing(self) -> AbstractContextManager[object]:
        return self.fabric.autocast()

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        mean = self.fabric.all_reduce(torch.cat([gradient.flatten() for gradient in gradients]), reduce_op="mean")
        assert isinstance(mean, Tensor)
        for gradient, of in zip(gradients, mean.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(of.view_as(gradient))

    def tell(self, value: T) -> T:
        # As a tensor: Fabric's own broadcast of objects would load a pickle that another process sent.
        if self.size == 1:
            return value
        text = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8, device=self.fabric.device)
        length = torch.tensor(len(text), device=self.fabric.device)
        torch.distributed.broadcast(length, 0)
        told = text if self.leads else text.new_empty(int(length))
        torch.distributed.broadcast(told, 0)
        answer: T = json.loads(bytes(told.tolist()))
        return answer


ALONE = World()


def train_together(work: Work, together: Together, device: torch.device) -> None:
    """Call ``work`` in every process of ``together``, with its `World`; picklable if there are several.

    On one machine the processes are started here. On several, or where torchrun or Slurm has started them, this is one
    of them. Raises the error of the first process that fails, after the others were ended.
    """
    if together == Together():
        work(ALONE)
        return
    _check_fabric()
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    _check_devices(together, device)
    started = TorchElasticEnvironment.detect() or SLURMEnvironment.detect()
    if together.nodes > 1 and not started:
        raise UserError(
            f"nodes={together.nodes}: start this command on each machine by torchrun or srun, which tell it its place"
        )
    if together.devices == 1 and together.nodes == 1:
        work(Several(Fabric(accelerator=device.type, devices=1, precision=together.precision)))
    elif started:
        fabric = Fabric(
            accelerator=device.type,
            devices=together.devices,
            num_nodes=together.nodes,
            precision=together.precision,
            strategy="ddp",
        )
        fabric.launch()
        work(Several(fabric))
    else:
        _spawned(work, together, device)


def _check_fabric() -> None:
    """Raise UserError without Fabric, and keep its notes on what it found from the terminal."""
    try:
        import lightning_fabric  # noqa: F401
    except ImportError:
        raise UserError("`devices`, `nodes` and `precision` need Lightning Fabric: install nogs[fabric]") from None
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)


def _check_devices(together: Together, device: torch.device) -> None:
    there = (os.cpu_count() or 1) if device.type == "cpu" else torch.accelerator.device_count()
    if together.devices > there:
        raise UserError(
            f"devices={together.devices}: this machine has {there} of type {device.type}; choose at most that"
        )


def _spawned(work: Work, together: Together, device: torch.device) -> None:
    """Start the processes, wait for them, and raise the error of the first that fails."""
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // together.devices)
    with tempfile.TemporaryDirectory(prefix="nogs-") as folder:
        with starting():
            processes = [
                context.Process(target=_one_of, args=(work, together, device.type, rank, threads, folder))
                for rank in range(together.devices)
            ]
            for process in processes:
                process.start()
        try:
            running = list(processes)
            while running:
                wait([process.sentinel for process in running])
                if any(process.exitcode for process in running):
                    break
                running = [process for process in running if process.exitcode is None]
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.join()
        if any(process.exitcode for process in processes):
            raise _error_in(Path(folder))


def _error_in(folder: Path) -> Exception:
    """Return the error that a process left in ``folder``; without one it was killed."""
    if not (folder / ERROR).is_file():
        return RunError(
            "a training process ended, perhaps for memory: choose fewer `devices`; "
            "run it again with resume=True to go on from here"
        )
    told = json.loads((folder / ERROR).read_text())
    return (UserError if told["kind"] == UserError.__name__ else RunError)(told["message"])


def _one_of(work: Work, together: Together, device: str, rank: int, threads: int, folder: str) -> None:
    """Run ``work`` as one of the processes of this machine."""
    begin(threads)
    _check_fabric()
    # The processes meet through a file, and their sockets are of the loopback interface: no port is open to a network.
    loopback = "lo0" if os.uname().sysname == "Darwin" else "lo"
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, loopback)
    backend = "nccl" if device == "cuda" else "gloo"
    torch.distributed.init_process_group(
        backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=together.devices
    )
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    try:
        strategy = DDPStrategy(cluster_environment=_local(rank, together.devices), process_group_backend=backend)
        fabric = Fabric(accelerator=device, devices=together.devices, precision=together.precision, strategy=strategy)
        fabric.launch()
        work(Several(fabric))
    except (UserError, RunError) as error:
        told = {"kind": type(error).__name__, "message": str(error)}
        part = Path(folder) / f"{ERROR}-{rank}"
        part.write_text(json.dumps(told))
        part.replace(Path(folder) / ERROR)
        os._exit(1)
    torch.distributed.destroy_process_group()


def _local(rank: int, size: int) -> Any:
    """Return Fabric's description of process ``rank`` of ``size`` on this machine, which have met already."""
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    class Local(LightningEnvironment):
        creates_processes_externally = True

        def world_size(self) -> int:
            return size

        def global_rank(self) -> int:
            return rank

        def local_rank(self) -> int:
            return rank

    return Local()
