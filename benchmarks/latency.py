"""Seconds of one image on one thread: a network that stops early beside whole-image CNNs, in onnxruntime and torch.

    python benchmarks/latency.py RUN [--threshold NATS] [--stopping RUN] --cnn mobilenet-v2:256:0.5 ... [--images N]

``RUN`` is a run directory of train, whose test images are classified one at a time. A CNN is ARCHITECTURE:PIXELS:WIDTH
with random weights, which its latency does not depend on, and gets images that were reduced before. The contenders take
turns. Times are of the processor, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import onnxruntime
import torch
from PIL import Image

import nogs
from nogs.evaluation.cost import macs_of_image
from nogs.export import nogs_onnx
from nogs.export.graphs import to_onnx
from nogs.rivals.cnn import WholeImageCNN, shrink
from nogs.runs.directory import read_run

TURN, WARM_UP = 20, 5
"""Images of a turn of a contender, and how many of them it classifies before it is timed, with cold caches."""
COLD_RUNS = 3
"""Processes of which the least time counts."""


class Labels(torch.nn.Module):
    """A CNN with one named output."""

    def __init__(self, network: WholeImageCNN) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"probs": self.network(images).softmax(-1)}


def session_of(file: Path, *, profile: bool = False) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = profile
    if profile:
        options.profile_file_prefix = str(file.with_suffix(""))
    return onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])


def export_cnn(name: str, channels: int, classes: int, folder: Path) -> tuple[WholeImageCNN, int]:
    """Write a CNN of random weights to ``folder``; return it and its multiply-adds."""
    architecture, px, width = name.split(":")
    network = WholeImageCNN(
        architecture, resolution_px=int(px), width=float(width), channels=channels, classes=classes
    ).eval()
    macs = macs_of_image(network, channels=channels, image_px=int(px), device=torch.device("cpu"))
    example = torch.zeros(2, channels, int(px), int(px), dtype=torch.uint8)
    (folder / f"{name}.onnx").write_bytes(to_onnx(Labels(network), {"images": example}))
    return network, macs


def warm_ms(contenders: dict[str, Callable[[int], object]], images: int) -> dict[str, list[float]]:
    """Return the milliseconds of each contender on each image, in turns of `TURN` images."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for first in range(0, images, TURN):
        turn = range(first, min(first + TURN, images))
        for name, classify in contenders.items():
            for number in [*turn[:WARM_UP], *turn]:
                start = time.thread_time()
                classify(number)
                times[name].append(1e3 * (time.thread_time() - start))
            del times[name][-len(turn) - len(turn[:WARM_UP]) : -len(turn)]
    return times


def cold_seconds(program: str, *args: object) -> float:
    """Return the least processor seconds of a Python process that classifies one image."""
    runs = []
    for _ in range(COLD_RUNS):
        before = os.times()
        subprocess.run([sys.executable, "-c", program, *map(str, args)], check=True, capture_output=True)
        after = os.times()
        runs.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return min(runs)


COLD = {
    "ours, onnxruntime": "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')",
    "cnn, onnxruntime": """
import sys
import numpy as np
import onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
image = Image.open(sys.argv[2]).convert("L" if sys.argv[4] == "1" else "RGB").resize([int(sys.argv[3])] * 2)
pixels = np.asarray(image).reshape(*image.size, -1).transpose(2, 0, 1)[None]
session.run(None, {"images": np.ascontiguousarray(pixels)})
""",
    "ours, torch": "import sys, nogs; print(nogs.load_model(sys.argv[1]).predict(sys.argv[2]))",
}


def parts_us(host: nogs_onnx.Model, images: np.ndarray[Any, Any]) -> dict[str, float]:
    """Return the mean microseconds of each part of the host loop, once per image or once per glimpse."""
    parts: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[..., Any], *args: Any) -> Any:
        start = time.thread_time()
        result = work(*args)
        parts.setdefault(name, []).append(1e6 * (time.thread_time() - start))
        return result

    rows = np.zeros(1, int)
    for image in images[:, None]:
        if host.begin is not None:
            timed("reduce the image (numpy)", nogs_onnx.reduced, image, host.about["overview_px"])
        state = timed("state before glimpse 1, reducing included", host._first, image)
        cells = state.get("cells", np.array([(host.about["path"] or [0])[0]]))
        patches = timed("a glimpse: cut it out (numpy)", host.fovea, image, rows, cells)
        inputs = {**state, "cells": cells, "patches": patches, "t": np.array(1)}
        timed("a glimpse: the step (onnxruntime)", host.step, inputs)
    return {name: mean(values[WARM_UP:]) for name, values in parts.items()}


