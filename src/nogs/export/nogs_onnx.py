"""Classify images with a network that `nogs export` wrote. Needs numpy, onnxruntime and Pillow; no torch, no nogs.

    python nogs_onnx.py [--int8] IMAGE...

The folder of this file holds model.json, step.onnx, and begin.onnx if the network sees an overview first.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageOps

Array = NDArray[Any]
Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels of a file."""


class Answers(NamedTuple):
    """Class probabilities [B, C], cells [B, T] and steps [B] of B images; cells after the last step are -1."""

    probs: Array
    cells: Array
    steps: Array


class Graph:
    """An ONNX graph as a function from arrays to arrays, by name; inputs that it does not need are left out."""

    def __init__(self, file: Path, options: onnxruntime.SessionOptions) -> None:
        self.session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
        self.inputs = [one.name for one in self.session.get_inputs()]
        self.outputs = [one.name for one in self.session.get_outputs() if one.name != "location_logits"]

    def __call__(self, values: dict[str, Array]) -> dict[str, Array]:
        results = self.session.run(self.outputs, {name: values[name] for name in self.inputs})
        return dict(zip(self.outputs, results, strict=True))


class Model:
    """The network in ``folder``. ``precision``: float32 or int8. ``threads``: number of threads for one step."""

    def __init__(self, folder: str | Path, *, precision: str = "float32", threads: int = 1) -> None:
        self.folder = Path(folder)
        self.about = json.loads((self.folder / "model.json").read_text(encoding="utf-8"))
        self.squares_px = squares_px(self.about["levels"], self.about["glimpse_px"])
        suffix = "" if precision == "float32" else f".{precision}"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads

        self.step = Graph(self.folder / f"step{suffix}.onnx", options)
        self.begin = Graph(self.folder / f"begin{suffix}.onnx", options) if self.about["overview_px"] else None

    def classify(self, images: Array, threshold_nats: float | None = None) -> Answers:
        """Look at ``images``, uint8 [B, c, H, H], until a glimpse is expected to gain less than the threshold.

        ``threshold_nats``: by default that of model.json; where both are None, all T glimpses are taken.
        """
        about, B = self.about, len(images)
        T, path = about["glimpses"], about["path"]
        threshold_nats = about["threshold_nats"] if threshold_nats is None else threshold_nats
        probs = np.zeros((B, len(about["classes"])), np.float32)
        taken, steps, unhalted = np.full((B, T), -1), np.full(B, T), np.ones(B, np.float32)
        rows, state = np.arange(B), self._first(images)
        for t in range(1, T + 1):
            cells = state["cells"] if path is None else np.full(len(rows), path[t - 1])
            taken[rows, t - 1] = cells
            patches = self.fovea(images, rows, cells)
            outputs = self.step({**state, "cells": cells, "patches": patches, "t": np.array(t)})
            stopped = np.zeros(len(rows), bool)
            if "halting" in outputs:  # Adaptive Computation Time: the answer is a weighted mean over glimpses
                left = unhalted[rows]
                unhalted[rows] = left - outputs["halting"]
                stopped = unhalted[rows] <= about["halted"]
                weights = left if t == T else np.where(stopped, left, outputs["halting"])
                probs[rows] += weights[:, None] * outputs["probs"]
            else:
                probs[rows] = outputs["probs"]
                if threshold_nats is not None:
                    stopped = outputs["gain"] < threshold_nats
            steps[rows[stopped]] = t
            if t == T or stopped.all():
                break
            state = {**state, **_next(outputs)}
            if stopped.any():
                rows, state = rows[~stopped], {name: value[~stopped] for name, value in state.items()}
        return Answers(probs, taken, steps)

    def predict(self, file: str | Path) -> dict[str, Any]:
        """Return label, probs, glimpses (row and column of top-left pixels in the file), sides, steps and macs."""
        pixels, (left, top, right, bottom) = self.read(file)
        probs, cells, steps = (of[0] for of in self.classify(pixels[None]))
        by_class = dict(zip(self.about["classes"], probs.tolist(), strict=True))
        down, across = (bottom - top) / self.about["image_px"], (right - left) / self.about["image_px"]
        squares = self.squares_px[cells[:steps]].tolist()
        return {
            "label": max(by_class, key=lambda name: by_class[name]),
            "probs": by_class,
            "glimpses": [[round(top + row * down), round(left + column * across)] for row, column, _ in squares],
            "sides": [max(1, round(side * down)) for _, _, side in squares],
            "steps": int(steps),
            "macs": self.about["macs"][steps - 1],
        }

    def read(self, file: str | Path) -> tuple[Array, Box]:
        """Return the pixels of an image file, uint8 [c, H, H], as in training, and the part of it that they show."""
        side, fit = self.about["image_px"], self.about["fit"]
        with Image.open(file) as opened:
            if opened.mode[0] in "IF" or ";16" in str(opened.tile[:1]):
                raise ValueError(f"{file} has more than 8 bits a channel: convert it to 8 bits, as training did")
            width, height = opened.size
            if opened.getexif().get(0x0112, 1) >= 5:  # stored lying on its side
                width, height = height, width
            if opened.format == "JPEG":
                opened.draft(None, (2 * side, 2 * side))  # decode at a reduced size, as training does
            image = ImageOps.exif_transpose(opened)
            if image.has_transparency_data:
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image.convert("RGBA"))
            if image.mode in ("P", "RGBA"):
                image = image.convert("RGB")
            image = image.convert("L" if self.about["channels"] == 1 else "RGB")
        if fit == "pad":
            image = _padded(image, side)
        if fit == "crop":
            image = image.crop(_square(*image.size, min(image.size)))
        if image.size != (side, side):
            image = image.resize((side, side), Image.Resampling.LANCZOS)
        pixels = np.asarray(image).reshape(side, side, -1).transpose(2, 0, 1)
        if fit == "squash":
            return pixels, (0, 0, width, height)
        return pixels, _square(width, height, min(width, height) if fit == "crop" else max(width, height))

    def _first(self, images: Array) -> dict[str, Array]:
        """Return the state of the images before glimpse 1, and its cells."""
        if self.begin is not None:
            return _next(self.begin({"overview": reduced(images, self.about["overview_px"])}))
        B, about = len(images), self.about
        h, memory = np.zeros((B, about["hidden"]), np.float32), np.zeros((B, 0, about["memory"]), np.float32)
        return {"h": h, "memory": memory, "cells": np.full(B, about["first_cell"] or 0)}

    def fovea(self, images: Array, rows: Array, cells: Array) -> Array:
        """Cut a glimpse out of each of ``images[rows]``: concentric squares, stacked as channels.

        Outside an image its border pixel repeats. With several zoom levels it is one square, reduced.
        """
        g, last = self.about["glimpse_px"], self.about["image_px"] - 1
        squares_px = self.squares_px[cells]
        if self.about["scales"] == 1:  # never outside: slices are thirty times faster than indices
            cut = zip(rows.tolist(), squares_px.tolist(), strict=True)
            return np.stack([_averaged(images[row, :, y : y + s, x : x + s], s // g) for row, (y, x, s) in cut])
        image, channel, squares = rows[:, None, None, None], np.arange(images.shape[1])[:, None, None], []
        for widen in (2**scale for scale in range(self.about["scales"])):
            span = np.arange(g * widen) - g * (widen - 1) // 2
            y, x = (np.clip(squares_px[:, k, None] + span, 0, last) for k in (0, 1))
            square = images[image, channel, y[:, None, :, None], x[:, None, None, :]]
            squares.append(_averaged(square, widen))
        return np.concatenate(squares, axis=1)


def squares_px(levels: list[list[int]], glimpse_px: int) -> Array:
    """Return row and column of the top-left pixel, and the side, of the square that each cell shows [L, 3].

    ``levels``: of each zoom level the top-left pixels of its cells along either side.
    """
    squares = []
    for k, offsets_px in enumerate(levels):
        row, column = np.meshgrid(offsets_px, offsets_px, indexing="ij")
        squares.append(np.stack((row, column, np.full_like(row, glimpse_px << k)), -1).reshape(-1, 3))
    return np.concatenate(squares)


def _averaged(squares: Array, widen: int) -> Array:
    """Return squares with sides reduced to a ``widen``-th, each pixel the rounded mean of those that it covers."""
    if widen == 1:
        return squares
    g = squares.shape[-1] // widen
    means = squares.reshape(*squares.shape[:-2], g, widen, g, widen).mean((-3, -1), dtype=np.float32)
    return np.rint(means).astype(np.uint8)


def reduced(images: Array, px: int) -> Array:
    """Return images reduced to ``px`` pixels a side, each the rounded mean of the pixels that it covers."""
    side = images.shape[-1]
    if side % px == 0 and side // px <= 256:  # ten times faster than the products below, and as exact
        step = side // px
        lines = np.add.reduce(images.reshape(*images.shape[:2], px, step, side), axis=3, dtype=np.uint16)
        whole = lines.reshape(*images.shape[:2], px, px, step).astype(np.float32) @ np.ones(step, np.float32)
        return np.rint(whole / np.float32(step) / np.float32(step)).astype(np.uint8)
    pixel, part = np.arange(side), np.arange(px)[:, None]
    covers = ((pixel >= part * side // px) & (pixel < -(-(part + 1) * side // px))).astype(float)
    count = covers.sum(1).astype(np.float32)
    sums = (covers @ images @ covers.T).astype(np.float32)  # exact, because these are sums of whole numbers
    return np.rint(sums / count[:, None] / count).astype(np.uint8)


def _next(outputs: dict[str, Array]) -> dict[str, Array]:
    """Return the outputs that are inputs of the next step, by their names there."""
    return {name[5:]: value for name, value in outputs.items() if name.startswith("next_")}


def _square(width: int, height: int, side: int) -> Box:
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _padded(image: Image.Image, side: int) -> Image.Image:
    width, height = (max(1, round(length * side / max(image.size))) for length in image.size)
    canvas = Image.new(image.mode, (side, side))
    small = image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)
    canvas.paste(small, ((side - width) // 2, (side - height) // 2))
    return canvas


def main() -> None:
    """Print one JSON object for each image file."""
    parser = argparse.ArgumentParser(description="Classify images with an exported network.")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--int8", action="store_true", help="run the quantised network")
    options = parser.parse_args()
    model = Model(Path(__file__).parent, precision="int8" if options.int8 else "float32")
    for file in options.images:
        print(json.dumps({"file": file, **model.predict(file)}, ensure_ascii=False))


if __name__ == "__main__":
    main()
