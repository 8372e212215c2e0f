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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int, UInt8
from torch import Generator, Tensor
from torch.nn import functional as F

import nogs
from nogs.config.groups import Source
from nogs.data.composites import Composites
from nogs.evaluation.scores import accuracy, accuracy_by_class, class_frequencies, confusion, scores
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


class Photographs:
    """Composites and untouched photographs, whole or in windows."""

    def __init__(self, images: Composites) -> None:
        self.images = images
        self.top = (images.image_px - HEIGHT_PX) // 2

    def whole(self, rows: Int[Tensor, " n"]) -> UInt8[Tensor, "n 3 h w"]:
        return self.images[rows][:, :, self.top : self.top + HEIGHT_PX]

    def windows(self, rows: Int[Tensor, " n"], generator: Generator) -> UInt8[Tensor, "n 3 p p"]:
        """Return a window of each composite, which has all of its limit if it shows one."""
        pastes = self.images.pastes[rows].cpu()
        limit, other = pastes[:, -1, 1:4], pastes[:, 0, 1:4]
        at_other = (other[:, 2] > 0) & (torch.rand(len(rows), generator=generator) < EITHER)
        about = torch.where(limit[:, 2:] > 0, limit, torch.where(at_other[:, None], other, torch.zeros_like(other)))
        free = WINDOW_PX - about[:, 2:].clamp_max(WINDOW_PX)
        first = about[:, :2] - (torch.rand(len(rows), 2, generator=generator) * (free + 1)).long()
        most = torch.tensor((HEIGHT_PX, WIDTH_PX)) - WINDOW_PX
        anywhere = (torch.rand(len(rows), 2, generator=generator) * (most + 1)).long() + torch.tensor((self.top, 0))
        first = torch.where(about[:, 2:] > 0, first, anywhere)
        low = torch.tensor((self.top, 0))
        first = first.clamp(low, low + most).to(rows.device)
        return self.images.squares(first[:, None], rows, WINDOW_PX)[:, 0]


def main(data: str, out: Path, *, windows: float, whole: float, width: float, device: torch.device) -> None:
    images = nogs.load(Source(data=f"gtsdb-pasted:{data}", fit="pad"))
    assert isinstance(images.images, Composites)
    photographs, labels = Photographs(images.images.to(device)), images.labels.to(device)
    train, val, test = (images.members(split).to(device) for split in ("train", "val", "test"))
    composites = train[images.images.pastes[train.cpu()].any(-1).any(-1).to(device)]
    torch.manual_seed(0)
    network = CNNSpec("mobilenet-v2", WIDTH_PX, width, 3, images.classes).build().to(device)
    network.to(memory_format=torch.channels_last)
    generator, rows = Generator().manual_seed(0), list[dict[str, Any]]()
    best: tuple[float, dict[str, Tensor]] = math.inf, {}

    def answers(members: Int[Tensor, " n"]) -> Tensor:
        network.eval()
        with torch.inference_mode():
            parts = [network(photographs.whole(some)).log_softmax(-1) for some in members.split(AT_ONCE)]
        network.train()
        return torch.cat(parts).cpu()

    def learn(phase: str, seconds: float, batch: Callable[[], tuple[Tensor, Tensor]]) -> None:
        nonlocal best
        adam, spent, done, shown = Adam(network.parameters(), learning_rate=0.0), 0.0, 0, 0.0
        while spent < seconds:
            began = time.perf_counter()
            share = spent / seconds
            falling = (1 + math.cos(math.pi * max(0.0, share - WARM) / (1 - WARM))) / 2
            adam.learning_rate = RATES[phase] * min(share / WARM, falling)
            pixels, answer = batch()
            adam.zero_grad()
            loss = F.cross_entropy(network(pixels), answer)
            loss.backward()
            adam.step()
            done, train_loss = done + 1, loss.item()
            spent += time.perf_counter() - began
            if spent - shown >= VALIDATE_SECONDS or spent >= seconds:
                shown = spent
                on_val = answers(val)
                nats = F.nll_loss(on_val, labels[val].cpu()).item()
                figures = {"phase": phase, "seconds": round(spent, 1), "iterations": done, "train_loss": train_loss}
                rows.append({**figures, "nll_nats": nats, "accuracy": accuracy(on_val, labels[val].cpu())})
                print(rows[-1], flush=True)
                if phase == "whole" and nats < best[0]:
                    best = nats, {name: value.clone() for name, value in network.state_dict().items()}

    def of_windows() -> tuple[Tensor, Tensor]:
        drawn = composites[torch.randint(len(composites), (WINDOWS,), generator=generator).to(device)]
        return photographs.windows(drawn, generator), labels[drawn]

    def of_whole() -> tuple[Tensor, Tensor]:
        drawn = train[torch.randint(len(train), (WHOLE,), generator=generator).to(device)]
        return photographs.whole(drawn), labels[drawn]

    learn("windows", windows, of_windows)
    learn("whole", whole, of_whole)
    network.load_state_dict(best[1])
    on_test, shown = answers(test), labels[test].cpu()
    frequencies = class_frequencies(images.labels[images.members("train")], len(images.classes))
    result = {
        "width": width,
        "classes": images.classes,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "validation_nats": best[0],
        "test": scores(on_test, shown, frequencies=frequencies)._asdict(),
        "by_class": accuracy_by_class(on_test.argmax(-1) == shown, shown, len(images.classes)),
        "confusion": confusion(on_test.argmax(-1), shown, len(images.classes)).tolist(),
        "log": rows,
    }
    out.write_text(json.dumps(result, indent=1))
    print(result["test"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--windows", type=float, default=0.0)
    parser.add_argument("--whole", type=float, default=300.0)
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    given = parser.parse_args()
    main(given.data, given.out, **{name: getattr(given, name) for name in ("windows", "whole", "width", "device")})
