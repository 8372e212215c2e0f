"""Stage predict: classify image files with a trained network, and say where it looked."""

from __future__ import annotations

import json

import numpy as np
import torch

from nogs.attention.classify import classify
from nogs.attention.methods import chooser, method
from nogs.config.stages import Predict
from nogs.data.decode import Frame, decode
from nogs.errors import UserError
from nogs.evaluation.cost import macs_by_glimpse
from nogs.runs.device import chance, choose_device
from nogs.runs.directory import read_run
from nogs.stopping.curves import macs_by_rule
from nogs.stopping.heads import stop_by_predicted_gain
from nogs.stopping.rules import Stop, never
from nogs.weights import load_attention, load_stopping


def predict(config: Predict) -> None:
    """Print a line an image: its label and probability, or with ``json`` one object.

    Glimpses are [row, column] of their top-left pixels in the resized image; ``macs`` are multiply-adds.
    With ``stopping``, each image is looked at until its next glimpse is expected to bring less than ``threshold``.
    """
    if not config.images:
        raise UserError("no image is given: name one or more files after the model's directory")
    if (config.stopping is None) != (config.threshold is None):
        given, missing = ("`threshold`", "`stopping`") if config.stopping is None else ("`stopping`", "`threshold`")
        raise UserError(f"{given} without {missing}: give both, or neither to look as often as in training")
    device = choose_device(config.device)
    run = read_run(config.model, "train")
    network, T, classes, path = load_attention(run, device)
    row = method(run.config["method"])
    channels = run.load_metadata("model")["channels"]
    choose = chooser(row, network.grid, generator=chance(0, device=device), path=path)
    macs = macs_by_glimpse(network, channels=channels, glimpses=T, policy=row.policy != "none")
    stop: Stop = never
    if config.stopping is not None and config.threshold is not None:
        heads = load_stopping(read_run(config.stopping, "fit-stopping"), device, of=run)
        stop = stop_by_predicted_gain(heads, config.threshold)
        macs = macs_by_rule(macs, answer_macs=network.classifier.weight.numel(), head_macs=heads.macs)["eig"]
    for file, pixels in zip(config.images, decode(config.images, Frame(channels, network.grid.image_px)), strict=True):
        if isinstance(pixels, str):
            raise UserError(f"{file} {pixels}")
        with torch.inference_mode():
            image = torch.from_numpy(np.array(pixels))[None].to(device)
            answer = classify(network, image, glimpses=T, choose=choose, stop=stop)
        probabilities = answer.class_logits[0].softmax(-1).tolist()
        best = max(range(len(classes)), key=probabilities.__getitem__)
        steps = int(answer.steps[0])
        glimpses = network.grid.top_left_px(answer.cells[0, :steps]).tolist()
        if config.json:
            found = {
                "label": classes[best],
                "probs": dict(zip(classes, probabilities, strict=True)),
                "glimpses": glimpses,
                "steps": steps,
                "macs": macs[steps - 1],
            }
            print(json.dumps({"file": str(file), **found}))
        else:
            print(f"{file}: {classes[best]} ({100 * probabilities[best]:.1f} %)")
