"""One glimpse step of a hard attention network as an ONNX graph, exported from the network's own modules.

Step t maps the glimpse y_t = fovea(x, l_t) and the state h_t-1 to h_t, the class probabilities q_t(θ), the logits of
the next location, its greedy cell, and the output of a stopping rule. A network with an overview has a second graph,
for glimpse 0. The loop over t is not part of a graph: a host reads the glimpses, runs the step and stops early
(`nogs.export.nogs_onnx`).

All inputs and outputs but t have the batch, of any size, as their first dimension. An output ``next_x`` becomes the
input ``x`` of the next step. Inputs and outputs that a network does not need are left out:

- begin: overview uint8 [B, c, v, v] → next_h, next_memory, next_features, next_seen, location_logits, next_cells
- step: patches uint8 [B, c, g, g], cells int64 [B], t int64 [], h [B, h], memory [B, n, e], features [B, f, v, v], seen
  [B, v, v] → next_h, next_memory [B, n + 1, e], next_seen, probs [B, C], location_logits [B, L], next_cells int64 [B],
  and gain [B] or halting [B]

A core that reads all glimpses at once has ``memory`` in place of ``h``: the n glimpses that it has read.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from nogs.attention.network import HardAttention, State
from nogs.attention.overview import Scene
from nogs.errors import UserError
from nogs.export.interpolation import separate
from nogs.export.rules import Rule

EXAMPLE_GLIMPSES = 3
"""Glimpses in the memory that the step is traced with. It may have any number."""
EXAMPLES = 2
"""Batch size of the inputs that graphs are traced with."""


class Graphs(NamedTuple):
    """Serialised ONNX models. ``begin`` is None without an overview."""

    step: bytes
    begin: bytes | None


class Begin(nn.Module):
    """Glimpse 0, the overview. ``policy``: whether the location head chooses the cells."""

    def __init__(self, network: HardAttention, *, policy: bool) -> None:
        super().__init__()
        self.network = network
        self.policy = policy

    def forward(self, overview: UInt8[Tensor, "B c v v"]) -> dict[str, Tensor]:
        h, scene, memory = self.network.after_overview(overview)
        outputs = {"next_h": h} if memory is None else {"next_h": h, "next_memory": memory}
        if not self.policy or scene is None:
            return outputs
        located = _located(self.network.location_logits(h, scene))
        return {**outputs, "next_features": scene.features, "next_seen": scene.seen, **located}


class Step(nn.Module):
    """Glimpse t. ``policy``: as in `Begin`. ``rule``: predicts the gain of going on; None: no image stops early."""

    def __init__(self, network: HardAttention, *, policy: bool, rule: Rule | None) -> None:
        super().__init__()
        self.network = network
        self.policy = policy
        self.rule = rule

    def forward(
        self,
        patches: UInt8[Tensor, "B c g g"],
        cells: Int[Tensor, " B"],
        t: Int[Tensor, ""],
        h: Float[Tensor, "B h"],
        features: Float[Tensor, "B f v v"] | None = None,
        seen: Float[Tensor, "B v v"] | None = None,
        memory: Float[Tensor, "B n e"] | None = None,
    ) -> dict[str, Tensor]:
        network = self.network
        scene = None if features is None or seen is None else Scene(features, seen)
        h, scene, memory = network.after(State(h, scene, memory), network.embedding(patches, cells), cells)
        class_logits = network.classifier(h)
        location_logits = network.location_logits(h, scene) if self.policy else class_logits[:, :0]
        outputs = {"next_h": h, "probs": class_logits.softmax(-1)}
        if memory is not None:
            outputs["next_memory"] = memory
        if scene is not None:
            outputs["next_seen"] = scene.seen
        if self.policy:
            outputs |= _located(location_logits)
        if self.rule is not None:
            outputs[self.rule.output] = self.rule(class_logits, location_logits, h, t)
        return outputs


def _located(location_logits: Float[Tensor, "B L"]) -> dict[str, Tensor]:
    return {"location_logits": location_logits, "next_cells": location_logits.argmax(-1)}


def first_cell(network: HardAttention) -> int:
    """Return the first cell that a network without overview chooses, which is the same for every image."""
    with torch.inference_mode():
        return int(network.location_logits(network.of_nothing(1, torch.device("cpu")).h).argmax())


def export_graphs(network: HardAttention, *, channels: int, policy: bool, rule: Rule | None) -> Graphs:
    """Return the graphs of ``network``, which is on the CPU and in eval mode.

    Raises UserError if onnx or onnxscript is not installed.
    """
    grid, overview = network.grid, network.overview
    inputs = {
        "patches": torch.zeros(EXAMPLES, channels * grid.scales, grid.glimpse_px, grid.glimpse_px, dtype=torch.uint8),
        "cells": torch.zeros(EXAMPLES, dtype=torch.long),
        "t": torch.tensor(1),
        "h": torch.zeros(EXAMPLES, network.core.hidden_size),
    }
    begin, memory = None, network.of_nothing(EXAMPLES, torch.device("cpu")).memory
    if memory is not None:
        inputs["memory"] = memory.new_zeros(EXAMPLES, EXAMPLE_GLIMPSES, memory.shape[-1])
    if overview is not None:
        small = torch.zeros(EXAMPLES, channels, overview.side_px, overview.side_px, dtype=torch.uint8)
        begin = to_onnx(Begin(network, policy=policy), {"overview": small})
        if policy:
            with torch.no_grad():
                scene = network.after_overview(small).scene
            assert scene is not None
            inputs |= {"features": scene.features, "seen": scene.seen}
    return Graphs(to_onnx(Step(network, policy=policy, rule=rule), inputs), begin)


def to_onnx(graph: nn.Module, inputs: Mapping[str, Tensor]) -> bytes:
    """Return the ONNX model of ``graph``. The batch is the first dimension of all inputs that have one.

    ``memory`` has any number of glimpses as its second dimension.
    """
    try:
        import onnxscript  # noqa: F401 # an extra; the exporter's own error is longer
    except ImportError as error:
        raise UserError(f"the export needs {error.name}: install nogs[onnx]") from None
    shapes = {name: {0: torch.export.Dim.DYNAMIC} if value.ndim else None for name, value in inputs.items()}
    if "memory" in inputs:
        shapes["memory"] = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        outputs = list(graph.eval()(**inputs))
        traced = torch.export.export(graph, (), dict(inputs), dynamic_shapes=shapes)
        program = torch.onnx.export(traced, output_names=outputs, dynamo=True, verbose=False, external_data=False)
    assert program is not None
    return _published(program.model_proto)


def _published(model: Any) -> bytes:
    """Return an ONNX model as bytes: without paths of source files and unused inputs, and with the batch named.

    The interpolation of a location map becomes two matrix products.
    """
    graph = model.graph
    separate(model)
    needed = {value.name for value in graph.output}
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
        else:  # only the interpolation needed it
            graph.node.remove(node)
    kept = [value for value in graph.input if value.name in needed]
    del graph.input[:], graph.value_info[:]
    graph.input.extend(kept)
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.input, *graph.output):
        for dimension in value.type.tensor_type.shape.dim[:1]:
            dimension.dim_param = "batch"
    return model.SerializeToString(deterministic=True)
