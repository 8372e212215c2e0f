"""Networks with outputs that depend on the image, exported, and the answers that torch gives for the same images."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import jaxtyping
import numpy as np
import torch
from torch import Tensor, nn

from nogs.attention.choosers import greedy
from nogs.attention.classify import look_at_all
from nogs.attention.gain import predicted_gain
from nogs.attention.methods import chooser, method
from nogs.attention.network import HardAttention
from nogs.export import nogs_onnx
from nogs.export.description import describe
from nogs.export.graphs import export_graphs
from nogs.export.rules import GainHead, GainMap, Halt
from nogs.glimpses.grid import Grid
from nogs.runs.device import chance
from nogs.specs import HardAttentionSpec
from nogs.stopping.halting import HaltingUnit
from nogs.stopping.heads import StoppingHeads
from nogs.stopping.rules import thresholds_below

SIDE_PX, T, CLASSES = 40, 4, ("cat", "dog", "other")
TIE = 1e-5
"""Differences of logits and gains in float32 below which torch and onnxruntime may choose differently."""


class Reference(NamedTuple):
    """The results of torch for n images at t = 1..T: cells, probabilities, gains, and the smallest difference
    between a choice and the next best so far."""

    cells: Tensor
    probs: Tensor
    gains: Tensor
    margins: Tensor


class Exported(NamedTuple):
    spec: HardAttentionSpec
    network: HardAttention
    stopping: StoppingHeads | HaltingUnit | None
    folder: Path


def spec_of(
    name: str,
    *,
    glimpse_px: int,
    channels: int,
    scales: int,
    overview_px: int = 0,
    zoom: int = 1,
    core: Literal["gru", "attention"] = "gru",
) -> HardAttentionSpec:
    grid = Grid(SIDE_PX, glimpse_px, 3, scales, zoom)
    path = (0, 7, 20, 3) if name == "path" else None
    return HardAttentionSpec(grid, channels, CLASSES, 24, T, name, path=path, overview_px=overview_px, core=core)


SPECS = {
    "heads": spec_of("ps-nogs", glimpse_px=9, channels=3, scales=2),
    "gain": spec_of("gain", glimpse_px=8, channels=1, scales=1, overview_px=12),
    "act": spec_of("act", glimpse_px=6, channels=1, scales=3),
    "path": spec_of("path", glimpse_px=24, channels=1, scales=1, overview_px=7),
    "centre": spec_of("centre", glimpse_px=2, channels=3, scales=1),
    "zoom": spec_of("gain", glimpse_px=8, channels=3, scales=1, overview_px=10, zoom=3),
    "attention": spec_of("ram", glimpse_px=8, channels=1, scales=1, core="attention"),
    "both": spec_of("gain", glimpse_px=8, channels=1, scales=1, overview_px=12, core="attention"),
    "large": spec_of("ram", glimpse_px=24, channels=1, scales=1),
}


def lively(network: nn.Module, seed: int) -> None:
    """Draw weights and biases that are large enough for outputs to depend on the input."""
    generator = torch.Generator().manual_seed(seed)
    normalised = {p for module in network.modules() if isinstance(module, nn.LayerNorm) for p in module.parameters()}
    for parameter in network.parameters():
        if parameter in normalised:
            continue
        scale = 1.6 / max(1, parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.3
        parameter.data = torch.randn(parameter.shape, generator=generator) * scale


def images_of(spec: HardAttentionSpec, n: int, seed: int) -> Tensor:
    """uint8 [n, c, 40, 40]: patches of random brightness with noise on them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (n, spec.channels, 8, 8)).repeat(5, 2).repeat(5, 3)
    return torch.from_numpy((coarse + rng.integers(0, 56, coarse.shape)).astype(np.uint8))


@contextmanager
def traceable() -> Iterator[None]:
    """Check no shapes, because the checks would fix the batch size of a graph, and log none of the tracer's steps."""
    jaxtyping.config.update("jaxtyping_disable", True)
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
        logging.disable(logging.NOTSET)


def export(name: str, folder: Path) -> Exported:
    """Export the network ``name`` of `SPECS`, which stops by its heads, its gain map, its unit or never."""
    spec = SPECS[name]
    network = spec.build().eval()
    lively(network, seed=1)
    stopping: StoppingHeads | HaltingUnit | None = None
    rule: GainHead | GainMap | Halt | None = None
    if name == "heads":
        stopping = StoppingHeads(glimpses=T, costs=1)
        rule = GainHead(stopping)
    elif name == "act":
        stopping = HaltingUnit(spec.hidden)
        rule = Halt(stopping)
    elif spec.method == "gain":
        rule = GainMap()
    if stopping is not None:
        lively(stopping, seed=2 if name == "act" else 3)
    policy = method(spec.method).looks == "policy"
    with traceable():
        graphs = export_graphs(network, channels=spec.channels, policy=policy, rule=rule)
    folder.mkdir(parents=True)
    (folder / "step.onnx").write_bytes(graphs.step)
    if graphs.begin is not None:
        (folder / "begin.onnx").write_bytes(graphs.begin)
    about = describe(spec, network, threshold_nats=None, macs=[1, 2, 3, 4])
    (folder / "model.json").write_text(json.dumps(about))
    shutil.copy(nogs_onnx.__file__, folder)
    return Exported(spec, network, stopping, folder)


@torch.inference_mode()
def reference(of: Exported, images: Tensor) -> Reference:
    """Return what torch computes without early stopping, step by step."""
    spec, network, rows = of.spec, of.network, torch.arange(len(images))
    choose = chooser(method(spec.method), spec.grid, generator=chance(0), path=spec.path, policy=greedy)
    cells, probs, gains, margins = [], [], [], []
    for t, step in enumerate(network.unroll(images, rows, glimpses=T, choose=choose), start=1):
        logits = network.classifier(step.states)
        cells.append(step.cells)
        probs.append(logits.softmax(-1))
        margins.append(step.location_logits.topk(2).values.diff().abs()[:, 0])
        if of.stopping is None:
            following = network.location_logits(step.state.h, step.state.scene)
            gains.append(predicted_gain(following, logits).amax(-1))
        elif isinstance(of.stopping, StoppingHeads):
            features = of.stopping.features(logits, torch.tensor(t))
            each = of.stopping.entropy_gain(features)
            gains.append(torch.stack([each[:, k] / (k + 1) for k in range(max(1, T - t))]).amax(0))
    if isinstance(of.stopping, HaltingUnit):
        looks = look_at_all(network, images, rows, glimpses=T, choose=choose, halting=of.stopping)
        probs = [*looks.class_logits.exp().unbind(1)]
        gains = [looks.steps.float()] * T
    if method(spec.method).looks != "policy":
        margins = [torch.full((len(images),), torch.inf)] * T
    return Reference(*(torch.stack(column, dim=1) for column in (cells, probs, gains, margins)))


def thresholds(gains: Tensor) -> list[float]:
    """Return thresholds that stop images after every number of glimpses between them."""
    return thresholds_below(gains[:, :-1], 5).tolist()
