"""Training steps on a set of slides, read by tiles, against the same overviews and patches held in memory.

    uv run nogs slides --count 20000 --side 2000 --lesion-share 1e-4 --out slides
    uv run python benchmarks/tiles.py csv:slides/labels.csv [--image-size 2000 --glimpse-size 32 --overview 64]

Each step of learned gain runs twice with the same weights and the same random numbers: from tiles, and with the pixels
that the first pass read. The order alternates with nothing else between them, so the ratio of their times is what
reading costs. Prints one JSON object: processor and wall seconds of both (medians, with backward pass and Adam, on one
thread), megabytes read in a step, the peak of resident memory, and seconds of the start, the overviews and all headers.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
import tyro
from torch import Tensor

from nogs.attention.choosers import greedy
from nogs.attention.methods import OBJECTIVES, chooser, method
from nogs.attention.train_step import Training
from nogs.config.groups import Geometry, Machine, Source
from nogs.config.stages import Train
from nogs.data import load
from nogs.data.drawn import Drawn
from nogs.data.tiled.tiles import TiledImages
from nogs.runs.device import chance
from nogs.specs import HardAttentionSpec, grid_of
from nogs.training.adam import Adam
from nogs.training.loop import Batches, keep_freed_memory


@dataclass(frozen=True)
class Benchmark:
    """Time training steps on slides."""

    data: tyro.conf.Positional[str]
    image_size: int = 2000
    glimpse_size: int = 32
    stride: int = 16
    glimpses: int = 5
    overview: int = 64
    batch: int = 64
    steps: int = 60
    warm_up: int = 5
    """first steps, which are not counted"""


@dataclass
class Recorded(Drawn):
    """Images of which what was read is kept, and returned in its order while ``replaying``."""

    images: TiledImages
    replaying: bool = False
    read: list[Tensor] = field(default_factory=list)

    @property
    def shape(self) -> torch.Size:
        return self.images.shape

    @property
    def device(self) -> torch.device:
        return self.images.device

    def to(self, device: torch.device) -> Recorded:
        return self

    def content(self) -> Iterator[bytes]:
        return self.images.content()

    def squares(self, first: Tensor, rows: Tensor, side: int) -> Tensor:
        return self.read.pop(0).clone() if self.replaying else self._kept(self.images.squares(first, rows, side))

    def overview(self, rows: Tensor, px: int) -> Tensor:
        return self.read.pop(0).clone() if self.replaying else self._kept(self.images.overview(rows, px))

    def _kept(self, pixels: Tensor) -> Tensor:
        self.read.append(pixels)
        return pixels


class Seconds(NamedTuple):
    processor: float
    wall: float


def clock() -> Seconds:
    return Seconds(time.process_time(), time.perf_counter())


def main(config: Benchmark) -> None:
    """Run the steps and print the figures."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    started = time.perf_counter()
    source = Source(config.data, image_size=config.image_size)
    data = load(source)
    loaded = time.perf_counter()
    assert isinstance(data.images, TiledImages)
    data.images.overview(torch.arange(1), config.overview)
    viewed = time.perf_counter()
    for slide in data.images.slides:  # read in the first epoch otherwise
        assert slide.levels
        slide.close()
    parsed = time.perf_counter()
    geometry = Geometry(config.glimpse_size, config.stride, config.glimpses, overview=config.overview)
    grid, row = grid_of(geometry, data), method("gain")
    spec = HardAttentionSpec(grid, 3, data.classes, 64, config.glimpses, "gain", None, "crop", None, config.overview)
    images = Recorded(data.images)
    training = Training(
        Train(Machine(Path("unused")), source, geometry, method="gain"),
        spec.build(),
        lambda generator: chooser(row, grid, generator=generator, policy=greedy),
        None,
        images,
        data.labels,
    )
    trained, loss, _ = OBJECTIVES[row.policy](training)
    members, adam = data.members("train"), Adam(trained.parameters(), learning_rate=1e-3)
    batches = Batches(examples=len(members), size=config.batch, seed=0)
    tiles, memory, update, read = list[Seconds](), list[Seconds](), list[Seconds](), list[int]()

    def one(step: int) -> Seconds:
        adam.zero_grad()
        before = clock()
        loss(members[batches(step)], chance(0, 1, step)).backward()
        return Seconds(*(b - a for a, b in zip(before, clock(), strict=True)))

    for step in range(config.warm_up + config.steps):
        images.replaying = False
        bytes_before = sum(slide.bytes_read for slide in data.images.slides)
        tiles.append(one(step))
        read.append(sum(slide.bytes_read for slide in data.images.slides) - bytes_before)
        images.replaying = True
        memory.append(one(step))
        assert not images.read
        before = clock()
        adam.step()
        update.append(Seconds(*(b - a for a, b in zip(before, clock(), strict=True))))
    figures: dict[str, object] = {
        "images": len(data),
        "side_px": config.image_size,
        "locations": len(grid),
        "seconds_to_load": loaded - started,
        "seconds_of_overviews": viewed - loaded,
        "seconds_of_headers": parsed - viewed,
        "megabytes_read_in_a_step": median(read[config.warm_up :]) / 1e6,
        "peak_resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    for number, name in enumerate(Seconds._fields):
        adam_s = median(one[number] for one in update[config.warm_up :])
        of_tiles, of_memory = (
            median(one[number] for one in timed[config.warm_up :]) + adam_s for timed in (tiles, memory)
        )
        figures[name] = {"tiles_s": of_tiles, "memory_s": of_memory, "ratio": of_tiles / of_memory}
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
