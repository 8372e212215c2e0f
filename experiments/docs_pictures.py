"""Draw the pictures of docs/: how to choose glimpses, and the gain maps of a trained network, on built-in digits.

    nogs train --method gain --data digits --image-size 192 --glimpse-size 32 --stride 8 --glimpses 3 --overview 24 \\
      --iterations 1500 --learning-rate 2e-3 --schedule cosine --patience 0 --out RUN
    python experiments/docs_pictures.py RUN docs/pictures
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

import nogs
from nogs.attention.gain import predicted_gain
from nogs.data.pixels import overview

IMAGE_PX = 192
OUTLINE = "#18c5ff"
EXAMPLES = 0, 45
"""Test images that are shown: the digit is found by the first glimpse, and by the second."""
SIDES = 12, 32, 96
"""Sides of the glimpses that are compared, in pixels; digits are about 28 pixels wide."""
STRIDES = 8, 32


def show(axes: Axes, image: Tensor, title: str) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=(0, IMAGE_PX, IMAGE_PX, 0), interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def outline(axes: Axes, row: float, column: float, side: float) -> None:
    axes.add_patch(Rectangle((column, row), side, side, fill=False, edgecolor=OUTLINE, linewidth=1.6))


def draw_choices(image: Tensor, centre: tuple[int, int], out: Path) -> None:
    """Draw one image, overviews of it, glimpses of three sides around its digit, and grids of two strides."""
    figure, axes = pyplot.subplots(2, 4, figsize=(8.4, 4.7), layout="constrained")
    show(axes[0, 0], image, f"image, {IMAGE_PX} px")
    for side in SIDES:
        outline(axes[0, 0], centre[0] - side / 2, centre[1] - side / 2, side)
    for place, px in zip(axes[0, 1:], (48, 24, 8), strict=True):
        show(place, overview(image[None, None], torch.tensor([0]), px)[0, 0], f"overview, {px} px")
    notes = "too small: a stroke", "right: the evidence", "too large: mostly clutter"
    for place, side, note in zip(axes[1], SIDES, notes, strict=False):
        grid = nogs.Grid(IMAGE_PX, side, 1)
        cell = grid.nearest_cells(torch.tensor([[centre[0] - side / 2, centre[1] - side / 2]]))
        show(place, nogs.look(image[None, None], grid, cell[None]).patches[0, 0, 0], f"glimpse, {side} px\n{note}")
    show(axes[1, 3], image * 0.35, f"centres at strides of\n{STRIDES[0]} px (dots), {STRIDES[1]} px (rings)")
    for stride, marker in zip(STRIDES, ({"marker": "."}, {"marker": "o", "facecolors": "none"}), strict=True):
        grid = nogs.Grid(IMAGE_PX, 32, stride)
        at = grid.top_left_px(torch.arange(len(grid))) + 16
        axes[1, 3].scatter(at[:, 1], at[:, 0], s=2 if stride == STRIDES[0] else 40, color=OUTLINE, **marker)
    save(figure, out / "choosing-glimpses.png")


def gain_maps(model: nogs.Model, image: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the gain map before each glimpse in nats [side, side], its cell, and class probabilities after it."""
    network, rows = model.network, torch.tensor([0])
    state = network.begin(image[None], rows)
    for t in range(model.spec.glimpses):
        class_logits = network.classifier(state.h)
        step = network.step(image[None], rows, state=state, t=t, choose=nogs.greedy)
        gains = predicted_gain(step.location_logits, class_logits)[0]
        state = step.state
        yield gains.view(network.grid.side, -1), step.cells[0], network.classifier(state.h)[0].softmax(-1)


@torch.inference_mode()
def draw_gain_maps(model: nogs.Model, images: nogs.ImageSet, out: Path) -> None:
    """Draw two test images, their overviews, and the gain map before each glimpse; boxes are the glimpses taken."""
    grid, T = model.network.grid, model.spec.glimpses
    figure, axes = pyplot.subplots(len(EXAMPLES), 2 + T, figsize=(10, 4.3), layout="constrained")
    rows = images.members("test")[list(EXAMPLES)]
    maps = [list(gain_maps(model, images.images[row : row + 1][0])) for row in rows.tolist()]
    highest = max(float(gains.max()) for steps in maps for gains, *_ in steps)
    for places, row, steps in zip(axes, rows.tolist(), maps, strict=True):
        image = images.images[row : row + 1]
        show(places[0], image[0, 0], f"image: {images.classes[int(images.labels[row])]}")
        show(places[1], overview(image, torch.tensor([0]), model.spec.overview_px)[0, 0], "overview")
        for t, (place, (gains, cell, probs)) in enumerate(zip(places[2:], steps, strict=True), start=1):
            half = grid.glimpse_px / 2
            reach = (half - 4, IMAGE_PX - half + 4)
            drawn = place.imshow(gains, vmin=0, vmax=highest, extent=(*reach, *reversed(reach)), cmap="magma")
            place.set(xlim=(0, IMAGE_PX), ylim=(IMAGE_PX, 0), xticks=[], yticks=[], facecolor="#888888")
            top, left = map(float, grid.top_left_px(cell))
            outline(place, top, left, grid.glimpse_px)
            outline(places[0], top, left, grid.glimpse_px)
            best = int(probs.argmax())
            place.set_title(
                f"gain map {t}\nthen: {images.classes[best]} ({100 * float(probs[best]):.0f} %)", fontsize=9
            )
    figure.colorbar(drawn, ax=axes, label="predicted gain, nats", shrink=0.8)
    save(figure, out / "gain-maps.png")


def save(figure: pyplot.Figure, file: Path) -> None:
    figure.savefig(file, dpi=90, pil_kwargs={"optimize": True})
    pyplot.close(figure)
    print(file, file.stat().st_size)


def main(run: Path, out: Path) -> None:
    mpl.use("Agg")
    out.mkdir(parents=True, exist_ok=True)
    model = nogs.load_model(run)
    images = nogs.load(nogs.Source(data="digits", image_size=IMAGE_PX))
    row = int(images.members("test")[EXAMPLES[0]])
    _, (_, cell, _), *_ = gain_maps(model, images.images[row : row + 1][0])
    top, left = model.network.grid.top_left_px(cell).tolist()
    half = model.network.grid.glimpse_px // 2
    draw_choices(images.images[row : row + 1][0, 0], (top + half, left + half), out)
    draw_gain_maps(model, images, out)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
