"""Records of single test images for a page to step through: every method's glimpses, its answers, and its maps.

The map before a glimpse is what its place was chosen by: predicted gains in nats of a method that learned them, else
the policy's probabilities. Methods that choose nothing have none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nogs.attention.gain import predicted_gain
from nogs.attention.methods import GAIN_MAPS, method
from nogs.attention.network import HardAttention
from nogs.data import ImageSet
from nogs.data.pixels import Pixels, pictures
from nogs.evaluation.pictures import right_and_wrong
from nogs.evaluation.records import NetworkRecord
from nogs.evaluation.results import Evaluated
from nogs.stopping.curves import GAINS


class Shown(NamedTuple):
    """The single images of a record: ``rows`` among the test images, ``images`` among all."""

    rows: Int[Tensor, " n"]
    images: Int[Tensor, " n"]


def shown_images(designed: Int[Tensor, " e"], record: NetworkRecord, data: ImageSet, *, count: int) -> Shown:
    """Return the images ``designed``, all test images, and after them ``count`` others, half of them mistakes."""
    test = data.members("test")
    first = (test[:, None] == designed).nonzero()
    rows = first[first[:, 1].argsort(), 0]
    others = right_and_wrong(record, data.labels[test], count=count)
    together = torch.cat((rows, others[~torch.isin(others, rows)]))
    return Shown(together, test[together])


def maps_behind(
    network: HardAttention,
    pixels: Pixels,
    images: Int[Tensor, " n"],
    cells: Int[Tensor, "n T"],
    *,
    gains: bool,
) -> Float[Tensor, "n T L"]:
    """Return the map that each glimpse at ``cells`` was chosen by. ``gains``: whether it predicts gains, in nats."""
    state = network.begin(pixels, images)
    class_logits = network.classifier(state.h)
    maps = []
    steps = network.unroll(pixels, images, glimpses=cells.shape[1], choose=lambda _, t: cells[:, t], begin=state)
    for step in steps:
        logits = step.location_logits
        maps.append(predicted_gain(logits, class_logits) if gains else logits.softmax(-1))
        class_logits = network.classifier(step.states)
    return torch.stack(maps, dim=1)


def record_steps(
    evaluated: Mapping[str, Sequence[Evaluated]],
    data: ImageSet,
    pixels: Pixels,
    *,
    network_of: Callable[[str], HardAttention],
    designed: Int[Tensor, " e"],
    about: str,
    count: int,
) -> tuple[dict[str, Tensor], dict[str, dict[str, object]]]:
    """Return tensors and metadata of single test images under the first network of each method, METHOD.NAME.

    The images are those ``designed`` and ``count`` right and wrong ones of the method ``about``. ``network_of``: method
    → its first network. ``METHOD.stops.RULE``: after how many glimpses each image stops, at each threshold of
    results.json, in its order.
    """
    shown = shown_images(designed, evaluated[about][0].record, data, count=count)
    shown_pixels, labels = pictures(data.images, shown.images), data.labels[shown.images]
    kept = {"images": shown.images, "pixels": shown_pixels, "labels": labels}
    of_methods: dict[str, dict[str, object]] = {}
    for name, (one, *_) in evaluated.items():
        policy, cells = method(name).policy, one.record.cells[shown.rows]
        own = {"cells": cells, "log_probs": one.record.log_probs[shown.rows]}
        if policy != "none":
            there, taken = shown.images.to(pixels.device), cells.to(pixels.device)
            own["maps"] = maps_behind(network_of(name), pixels, there, taken, gains=policy in GAIN_MAPS)
        of_heads = one.stopped.stops if one.stopped else {}
        stops = {**one.thresholded.stops, **{rule: of_heads[rule] for rule in GAINS if rule in of_heads}}
        own |= {f"stops.{rule}": of.steps[:, shown.rows].T for rule, of in stops.items()}
        kept |= {f"{name}.{key}": tensor for key, tensor in own.items()}
        of_methods[name] = {"seed": one.record.seed, "gains": policy in GAIN_MAPS}
    return kept, of_methods
