"""Train MobileNetV2 on whole street photographs at full size: the rival of gtsdb.sh, on an accelerator.

    python experiments/gtsdb_cnn.py DATA OUT [--windows SECONDS] [--whole SECONDS] [--width SHARE] [--device NAME]

The images are those of ``gtsdb-pasted:DATA``, without the black borders that pad them. Before whole photographs it
learns from windows of composites: at the pasted limit, or in composites without one at another pasted sign or anywhere.
A sign covers a thousandth of a photograph, so from nothing (``--windows 0``) it has little to go by. The kept weights
are those of the least validation loss on whole photographs. Seconds are of training alone, seed 0.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

import nogs
from nogs.config.groups import Source
from nogs.data.composites import Composites
from nogs.data.imageset import ImageSet, Split
from nogs.evaluation.cost import macs_of_image
from nogs.evaluation.scores import accuracy, class_frequencies, confusion, nll_nats, scores
from nogs.specs import CNNSpec
from nogs.training.adam import Adam

WIDTH_PX, HEIGHT_PX = 1360, 800
WINDOW_PX, WINDOWS, WHOLE = 224, 128, 16
"""Side of a window in pixels; windows, and whole photographs, of a batch."""
RATES = {"windows": 4e-3, "whole": 1e-3}
"""Greatest learning rate of each phase, reached after `WARM` of it and falling to 0 as a cosine."""
WARM = 0.05
VALIDATE_SECONDS = 20.0
AT_ONCE = 20
"""Photographs of a batch without gradients."""
EITHER = 0.5
"""Probability with which a window of a composite without a limit is at another pasted sign."""


class Photographs(IterableDataset[tuple[Tensor, Tensor]]):
    """Endless batches of training photographs and their labels: all of each, or a window of a composite."""

    def __init__(self, images: ImageSet, *, windows: bool) -> None:
        assert isinstance(images.images, Composites)
        self.images, self.labels, self.windows = images.images, images.labels, windows
        train = images.members("train")
        composite = images.images.pastes[train].any(-1).any(-1)
        self.rows = train[composite] if windows else train

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = get_worker_info()
        generator = Generator().manual_seed(worker.id if worker else 0)
        while True:
            rows = self.rows[torch.randint(len(self.rows), (WINDOWS if self.windows else WHOLE,), generator=generator)]
            yield self.window(rows, generator) if self.windows else whole(self.images, rows), self.labels[rows]

    def window(self, rows: Int[Tensor, " n"], generator: Generator) -> UInt8[Tensor, "n 3 p p"]:
        """Return a window of each composite, which has all of its limit if it shows one."""
        limit, other = self.images.pastes[rows, -1, 1:4], self.images.pastes[rows, 0, 1:4]
        at_other = (other[:, 2:] > 0) & (torch.rand(len(rows), 1, generator=generator) < EITHER)
        about = torch.where(limit[:, 2:] > 0, limit, other * at_other)
        row_column, side = about.split((2, 1), dim=1)
        least = torch.tensor((top_px(self.images), 0))
        most = least + torch.tensor((HEIGHT_PX, WIDTH_PX)) - WINDOW_PX
        place = torch.rand(len(rows), 2, generator=generator)
        around = row_column - (place * (WINDOW_PX - side + 1)).long()
        anywhere = least + (place * (most - least + 1)).long()
        first = torch.where(side > 0, around, anywhere).clamp(least, most)
        return self.images.squares(first[:, None], rows, WINDOW_PX)[:, 0]


def top_px(images: Composites) -> int:
    """Return the first row of a photograph below the border that pads it."""
    return (images.image_px - HEIGHT_PX) // 2


def whole(images: Composites, rows: Int[Tensor, " n"]) -> UInt8[Tensor, "n 3 h w"]:
    """Return photographs without the borders that pad them."""
    return images[rows][:, :, top_px(images) :][:, :, :HEIGHT_PX]


class Learner:
    """A network that learns from batches for some seconds, and the log of its validations."""

    def __init__(self, images: ImageSet, width: float, device: torch.device, workers: int) -> None:
        torch.manual_seed(0)
        self.images, self.device, self.workers = images, device, workers
        self.network = CNNSpec("mobilenet-v2", WIDTH_PX, width, 3, images.classes).build().to(device)
        self.log: list[dict[str, float | str]] = []
        self.best: tuple[float, dict[str, Tensor]] = math.inf, {}

    def learn(self, phase: str, seconds: float) -> None:
        """Train, validate every `VALIDATE_SECONDS`, and keep the weights of the least loss on whole photographs."""
        adam, spent, validated = Adam(self.network.parameters(), learning_rate=0.0), 0.0, 0.0
        batches = DataLoader(
            Photographs(self.images, windows=phase == "windows"),
            batch_size=None,
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
        )
        for iteration, (pixels, labels) in enumerate(batches, start=1):
            began = time.perf_counter()
            share = spent / seconds
            falling = (1 + math.cos(math.pi * max(0.0, share - WARM) / (1 - WARM))) / 2
            adam.learning_rate = RATES[phase] * min(share / WARM, falling)
            adam.zero_grad()
            loss = F.cross_entropy(self.network(pixels.to(self.device)), labels.to(self.device))
            loss.backward()
            adam.step()
            train_loss = loss.item()
            spent += time.perf_counter() - began
            if spent - validated >= VALIDATE_SECONDS or spent >= seconds:
                validated = spent
                answers, shown = self.answers("val")
                nats = nll_nats(answers, shown)
                row: dict[str, float | str] = {"phase": phase, "iterations": iteration, "seconds": spent}
                row |= {"train_loss": train_loss, "nll_nats": nats, "accuracy": accuracy(answers, shown)}
                self.log.append(row)
                print(self.log[-1], flush=True)
                if phase == "whole" and nats < self.best[0]:
                    self.best = nats, {name: value.clone() for name, value in self.network.state_dict().items()}
            if spent >= seconds:
                break

    def answers(self, split: Split) -> tuple[Float[Tensor, "n C"], Int[Tensor, " n"]]:
        """Return log-probabilities of the classes for the photographs of a split, and their labels."""
        assert isinstance(self.images.images, Composites)
        members = self.images.members(split)
        self.network.eval()
        with torch.inference_mode():
            parts = [
                self.network(whole(self.images.images, rows).to(self.device)).log_softmax(-1).cpu()
                for rows in members.split(AT_ONCE)
            ]
        self.network.train()
        return torch.cat(parts), self.images.labels[members]


def main(
    data: str, out: Path, *, windows: float, whole: float, width: float, device: torch.device, workers: int
) -> None:
    images = nogs.load(Source(data=f"gtsdb-pasted:{data}", fit="pad"))
    learner = Learner(images, width, device, workers)
    if windows:
        learner.learn("windows", windows)
    learner.learn("whole", whole)
    learner.network.load_state_dict(learner.best[1])
    answers, shown = learner.answers("test")
    classes = len(images.classes)
    frequencies = class_frequencies(images.labels[images.members("train")], classes)
    result = {
        "width": width,
        "classes": images.classes,
        "macs": macs_of_image(learner.network, channels=3, image_px=WIDTH_PX, device=device) * HEIGHT_PX // WIDTH_PX,
        "validation_nats": learner.best[0],
        "test": scores(answers, shown, frequencies=frequencies)._asdict(),
        "confusion": confusion(answers.argmax(-1), shown, classes).tolist(),
        "log": learner.log,
    }
    out.write_text(json.dumps(result, indent=1))
    print(result["macs"], result["test"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--windows", type=float, default=0.0)
    parser.add_argument("--whole", type=float, default=300.0)
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    given = parser.parse_args()
    main(
        given.data,
        given.out,
        **{name: getattr(given, name) for name in ("windows", "whole", "width", "device", "workers")},
    )
