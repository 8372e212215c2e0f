"""Stage predict: classify image files with a trained network."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from nogs.attention.choosers import Chooser
from nogs.attention.classify import classify
from nogs.attention.gain import stop_by_gain_map
from nogs.attention.methods import GAIN_MAPS, chooser, method
from nogs.attention.network import HardAttention
from nogs.config.stages import Predict
from nogs.data.decode import Header, decode, read_headers
from nogs.data.frame import Cut, Frame, shown
from nogs.data.notices import notice
from nogs.errors import RunError, UserError
from nogs.evaluation.cost import macs_by_glimpse, parts_of_glimpse
from nogs.runs.device import chance, choose_device
from nogs.runs.directory import read_run
from nogs.specs import HardAttentionSpec
from nogs.stopping.curves import macs_by_rule
from nogs.stopping.heads import stop_by_predicted_gain
from nogs.stopping.rules import Stop, never
from nogs.weights import load_network, load_stopping


class Model(NamedTuple):
    """A trained network, and the options and rules that its predictions depend on.

    ``macs``: multiply-adds for an image that stops after t = 1..T glimpses.
    """

    network: HardAttention
    glimpses: int
    classes: tuple[str, ...]
    frame: Frame
    choose: Chooser
    stop: Stop
    macs: Sequence[int]


class Answer(NamedTuple):
    """The prediction for one image.

    ``probs``: class → probability. ``glimpses``: [row, column] of top-left pixels in the image file. ``steps``: number
    of glimpses. ``macs``: multiply-adds.
    """

    label: str
    probs: dict[str, float]
    glimpses: list[list[int]]
    steps: int
    macs: int


def predict(config: Predict) -> None:
    """Print one line for each image: its label and probability, or with ``config.json`` a JSON object.

    Folders are replaced by the files in them. Files that cannot be read are reported on stderr and skipped, and
    RunError is raised at the end. If there is only one file, UserError is raised instead.
    """
    if not config.images:
        raise UserError("no image is given: name one or more files after the model's directory")
    files = [file for path in config.images for file in _files_of(path)]
    model = _load(config)
    bad, cut = 0, Cut()
    headers, images = read_headers(files, model.frame.range), decode(files, model.frame)
    for file, header, pixels in zip(files, headers, images, strict=True):
        if isinstance(header, str) or isinstance(pixels, str):
            problem = f"{file}: {header if isinstance(header, str) else pixels}"
            if len(files) == 1:
                raise UserError(problem)
            bad += 1
            print(f"nogs: {problem}", file=sys.stderr)
            continue
        cut = cut.add(header.width, header.height, model.frame.fit)
        answer = _answer(model, torch.from_numpy(np.array(pixels)), header)
        if config.json:
            print(json.dumps({"file": str(file), **answer._asdict()}, ensure_ascii=False))
        else:
            print(f"{file}: {answer.label} ({100 * answer.probs[answer.label]:.1f} %)")
    if cut.images:
        notice(f"{cut.loss(len(files) - bad)}, as in training")
    if bad:
        raise RunError(f"{bad} of {len(files)} images cannot be read; they are named above")


def _files_of(path: Path) -> Iterator[Path]:
    """Yield the path itself, or if it is a folder, its files in order, without hidden ones."""
    if not path.is_dir():
        yield path
        return
    files = sorted(file for file in path.iterdir() if not file.is_dir() and not file.name.startswith("."))
    if not files:
        raise UserError(f"{path}: this folder has no files; give one with images")
    yield from files


def _load(config: Predict) -> Model:
    if config.stopping is not None and config.threshold is None:
        raise UserError("`stopping` without `threshold`: give both, or neither to look as often as in training")
    device = choose_device(config.device)
    run = read_run(config.model, "train")
    spec, network = load_network(run, "model", kind=HardAttentionSpec, device=device)
    if run.has("halting"):
        raise UserError(f"model={config.model} stops by a unit of its own (method={spec.method}), which predict lacks")
    row = method(spec.method)
    macs = macs_by_glimpse(network, channels=spec.channels, glimpses=spec.glimpses, policy=row.policy != "none")
    stop: Stop = never
    if config.stopping is None and config.threshold is not None:
        if row.policy not in GAIN_MAPS:
            raise UserError(
                f"`threshold` without `stopping`: a network of {spec.method} predicts no gain itself; give a run of "
                "`nogs fit-stopping` on it"
            )
        stop = stop_by_gain_map(config.threshold)
        locate = parts_of_glimpse(network, channels=spec.channels)["locator"]
        macs = [stopped + locate for stopped in macs[:-1]] + macs[-1:]
    if config.stopping is not None and config.threshold is not None:
        heads = load_stopping(read_run(config.stopping, "fit-stopping"), trained=run, device=device)
        stop = stop_by_predicted_gain(heads, config.threshold)
        macs = macs_by_rule(macs, answer_macs=network.classifier.weight.numel(), head_macs=heads.macs)["eig"]
    return Model(
        network,
        spec.glimpses,
        spec.classes,
        Frame(spec.channels, network.grid.image_px, spec.fit, spec.range),
        chooser(row, network.grid, generator=chance(0, device=device), path=spec.path),
        stop,
        macs,
    )


def _answer(model: Model, pixels: UInt8[Tensor, "c H H"], header: Header) -> Answer:
    """Classify one image; ``header`` has the size of the file that ``pixels`` were decoded from."""
    network = model.network
    with torch.inference_mode():
        image = pixels[None].to(network.baseline.weight.device)
        answers = classify(network, image, glimpses=model.glimpses, choose=model.choose, stop=model.stop)
    probabilities = answers.class_logits[0].softmax(-1).tolist()
    probs = dict(zip(model.classes, probabilities, strict=True))
    steps = int(answers.steps[0])
    box, side = shown(header.width, header.height, model.frame.fit), network.grid.image_px
    scale = (box.bottom - box.top) / side, (box.right - box.left) / side
    glimpses = [
        [round(box.top + row * scale[0]), round(box.left + column * scale[1])]
        for row, column in network.grid.top_left_px(answers.cells[0, :steps]).tolist()
    ]
    return Answer(max(probs, key=probs.__getitem__), probs, glimpses, steps, model.macs[steps - 1])