def operators_us(file: Path, inputs: dict[str, Any], runs: int = 200) -> Counter[str]:
    """Return the mean microseconds of each kind of operator in one run of a graph."""
    session = session_of(file, profile=True)
    for _ in range(runs):
        session.run(None, inputs)
    events = json.loads(Path(session.end_profiling()).read_text())
    kinds: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kinds[event["args"]["op_name"]] += event["dur"] / runs
    return kinds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--threshold", type=float)
    parser.add_argument("--stopping", type=Path)
    parser.add_argument("--cnn", action="append", default=[], metavar="ARCHITECTURE:PX:WIDTH")
    parser.add_argument("--images", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        measure(options, Path(place))


def measure(options: argparse.Namespace, folder: Path) -> None:
    model = nogs.load_model(options.model, stopping=options.stopping)
    nogs.export_onnx(
        nogs.Export(options.model, folder / "ours", stopping=options.stopping, threshold=options.threshold)
    )
    data = nogs.load(nogs.Source(**read_run(options.model, "train").config["source"]))
    test = data.members("test")[: options.images]
    images, labels = data.images[test], data.labels[test].numpy()
    pixels, host = images.numpy(), nogs_onnx.Model(folder / "ours")
    answers = host.classify(pixels)
    print(f"{len(test)} images, accuracy {100 * (answers.probs.argmax(1) == labels).mean():.1f} %, ", end="")
    print(f"{answers.steps.mean():.2f} glimpses and {np.array(host.about['macs'])[answers.steps - 1].mean():,.0f} macs")
    contenders: dict[str, Callable[[int], object]] = {
        "ours, onnxruntime": lambda i: host.classify(pixels[i : i + 1]),
        "ours without stopping, onnxruntime": lambda i: host.classify(pixels[i : i + 1], -np.inf),
        "ours, torch": lambda i: model(images[i : i + 1], threshold=options.threshold),
    }
    if options.threshold is None:
        del contenders["ours without stopping, onnxruntime"]
    for name in options.cnn:
        network, macs = export_cnn(name, model.spec.channels, len(model.classes), folder)
        small, session = shrink(images, network.resolution_px), session_of(folder / f"{name}.onnx")
        arrays = small.numpy()
        print(f"{name}: {macs:,} macs")

        def in_torch(i: int, network: Any = network, small: torch.Tensor = small) -> object:
            with torch.inference_mode():
                return network(small[i : i + 1]).softmax(-1)

        def in_onnx(i: int, session: Any = session, arrays: Any = arrays) -> object:
            return session.run(None, {"images": arrays[i : i + 1]})

        contenders |= {f"{name}, onnxruntime": in_onnx, f"{name}, torch": in_torch}
    print("\nwarm: ms of the processor, mean and median; how many times ours in onnxruntime, of means")
    times = warm_ms(contenders, len(test))
    for name, values in times.items():
        ratio = mean(values) / mean(times["ours, onnxruntime"])
        print(f"| {name} | {mean(values):.3f} | {median(values):.3f} | {ratio:.1f} |")
    print("\ncold: processor seconds of a process, from start to answer")
    file = folder / "image.png"
    Image.fromarray(pixels[0, 0] if len(pixels[0]) == 1 else pixels[0].transpose(1, 2, 0)).save(file)
    print(
        f"| ours, onnxruntime | {cold_seconds(COLD['ours, onnxruntime'], folder / 'ours' / 'nogs_onnx.py', file):.2f} |"
    )
    for name in options.cnn:
        args = folder / f"{name}.onnx", file, name.split(":")[1], model.spec.channels
        print(f"| {name}, onnxruntime | {cold_seconds(COLD['cnn, onnxruntime'], *args):.2f} |")
    print(f"| ours, torch | {cold_seconds(COLD['ours, torch'], options.model, file):.2f} |")
    print("\nwhere the time goes: µs")
    for part, value in parts_us(host, pixels).items():
        print(f"| {part} | {value:.0f} |")
    state = host._first(pixels[:1])
    cells = state.get("cells", np.array([(host.about["path"] or [0])[0]]))
    state |= {"cells": cells, "patches": host.fovea(pixels[:1], np.zeros(1, int), cells), "t": np.array(1)}
    inputs = {name: state[name] for name in host.step.inputs}
    operators = operators_us(folder / "ours" / "step.onnx", inputs)
    print(f"| kernels of a step, {sum(operators.values()):.0f} µs | ", end="")
    print(", ".join(f"{kind} {value:.0f}" for kind, value in operators.most_common(6)), "|")


if __name__ == "__main__":
    main()
