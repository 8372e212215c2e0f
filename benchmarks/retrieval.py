"""Proposals from a bank of up to 1.5 million images: time, memory and work as the bank grows.

    uv run python benchmarks/retrieval.py [--images 20000,100000,400000,1500000] [--threads 2] [--folder DIR]

Latents are synthetic (256 of variance 1, half precision), in a memory-mapped file that is deleted at the end; the
components are waves, strong ones first, at 224 pixels, and glimpses are 16 pixels, as in the paper. A query step is
what a search asks for one image after T glimpses: the 256 nearest images, mirror images too. `published` rebuilds
every image's glimpses from its latents, in full precision; it is timed on 20,000 images and scaled. Multiply-adds
are counted from the shapes.

Times are the best of a few, on a warm page cache, by the clock and in seconds of the processor. On a machine that
others use the two differ, and threads wait for each other: one thread (--threads 1) then tells more than two.

The ceiling is measured in the same run: a matrix product in the precision and of the sizes that are used, and a sum
over a large array for the bandwidth. Memory is the peak of anonymous pages, which are the process's own, and that of
all resident pages, in which the page cache of the mapped file counts as well.
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
"""Images that the published way is timed on."""
MIB, GIB = 2**20, 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description="Proposals from a bank of up to 1.5 million images.")
    parser.add_argument("--images", default="20000,100000,400000,1500000", help="sizes of the bank")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the processor")
    parser.add_argument("--folder", type=Path, default=None, help="where the latents are written, and deleted again")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    sizes = [int(part) for part in asked.images.split(",")]
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder, torch.inference_mode():
        latents = synthetic_latents(Path(folder) / "latents", max(sizes))
        mean, components = smooth_components()
        viewers = [Viewer(mean, components, GRID, RANK)]
        viewers.append(viewers[0].mirrored())
        everything = synthetic_glimpses(components)
        seen = [Glimpses(everything.patches[:, :t], everything.cells[:, :t]) for t in range(1, T + 1)]
        tell_ceiling(latents)
        published = [best_of(3, partial(rebuild, viewers, part, latents[:TIMED_ROWS])) for part in seen]
        print(
            "| images | T | seconds | of processor | published, seconds | of processor | multiply-adds | published "
            "| GFLOP/s of processor | read |\n|---|---|---|---|---|---|---|---|---|---|"
        )
        with watched() as peak:
            for count in sizes:
                for part, rebuilt in zip(seen, published, strict=True):
                    tell_step(viewers, part, latents[:count], rebuilt)
                own, resident = (peak[key] / GIB for key in ("RssAnon", "VmRSS"))
                print(f"\n{count:,} images: {own:.2f} GiB own, {resident:.2f} GiB resident at most\n", flush=True)


def tell_step(viewers: list[Viewer], seen: Glimpses, latents: Tensor, rebuilt: Spent) -> None:
    """One row: a query step for one image, beside the published way, as it was timed on some rows."""
    count, scale = len(latents), len(latents) / TIMED_ROWS
    queries = [viewer.query(seen) for viewer in viewers]
    nobody = torch.full((1,), -1)
    spent = best_of(5, lambda: nearest((latents,), queries, count=PROPOSALS, groups=nobody, groups_of_bank=None))
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
    """Multiply-adds that an image of the bank costs."""
    return query.forms.numel() + query.targets.numel() + query.visits.numel() + query.forms.shape[1]


def rebuild(viewers: list[Viewer], seen: Glimpses, latents: Tensor) -> Tensor:
    """The published way: every image's glimpses, and their mirror images', out of its latents."""
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
    """``count`` × k normal numbers in half precision, memory-mapped."""
    generator = torch.Generator().manual_seed(0)
    with file.open("wb") as stream:
        for start in range(0, count, 50_000):
            block = torch.randn(min(50_000, count - start), COMPONENTS, generator=generator).bfloat16()
            stream.write(block.view(torch.int16).numpy().tobytes())
    mapped = torch.from_file(str(file), size=count * COMPONENTS, dtype=torch.bfloat16)
    return mapped.reshape(count, COMPONENTS)


def smooth_components() -> tuple[Tensor, Tensor]:
    """Grey, and waves of one colour each, slow and strong ones first."""
    steps = (torch.arange(GRID.image_px) + 0.5) * torch.pi / GRID.image_px
    order = sorted(((a, b, colour) for a in range(16) for b in range(16) for colour in range(3)), key=sum)
    components = torch.zeros(COMPONENTS, 3, GRID.image_px, GRID.image_px)
    for wave, (a, b, colour) in zip(components, order, strict=False):
        wave[colour] = 20 / (1 + a + b) * torch.outer((a * steps).cos(), (b * steps).cos())
    return torch.full((3, GRID.image_px, GRID.image_px), 128.0), components


def synthetic_glimpses(components: Tensor) -> Glimpses:
    """T glimpses, well apart, of one image that the components can show."""
    generator = torch.Generator().manual_seed(1)
    image = 128 + torch.einsum("k,kchw->chw", torch.randn(COMPONENTS, generator=generator), components)
    cells = torch.randperm(len(GRID), generator=generator)[None, :T]
    return look(image.clamp(0, 255).to(torch.uint8)[None], GRID, cells)


def tell_ceiling(latents: Tensor) -> None:
    """What the machine can do at best, in the precision and the sizes that the proposals use."""
    dtype = design_dtype(torch.device("cpu"))
    rows, forms = latents[:ROWS].to(dtype), torch.randn(COMPONENTS, T * RANK).to(dtype)
    product = best_of(5, lambda: [rows @ forms for _ in range(50)])
    array = torch.ones(2**26)
    reading = best_of(5, array.sum)
    print(
        f"Ceiling of {torch.get_num_threads()} threads, a second of the processor: "
        f"{100 * rows.numel() * T * RANK / product.processor / 1e9:.0f} GFLOP/s in {dtype} at these sizes, "
        f"{array.nbytes / reading.processor / GIB:.1f} GiB/s read.\n",
        flush=True,
    )


class Spent(NamedTuple):
    """Seconds by the clock, and seconds of the processor, of all threads together."""

    clock: float
    processor: float


def best_of(times: int, work: Callable[[], object]) -> Spent:
    """The quickest, for others use the machine."""
    spent = []
    for _ in range(times):
        started = time.perf_counter(), time.process_time()
        work()
        spent.append(Spent(time.perf_counter() - started[0], time.process_time() - started[1]))
    return min(spent)


@contextmanager
def watched() -> Iterator[dict[str, int]]:
    """Peaks, in bytes, of anonymous and of all resident pages, looked up twenty times a second beside the work."""
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
