"""Compare training and inference steps of the hard attention network with a straightforward implementation.

    uv run python benchmarks/training_step.py [--image-size 224 --glimpse-size 16 --stride 4 --glimpses 5 --batch 64]

Training (RAM, the paper's network, in full precision). The straightforward step follows the paper directly: float
images from a `DataLoader`, normalised whole and collated, `torch.distributions.Categorical` with its validation to
sample and to score, every head inside the loop over t, and Adam with default options. Ours is `nogs.stages.train` on
the same synthetic images. Each runs in a separate process, because `nogs.training.loop` sets options of the memory
allocator. They alternate in rounds, and the ratio of their times is the median over rounds. The parts of a step
(loader, forward pass, backward pass, Adam) are timed too. Multiply-adds are counted by torch, forward and backward.

Inference: T glimpses with the greedy policy, for a batch of 1 and of --batch images. The ceiling is the time of the
matrix products and convolutions alone, on the same tensors, which is a lower bound for these layers and kernels.

Times are processor seconds of one thread on a CPU, which depend less on other work, and wall seconds on an accelerator.
Measured figures: docs/benchmarks.md.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
import tyro
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from nogs.attention.choosers import greedy, sampling
from nogs.attention.classify import look_at_all
from nogs.attention.network import HardAttention
from nogs.attention.train_step import Training, reinforce_step
from nogs.config.groups import Geometry, Machine
from nogs.config.stages import Train
from nogs.evaluation.cost import FLOPS_A_MAC, count_macs, macs_by_glimpse
from nogs.glimpses.grid import Grid
from nogs.runs.device import chance, choose_device
from nogs.training.adam import Adam
from nogs.training.loop import Batches, keep_freed_memory

CHANNELS, CLASSES, HIDDEN, WIDTH = 3, 2, 64, 64
PARTS = ("images", "forward", "backward", "update")
STEPS = 10
"""Steps in a round. Several in a row keep the caches warm, as in a training."""
WARM_UP = 5
"""First rounds, which are not counted, because memory is allocated and kernels are chosen in them."""
IMPLEMENTATIONS = ("straightforward", "ours")


@dataclass(frozen=True)
class Benchmark:
    """Time training and inference steps, ours and straightforward ones."""

    image_size: int = 224
    glimpse_size: int = 16
    stride: int = 4
    glimpses: int = 5
    batch: int = 64
    images: int = 1000
    """synthetic images to train on"""
    rounds: int = 15
    device: str = "cpu"
    out: Path | None = None
    """JSON file to write the figures to"""

    @property
    def grid(self) -> Grid:
        return Grid(self.image_size, self.glimpse_size, self.stride)


class Straightforward(nn.Module):
    """The network of the paper, written directly."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.g = grid.glimpse_px
        offsets = torch.tensor(grid.offsets_px)
        self.register_buffer("corners", torch.cartesian_prod(offsets, offsets))
        self.register_buffer("centres", grid.centres(torch.arange(len(grid))))
        self.what = nn.Sequential(
            nn.Conv2d(CHANNELS, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * (self.g // 4) ** 2, 2 * WIDTH),
            nn.ReLU(),
            nn.Linear(2 * WIDTH, WIDTH),
        )
        self.where = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, WIDTH))
        self.core = nn.GRUCell(WIDTH, HIDDEN)
        self.classifier = nn.Linear(HIDDEN, CLASSES)
        self.locator = nn.Sequential(nn.Linear(HIDDEN, 32), nn.ReLU(), nn.Linear(32, len(grid)))
        self.baseline = nn.Linear(HIDDEN, 1)

    def forward(self, images: Tensor, labels: Tensor, glimpses: int) -> Tensor:
        """Return the loss of a batch of normalised images by RAM, as in `nogs.attention.objectives`."""
        h = images.new_zeros(len(images), HIDDEN)
        log_probs, baselines, losses = [], [], []
        for _ in range(glimpses):
            policy = Categorical(logits=self.locator(h.detach()))
            cells = policy.sample()
            log_probs.append(policy.log_prob(cells))
            baselines.append(self.baseline(h.detach())[:, 0])
            patches = torch.stack(
                [
                    image[:, row : row + self.g, column : column + self.g]
                    for image, (row, column) in zip(images, self.corners[cells].tolist(), strict=True)
                ]
            )
            h = self.core((self.what(patches) * self.where(self.centres[cells])).relu(), h)
            logits = self.classifier(h)
            losses.append(F.cross_entropy(logits, labels))
        reward = (logits.argmax(-1) == labels).float()
        advantage = reward[:, None] - torch.stack(baselines, dim=1)
        policy_loss = -(torch.stack(log_probs, dim=1) * advantage.detach()).sum(1).mean()
        return torch.stack(losses).mean() + policy_loss + advantage.square().mean()


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Normalised float images, one at a time."""

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels, self.labels = pixels, labels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return (self.pixels[index].float() / 255 - 0.5) / 0.5, self.labels[index]


class Step(NamedTuple):
    """The parts of a training step: the batch of an iteration, its loss, and the optimiser of the network."""

    batch: Callable[[int], tuple[Tensor, ...]]
    loss: Callable[..., Tensor]
    network: nn.Module
    adam: Adam | torch.optim.Adam


def straightforward(config: Benchmark, pixels: Tensor, labels: Tensor, device: torch.device) -> Step:
    network = Straightforward(config.grid).to(device)
    loader = DataLoader(Images(pixels, labels), config.batch, shuffle=True, drop_last=True)

    def endlessly() -> Iterator[list[Tensor]]:
        while True:
            yield from loader

    batches = endlessly()
    return Step(
        lambda iteration: tuple(part.to(device) for part in next(batches)),
        partial(network, glimpses=config.glimpses),
        network,
        torch.optim.Adam(network.parameters()),
    )


def ours(config: Benchmark, pixels: Tensor, labels: Tensor, device: torch.device) -> Step:
    if device.type == "cpu":
        keep_freed_memory()
    network = HardAttention(config.grid, channels=CHANNELS, classes=CLASSES, hidden=HIDDEN).to(device)
    geometry = Geometry(config.glimpse_size, config.stride, config.glimpses)
    training = Training(
        Train(Machine(Path("unused")), geometry=geometry),
        network,
        choose=sampling,
        sequences=None,
        pixels=pixels.to(device),
        labels=labels.to(device),
    )
    batches = Batches(examples=len(pixels), size=config.batch, seed=0)
    adam = Adam(network.parameters(), learning_rate=1e-3)

    def loss(batch: Tensor, iteration: Tensor) -> Tensor:
        return reinforce_step(training, batch, chance(0, 1, int(iteration), device=device))

    return Step(lambda iteration: (batches(iteration).to(device), torch.tensor(iteration)), loss, network, adam)


def work(pipe: Connection, config: Benchmark, implementation: str) -> None:
    """Send the multiply-adds and parameters of a step, then for each request the seconds of its parts."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device, H = choose_device(config.device), config.image_size
    pixels = torch.randint(0, 256, (config.images, CHANNELS, H, H), dtype=torch.uint8)
    step = {"straightforward": straightforward, "ours": ours}[implementation](
        config, pixels, torch.randint(CLASSES, (config.images,)), device
    )
    with FlopCounterMode(display=False) as counter:
        step.loss(*step.batch(0)).backward()
    parameters = sum(parameter.numel() for parameter in step.network.parameters())
    pipe.send((counter.get_total_flops() // FLOPS_A_MAC, parameters))
    iterations = count(1)
    while pipe.recv():
        spent = dict.fromkeys(PARTS, 0.0)
        for iteration in islice(iterations, STEPS):
            clock = [now(device)]
            step.adam.zero_grad()
            batch = step.batch(iteration)
            clock.append(now(device))
            loss = step.loss(*batch)
            clock.append(now(device))
            loss.backward()
            clock.append(now(device))
            step.adam.step()
            clock.append(now(device))
            for part, start, end in zip(PARTS, clock, clock[1:], strict=False):
                spent[part] += (end - start) / STEPS
        pipe.send(spent)


def now(device: torch.device) -> float:
    """Return processor seconds on a CPU, and wall seconds on an accelerator, after its queue is empty."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize()
    return time.perf_counter()


def training(config: Benchmark, ceiling: float) -> dict[str, object]:
    """Time both implementations in turn; print the table and return its figures."""
    spawn = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for way in IMPLEMENTATIONS:
        pipes[way], end = spawn.Pipe()
        spawn.Process(target=work, args=(end, config, way), daemon=True).start()
    counted = {way: pipe.recv() for way, pipe in pipes.items()}
    assert counted["ours"][1] == counted["straightforward"][1]
    rounds: dict[str, list[dict[str, float]]] = {way: [] for way in IMPLEMENTATIONS}
    for _ in range(WARM_UP + config.rounds):
        for way, pipe in pipes.items():
            pipe.send(True)
            rounds[way].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(False)
    totals = {way: [sum(parts.values()) for parts in timed[WARM_UP:]] for way, timed in rounds.items()}
    ratio = median(a / b for a, b in zip(totals["straightforward"], totals["ours"], strict=True))
    whole, glimpsed = (
        CHANNELS * config.batch * px for px in (config.image_size**2, config.glimpses * config.glimpse_size**2)
    )
    pixel_bytes = {"straightforward": whole, "ours": glimpsed}
    print(f"\nA training step of {config.batch} images, {counted['ours'][1]:,} parameters; milliseconds")
    print(
        f"{'':16}{'total':>9}"
        + "".join(f"{part:>10}" for part in PARTS)
        + "     M macs   of ceiling   KiB of pixels read"
    )
    figures: dict[str, object] = {"times_faster": ratio}
    for way in IMPLEMENTATIONS:
        parts = {part: median(timed[part] for timed in rounds[way][WARM_UP:]) for part in PARTS}
        seconds, macs = median(totals[way]), counted[way][0]
        print(
            f"{way:16}{1e3 * seconds:9.1f}"
            + "".join(f"{1e3 * parts[part]:10.2f}" for part in PARTS)
            + f"{macs / 1e6:11.0f}{100 * macs / seconds / ceiling:11.0f} %{pixel_bytes[way] / 1024:21,.0f}"
        )
        figures[way] = {"seconds": seconds, "parts": parts, "macs": macs, "pixel_bytes": pixel_bytes[way]}
    print(f"{ratio:.2f} times faster (median of {config.rounds} paired rounds)")
    return figures


def products(network: HardAttention, run: Callable[[], object]) -> list[Callable[[], Tensor]]:
    """Return every matrix product and convolution of ``run()`` as a call on the same tensors, without biases."""
    calls: list[Callable[[], Tensor]] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        x = inputs[0]
        if isinstance(layer, nn.Conv2d):
            calls.append(partial(F.conv2d, x, layer.weight, None, layer.stride, layer.padding))
        elif isinstance(layer, nn.Linear):
            calls.append(partial(F.linear, x, layer.weight))
        elif isinstance(layer, nn.GRUCell):
            calls.extend((partial(F.linear, x, layer.weight_ih), partial(F.linear, inputs[1], layer.weight_hh)))

    hooks = [layer.register_forward_hook(note) for layer in network.modules()]
    run()
    for hook in hooks:
        hook.remove()
    return calls


@torch.inference_mode()
def inference(config: Benchmark, device: torch.device) -> list[dict[str, object]]:
    """Time T greedy glimpses and their products alone, in turn; print the table and return its figures."""
    network = HardAttention(config.grid, channels=CHANNELS, classes=CLASSES, hidden=HIDDEN).to(device).eval()
    parameter_bytes = sum(part.numel() * part.element_size() for part in network.parameters())
    macs = macs_by_glimpse(network, channels=CHANNELS, glimpses=config.glimpses)[-1]
    print(
        f"\n{config.glimpses} glimpses: {macs:,} multiply-adds an image; {parameter_bytes / 1024:,.0f} KiB of weights"
    )
    print(f"{'batch':>6}{'ms':>9}{'M macs':>9}{'G macs/s':>10}{'products alone, ms':>21}{'of ceiling':>12}")
    figures: list[dict[str, object]] = []
    for batch in dict.fromkeys((1, config.batch)):
        shape = (batch, CHANNELS, config.image_size, config.image_size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8).to(device)
        rows = torch.arange(batch, device=device)

        def run(images: Tensor = images, rows: Tensor = rows) -> object:
            return look_at_all(network, images, rows, glimpses=config.glimpses, choose=greedy)

        alone = products(network, run)
        counted = count_macs(network, run)
        taken: list[float] = []
        least: list[float] = []
        for _ in range(WARM_UP + config.rounds):
            taken.append(seconds_of([run], device))
            least.append(seconds_of(alone, device))
        seconds, floor = median(taken[WARM_UP:]), median(least[WARM_UP:])
        share = median(b / a for a, b in zip(taken[WARM_UP:], least[WARM_UP:], strict=True))
        print(
            f"{batch:6}{1e3 * seconds:9.2f}{counted / 1e6:9.1f}{counted / seconds / 1e9:10.1f}"
            f"{1e3 * floor:21.2f}{100 * share:10.0f} %"
        )
        figures.append({"batch": batch, "seconds": seconds, "macs": counted, "products_seconds": floor, "share": share})
    return figures


def seconds_of(calls: list[Callable[[], Tensor]] | list[Callable[[], object]], device: torch.device) -> float:
    """Return the seconds of all calls in sequence, the mean of five repetitions."""
    started = now(device)
    for _ in range(5):
        for call in calls:
            call()
    return (now(device) - started) / 5


def large_product(device: torch.device) -> float:
    """Return the multiply-adds per second of a large matrix product in full precision."""
    a = torch.rand(1024, 1024, device=device)
    return 1024**3 / min(seconds_of([lambda: a @ a], device) for _ in range(5))


def main(config: Benchmark) -> None:
    """Time training, then inference."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = choose_device(config.device)
    ceiling = large_product(device)
    print(
        f"{device}, {config.image_size} px, {len(config.grid)} locations; "
        f"a matrix product of 1024 x 1024 x 1024 reaches {ceiling / 1e9:.1f} G multiply-adds a second"
    )
    figures = {"ceiling_macs_per_second": ceiling, "training": training(config, ceiling)}
    if device.type == "cpu":
        keep_freed_memory()
    figures["inference"] = inference(config, device)
    if config.out:
        config.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
