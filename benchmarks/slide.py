"""Bytes, seconds and memory of one prediction on a pyramidal TIFF of 100,000 x 100,000 pixels.

    python benchmarks/slide.py FOLDER [--side 100000]

Writes the slide to FOLDER once: flat background, and textured tiles in a disc. A network with random weights looks
five times at a million locations over an overview of 256 pixels, because neither bytes nor seconds depend on what it
learned. Prints one JSON object: seconds of the first prediction in a process and of the next ones (median, on one
thread), bytes that nogs counts and that the operating system counts (rchar), and the peak of resident memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
import torch

from nogs.glimpses.grid import Grid
from nogs.prediction.model import Model
from nogs.specs import HardAttentionSpec

TILE, TEXTURES, SMALLEST, GRAIN_PX = 512, 32, 256, 2
BACKGROUND, TISSUE, CONTRAST = 235, 150, 40
GLIMPSES, AGAIN = 5, 5


def write(path: Path, side: int) -> None:
    """Write a pyramid whose levels are halved down to `SMALLEST` pixels, as compressed tiles of 512 pixels."""
    rng = np.random.default_rng(0)
    flat = zlib.compress(np.full((TILE, TILE, 3), BACKGROUND, dtype=np.uint8).tobytes(), 1)
    levels = [side]
    while levels[-1] // 2 >= SMALLEST:
        levels.append(levels[-1] // 2)

    def tiles(level_px: int) -> Iterator[bytes]:
        textures = []
        for _ in range(TEXTURES):
            grain = rng.normal(TISSUE, CONTRAST * level_px / side, (TILE // GRAIN_PX, TILE // GRAIN_PX, 3))
            grain = grain.clip(0, 255).astype(np.uint8).repeat(GRAIN_PX, 0).repeat(GRAIN_PX, 1)
            textures.append(zlib.compress(grain.tobytes(), 1))
        count = -(-level_px // TILE)
        for row in range(count):
            for column in range(count):
                y, x = ((index + 0.5) * TILE / level_px - 0.5 for index in (row, column))
                yield textures[rng.integers(TEXTURES)] if y**2 + x**2 < 0.16 else flat

    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level_px in levels:
            file.write(
                tiles(level_px),
                shape=(level_px, level_px, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="adobe_deflate",
                **({"subifds": len(levels) - 1} if level_px == side else {"subfiletype": 1}),
            )


def bytes_so_far() -> int:
    """Return the bytes that this process has read, as the operating system counts them."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=100_000)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    path = arguments.folder / f"slide-{arguments.side}.tif"
    if not path.exists():
        unfinished = path.with_suffix(".part")
        write(unfinished, arguments.side)
        unfinished.rename(path)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    grid = Grid(arguments.side, 128, max(1, (arguments.side - 128) // 999))
    spec = HardAttentionSpec(grid, 3, ("healthy", "lesion"), 64, GLIMPSES, "gain", None, "crop", None, 256)
    model = Model(spec, spec.build())
    seconds, counted = [], []
    for _ in range(1 + AGAIN):
        before, started = bytes_so_far(), time.perf_counter()
        answer = model.predict(path)
        seconds.append(time.perf_counter() - started)
        counted.append(bytes_so_far() - before)
    assert answer.read is not None
    figures = {
        "side_px": arguments.side,
        "locations": len(grid),
        "file_bytes": path.stat().st_size,
        "bytes_read": answer.read.bytes,
        "bytes_read_by_the_operating_system": counted[-1],
        "share_of_bytes": answer.read.bytes_share,
        "share_of_pixels": answer.read.pixels_share,
        "first_seconds": seconds[0],
        "seconds": statistics.median(seconds[1:]),
        "peak_resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
