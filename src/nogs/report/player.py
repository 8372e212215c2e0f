"""The interactive part of the page: images glimpse by glimpse under two methods, and thresholds of stopping.

Everything is recorded by the evaluation. Here it is written as text and numbers that the script of the page
(``player.js``) selects from: maps as bytes, points of curves as places in a chart with their texts beside them.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Shaped
from markupsafe import Markup
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from nogs.attention.methods import CONTROL, REFERENCE
from nogs.evaluation.pictures import headline
from nogs.glimpses.grid import Grid
from nogs.report.chart import Chart, chart_of
from nogs.report.figures.maps import GAMMA, edges_px, greatest_at_places
from nogs.report.notation import percent
from nogs.report.read import DESIGNED, Example, Material, Steps, Walk
from nogs.report.style import short, title_of
from nogs.stopping.curves import MAP

LARGEST_PX, LARGEST_COMPLETION_PX = 384, 96
"""Images are embedded at no more than these side lengths."""
LOSSLESS_PX = 64
"""Test images of no more pixels a side are embedded without loss, completions always with some."""
FINEST = 32
"""Most cells a side of an embedded map. Cells of a finer map are merged, and keep their greatest value."""
LEAST_NATS = 0.001
"""Gains below this are not told apart in texts."""
TOP = 3
"""Most probable classes that are shown beside the true one."""
COLOURS = 64
RULE_TITLES = {
    "confidence": "Confidence of the answer",
    MAP: "Greatest gain on the map",
    "eig": "Predicted gain of entropy, by fitted heads",
    "accuracy": "Predicted gain of accuracy, by fitted heads",
    "fixed": "The same number of glimpses for every image",
}
"""Titles of stopping rules, in the order in which they are offered."""


class Choice(NamedTuple):
    """An option of a list: its value and its title."""

    value: str
    title: str


class Picture(NamedTuple):
    """A test image, as a data URI, and its name."""

    source: str
    name: str


class Player(NamedTuple):
    """``left``, ``right``: methods that are chosen at first. ``data``: JSON for the script, safe within HTML."""

    pictures: list[Picture]
    methods: list[Choice]
    left: str
    right: str
    glimpses: int
    has_completions: bool
    charts: list[Chart]
    caption: str
    data: Markup


def player_of(material: Material) -> Player | None:
    """Return what a reader plays with; None for a run whose evaluation recorded no steps."""
    steps, results = material.steps, material.results
    if steps is None:
        return None
    examples, names = material.examples, list(steps.walks)
    T = next(iter(steps.walks.values())).cells.shape[1]
    left = headline(names) or names[0]
    designed = [Choice(DESIGNED, "Designed sequence")] if examples else []
    others = [name for name in (REFERENCE, CONTROL, *names) if name in names and name != left]
    beside = [*others, *(choice.value for choice in designed), left]
    charts = [chart for rule in RULE_TITLES if (chart := chart_of(results, rule, RULE_TITLES[rule]))]
    completed = [] if material.publishable else [_completions(example) for example in examples]
    methods = {name: _walk(walk, steps, material.grid, title_of(name)) for name, walk in steps.walks.items()}
    if examples:
        methods[DESIGNED] = _designs(examples, material.grid)
    data = {
        "size": material.grid.image_px,
        "colours": [mpl.colors.to_hex(colour) for colour in mpl.colormaps["magma"](np.linspace(0, 1, COLOURS))],
        "edges": _edges(material.grid),
        "classes": [short(name) for name in results.classes],
        "labels": steps.labels.tolist(),
        "methods": methods,
        "completions": completed,
        "rules": {chart.rule: chart.script() for chart in charts},
    }
    return Player(
        pictures=_pictures(material, steps),
        methods=[*(Choice(name, title_of(name)) for name in names), *designed],
        left=left,
        right=beside[0],
        glimpses=T,
        has_completions=any(completed),
        charts=charts,
        caption=_caption(material),
        data=Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")),
    )


def _caption(material: Material) -> str:
    text = (
        "Each method with its first seed, on test images. Pixels that were not seen are faint; the map shows what the "
        "place of the last glimpse was chosen by: the gain in nats that the network predicts where it learned gains, "
        "and the policy’s probability elsewhere. Its colours go from black at 0 to white at the greatest value, which "
        "stands beneath. A method that chooses nothing has no map."
    )
    if material.publishable:
        text += " The photographs are not shown; glimpses are drawn on their mean."
    if material.examples:
        text += (
            f" A sequence was designed for the first {len(material.examples)} images alone: its map is the expected "
            "information gain, and its answer that of the posterior."
        )
    return text


def _pictures(material: Material, steps: Steps) -> list[Picture]:
    names = [f"Test image {number}: {material.results.classes[label]}" for number, label in enumerate(steps.labels, 1)]
    if material.publishable:
        return [Picture(_data_uri(material.mean_image, LARGEST_PX, lossless_px=LOSSLESS_PX), name) for name in names]
    return [
        Picture(_data_uri(pixels, LARGEST_PX, lossless_px=LOSSLESS_PX), name)
        for pixels, name in zip(steps.pixels, names, strict=True)
    ]


def _walk(walk: Walk, steps: Steps, grid: Grid, title: str) -> dict[str, Any]:
    """Return a method as the script needs it. ``tops``: the greatest value of each map, as text."""
    images = [
        {
            "squares": grid.squares_px(walk.cells[n]).tolist(),
            "steps": _answers(walk.log_probs[n], int(steps.labels[n])),
            "maps": _bytes(walk.maps[n], grid) if walk.maps is not None else None,
            "tops": _tops(walk.maps[n], "predicted gain" if walk.gains else "") if walk.maps is not None else [],
            "stops": {rule: of_rule[n].tolist() for rule, of_rule in walk.stops.items()},
        }
        for n in range(len(steps.labels))
    ]
    return {"title": title, "images": images}


def _designs(examples: Sequence[Example], grid: Grid) -> dict[str, Any]:
    images = [
        {
            "squares": grid.squares_px(example.cells).tolist(),
            "steps": _answers(example.log_probs, example.label),
            "maps": _bytes(example.eig, grid),
            "tops": _tops(example.eig, "expected gain"),
            "stops": {},
        }
        for example in examples
    ]
    return {"title": "Designed sequence", "images": images}


def _completions(example: Example) -> list[list[list[str]]]:
    """Return, for each glimpse but the first, images and weights."""
    if example.completions is None or example.weights is None:
        return []
    return [
        [
            [_data_uri(image, LARGEST_COMPLETION_PX, lossless_px=0), percent(float(weight))]
            for image, weight in zip(*of_t, strict=True)
        ]
        for of_t in zip(example.completions, example.weights, strict=True)
    ]


def _answers(log_probs: Float[Tensor, "T C"], label: int) -> list[list[tuple[int, float]]]:
    """Return [class, probability] after each glimpse: the answer first, then less probable ones and the true class."""
    kept = []
    for of_t in log_probs.exp():
        best = of_t.topk(min(TOP, len(of_t))).indices.tolist()
        kept.append([(c, round(float(of_t[c]), 3)) for c in (*best, *([label] if label not in best else []))])
    return kept


def _tops(maps: Float[Tensor, "T L"], gain: str) -> list[str]:
    """Return the greatest value of each map: in nats of a ``gain``, else as a probability."""
    tops = maps.amax(1).tolist()
    return [f"{gain} up to {_small(top)} nats" if gain else f"probability up to {percent(top)}" for top in tops]


def _small(gain: float) -> str:
    return f"{gain:.2g}" if gain >= LEAST_NATS else f"less than {LEAST_NATS}"


def _bytes(maps: Float[Tensor, "T L"], grid: Grid) -> str:
    """Return T maps in base64, a byte a cell: 255 (v / greatest of its map)^γ."""
    square = greatest_at_places(maps, grid).clamp_min(0).unflatten(1, (grid.side, grid.side))
    coarse = F.max_pool2d(square, _step(grid), ceil_mode=True)
    levels = (coarse / coarse.amax((1, 2), keepdim=True).clamp_min(1e-12)) ** GAMMA * 255
    return base64.b64encode(levels.round().byte().numpy().tobytes()).decode()


def _edges(grid: Grid) -> list[float]:
    """Return where the tiles of an embedded map begin and end, in pixels of the image, which they cover."""
    return [0.0, *edges_px(grid)[_step(grid) : -1 : _step(grid)], float(grid.image_px)]


def _step(grid: Grid) -> int:
    return -(-grid.side // FINEST)


def _data_uri(pixels: Shaped[Tensor, "c H H"], largest_px: int, *, lossless_px: int) -> str:
    """Return an image as a data URI, reduced to ``largest_px`` pixels a side if it is larger.

    ``lossless_px``: up to this side without loss.
    """
    array = pixels.float().round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).convert("RGB")
    image.thumbnail((largest_px, largest_px))
    file = io.BytesIO()
    image.save(file, "WEBP", lossless=lossless_px >= image.width, quality=80)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
