"""Measure time, memory and work of proposals from banks of up to 1.5 million images.

    uv run python benchmarks/retrieval.py [--images 20000,100000,400000,1500000] [--threads 2] [--folder DIR]

Latents are synthetic (256 of variance 1, half precision), in a memory-mapped file that is deleted at the end. The
components are cosine waves at 224 pixels, slow and strong ones first. Glimpses have 16 pixels, as in the paper. A query
step finds the 256 images nearest to one image's T glimpses, among all images and their mirror images. The published
method rebuilds the glimpses of every image from its latents in full precision. It is timed on 20,000 images, and the
time is scaled. Multiply-adds are computed from the shapes.

Times are the best of a few repetitions with a warm page cache, in wall seconds and processor seconds. On a machine with
other work the two differ, and threads wait for each other, so measure one thread (--threads 1) there.

The ceiling is measured in the same run: a matrix product of the same precision and sizes, and for the bandwidth a sum
over a large array. Memory is the peak of the process's anonymous pages, and the peak of all resident pages, which
include the page cache of the mapped file.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

import torch
from torch import Tensor

from nogs.completion.proposals import ROWS, Query, Viewer, nearest
from nogs.glimpses.fovea import Glimpses, fovea, look
from nogs.glimpses.grid import Grid
from nogs.runs.device import design_dtype

GRID = Grid(image_px=224, glimpse_px=16, stride_px=4)
COMPONENTS, PROPOSALS, RANK, T = 256, 256, 16, 5
TIMED_ROWS = 20_000
"""Images that the published method is timed on."""
MIB, GIB = 2**20, 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description="Proposals from a bank of up to 1.5 million images.")
    parser.add_argument("--images", default="20000,100000,400000,1500000", help="sizes of the bank")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    parser.add_argument("--folder", type=Path, default=None, help="folder for the temporary file of latents")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sizes = [int(part) for part in arguments.images.split(",")]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder, torch.inference_mode():
        latents = synthetic_latents(Path(folder) / "latents", max(sizes))
        mean, components = smooth_components()
        viewers = [Viewer(mean, components, GRID, RANK)]
        viewers.append(viewers[0].mirrored())
        everything = synthetic_glimpses(components)
        seen = [Glimpses(everything.patches[:, :t], everything.cells[:, :t]) for t in range(1, T + 1)]
        print_ceiling(latents)
        published = [best_of(3, partial(rebuild, viewers, part, latents[:TIMED_ROWS])) for part in seen]
        print(
            "| images | T | seconds | of processor | published, seconds | of processor | multiply-adds | published "
            "| GFLOP/s of processor | read |\n|---|---|---|---|---|---|---|---|---|---|"
        )
        with peak_memory() as peak:
            for count in sizes:
                for part, rebuilt in zip(seen, published, strict=True):
                    print_step(viewers, part, latents[:count], rebuilt)
                own, resident = (peak[key] / GIB for key in ("RssAnon", "VmRSS"))
                print(f"\n{count:,} images: {own:.2f} GiB own, {resident:.2f} GiB resident at most\n", flush=True)


def print_step(viewers: list[Viewer], seen: Glimpses, latents: Tensor, rebuilt: Spent) -> None:
    """Print one row: a query step for one image, and the published method.

    ``rebuilt``: seconds of the published method on TIMED_ROWS images.
    """
    count, scale = len(latents), len(latents) / TIMED_ROWS
    queries = [viewer.query(seen) for viewer in viewers]
    no_group = torch.full((1,), -1)
    spent = best_of(5, lambda: nearest((latents,), queries, count=PROPOSALS, groups=no_group, groups_of_bank=None))
    macs = count * sum(map(macs_of, queries))
    published = count * len(viewers) * COMPONENTS * seen.patches.numel()
    row = (
        f"{count:,}",
        seen.cells.shape[1],
        *(f"{seconds:.3f}" for seconds in spent),
        *(f"{seconds * scale:.2f}" for seconds in rebuilt),
        *(f"{work / 1e9:.1f} G" for work in (macs, published)),
        f"{2 * macs / spent.processor / 1e9:.0f}",
        f"{latents.nbytes / MIB:.0f} MiB",
    )
    print("|", " | ".join(map(str, row)), "|", flush=True)


def macs_of(query: Query) -> int:
    """Return the multiply-adds for one image of the bank."""
    return query.forms.numel() + query.targets.numel() + query.visits.numel() + query.forms.shape[1]


def rebuild(viewers: list[Viewer], seen: Glimpses, latents: Tensor) -> Tensor:
    """Return the nearest images by the published method: rebuild the glimpses of all images and mirror images."""
    distances = torch.zeros(len(viewers), len(latents))
    for viewer, distance in zip(viewers, distances, strict=True):
        for t in range(seen.cells.shape[1]):
            place = GRID.top_left_px(seen.cells[:, t : t + 1])
            basis = fovea(viewer.components, GRID, place.expand(COMPONENTS, -1, -1)).flatten(1)
            y = seen.patches[:, t].flatten(1).float() - fovea(viewer.mean[None], GRID, place).flatten(1)
            for rows, into in zip(latents.split(ROWS), distance.split(ROWS), strict=True):
                into += (rows.float() @ basis - y).square().sum(1)
    return distances.flatten().topk(PROPOSALS, largest=False).indices


def synthetic_latents(file: Path, count: int) -> Tensor:
    """Return latents [count, k] of standard normal numbers in half precision, memory-mapped from ``file``."""
    generator = torch.Generator().manual_seed(0)
    with file.open("wb") as stream:
        for start in range(0, count, 50_000):
            block = torch.randn(min(50_000, count - start), COMPONENTS, generator=generator).bfloat16()
            stream.write(block.view(torch.int16).numpy().tobytes())
    mapped = torch.from_file(str(file), size=count * COMPONENTS, dtype=torch.bfloat16)
    return mapped.reshape(count, COMPONENTS)


def smooth_components() -> tuple[Tensor, Tensor]:
    """Return a grey mean image, and components that are cosine waves of one colour, slow and strong ones first."""
    steps = (torch.arange(GRID.image_px) + 0.5) * torch.pi / GRID.image_px
    order = sorted(((a, b, colour) for a in range(16) for b in range(16) for colour in range(3)), key=sum)
    components = torch.zeros(COMPONENTS, 3, GRID.image_px, GRID.image_px)
    for wave, (a, b, colour) in zip(components, order, strict=False):
        wave[colour] = 20 / (1 + a + b) * torch.outer((a * steps).cos(), (b * steps).cos())
    return torch.full((3, GRID.image_px, GRID.image_px), 128.0), components


def synthetic_glimpses(components: Tensor) -> Glimpses:
    """Return T glimpses at distinct cells of one image in the span of the components."""
    generator = torch.Generator().manual_seed(1)
    image = 128 + torch.einsum("k,kchw->chw", torch.randn(COMPONENTS, generator=generator), components)
    cells = torch.randperm(len(GRID), generator=generator)[None, :T]
    return look(image.clamp(0, 255).to(torch.uint8)[None], GRID, cells)


def print_ceiling(latents: Tensor) -> None:
    """Print the speed of a matrix product in the precision and sizes of the proposals, and the memory bandwidth."""
    dtype = design_dtype(torch.device("cpu"))
    rows, forms = latents[:ROWS].to(dtype), torch.randn(COMPONENTS, T * RANK).to(dtype)
    product = best_of(5, lambda: [rows @ forms for _ in range(50)])
    array = torch.ones(2**26)
    reading = best_of(5, array.sum)
    print(
        f"Ceiling of {torch.get_num_threads()} threads, per processor second: "
        f"{100 * rows.numel() * T * RANK / product.processor / 1e9:.0f} GFLOP/s in {dtype} at these sizes, "
        f"{array.nbytes / reading.processor / GIB:.1f} GiB/s read.\n",
        flush=True,
    )


class Spent(NamedTuple):
    """Wall seconds, and processor seconds of all threads together."""

    clock: float
    processor: float


def best_of(times: int, work: Callable[[], object]) -> Spent:
    """Return the least seconds of several repetitions, because other work slows some of them."""
    spent = []
    for _ in range(times):
        started = time.perf_counter(), time.process_time()
        work()
        spent.append(Spent(time.perf_counter() - started[0], time.process_time() - started[1]))
    return min(spent)


@contextmanager
def peak_memory() -> Iterator[dict[str, int]]:
    """Yield the peaks in bytes of anonymous and of all resident pages, sampled twenty times a second."""
    peak, ended = {"RssAnon": 0, "VmRSS": 0}, Event()

    def watch() -> None:
        while not ended.wait(0.05):
            for line in Path("/proc/self/status").read_text().splitlines():
                key, _, value = line.partition(":")
                if key in peak:
                    peak[key] = max(peak[key], int(value.split()[0]) * 1024)

    thread = Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    main()
