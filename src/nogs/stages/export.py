"""Stage export: write a trained model as ONNX graphs, with a program that runs them without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nogs.attention.methods import GAIN_MAPS, method
from nogs.config.groups import Source
from nogs.config.stages import Export
from nogs.data import ImageSet, load
from nogs.errors import UserError
from nogs.export.description import describe
from nogs.export.graphs import Graphs, export_graphs
from nogs.export.quantise import quantised
from nogs.export.rules import GainHead, GainMap, Halt, Rule
from nogs.prediction.load import load_model
from nogs.prediction.model import Model
from nogs.runs.directory import read_run
from nogs.runs.files import write_whole

HOST = Path(__file__).parents[1] / "export" / "nogs_onnx.py"
AT_ONCE, PIXELS_AT_ONCE = 64, 2**24
"""Images that are classified together, which may be large."""


def export_onnx(config: Export) -> None:
    """Write ``config.out``: the graphs, model.json, and nogs_onnx.py, which classifies images with them."""
    if config.out.exists():
        raise UserError(f"out={config.out} exists: choose another")
    model = load_model(config.model, stopping=config.stopping)
    macs = model.rule(config.threshold).macs
    about = describe(model.spec, model.network, threshold_nats=config.threshold, macs=macs)
    data = _images_of(config) if config.int8 else None
    policy = about["path"] is None
    graphs = export_graphs(model.network, channels=model.spec.channels, policy=policy, rule=_rule_of(model))
    config.out.mkdir(parents=True)
    _write_graphs(config.out, graphs, "")
    write_whole(config.out / HOST.name, HOST.read_bytes())
    if data is not None:
        begin = None if graphs.begin is None else quantised(graphs.begin)
        _write_graphs(config.out, Graphs(quantised(graphs.step), begin), ".int8")
        _write_json(config.out, about)
        about["test"] = _measured(config.out, data)
    _write_json(config.out, about)
    print(f"exported to {config.out}: python {config.out / HOST.name} IMAGE")
    if data is not None:
        shares = {name: f"{100 * share:.1f} %" for name, share in about["test"]["accuracy"].items()}
        print(f"accuracy on {about['test']['images']} test images: float32 {shares['float32']}, int8 {shares['int8']}")


def _rule_of(model: Model) -> Rule | None:
    if model.halting is not None:
        return Halt(model.halting)
    if model.heads is not None:
        return GainHead(model.heads)
    return GainMap() if method(model.spec.method).policy in GAIN_MAPS else None


def _images_of(config: Export) -> ImageSet:
    """Return the images that the model was trained and tested on."""
    if not (config.model / "config.json").exists():
        raise UserError(f"int8=True measures accuracy on test images: {config.model} is no run directory of train")
    return load(Source(**read_run(config.model, "train").config["source"]))


def _write_graphs(folder: Path, graphs: Graphs, suffix: str) -> None:
    for name, graph in graphs._asdict().items():
        if graph is not None:
            write_whole(folder / f"{name}{suffix}.onnx", graph)


def _write_json(folder: Path, about: dict[str, Any]) -> None:
    write_whole(folder / "model.json", (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode())


def _measured(folder: Path, data: ImageSet) -> dict[str, Any]:
    """Return accuracy and mean glimpses of both precisions on the test split, and how often their labels agree."""
    from nogs.export.nogs_onnx import Model as Host  # needs onnxruntime, an extra

    test = data.members("test")
    at_once = max(1, min(AT_ONCE, PIXELS_AT_ONCE // data.images.shape[-1] ** 2))
    labels, steps = {}, {}
    for precision in ("float32", "int8"):
        host = Host(folder, precision=precision)
        answers = [host.classify(data.images[rows].numpy()) for rows in test.split(at_once)]
        labels[precision] = [label for of in answers for label in of.probs.argmax(1).tolist()]
        steps[precision] = [step for of in answers for step in of.steps.tolist()]
    truth, n = data.labels[test].tolist(), len(test)
    return {
        "images": n,
        "accuracy": {name: _agreement(answered, truth) for name, answered in labels.items()},
        "mean_glimpses": {name: sum(of) / n for name, of in steps.items()},
        "labels_agree": _agreement(*labels.values()),
    }


def _agreement(one: list[int], other: list[int]) -> float:
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)
