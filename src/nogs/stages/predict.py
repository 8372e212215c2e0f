"""Stage predict: classify image files with a trained network, and say where it looked."""

from __future__ import annotations

import json

import numpy as np
import torch

from nogs.attention import greedy
from nogs.config import Predict
from nogs.cost import macs_by_glimpse
from nogs.data.decode import Frame, decode
from nogs.device import choose_device
from nogs.errors import UserError
from nogs.models import load_attention
from nogs.rundir import read_run


def predict(config: Predict) -> None:
    """Print a line an image: its label and probability, or with ``json`` one object.

    Glimpses are [row, column] of their top-left pixels in the resized image; ``macs`` are multiply-adds.
    """
    if not config.images:
        raise UserError("no image is given: name one or more files after the model's directory")
    device = choose_device(config.device)
    run = read_run(config.model, "train")
    network, T, classes = load_attention(run, device)
    channels = run.load_metadata("model")["channels"]
    macs = macs_by_glimpse(network, channels=channels, glimpses=T)
    for file, pixels in zip(config.images, decode(config.images, Frame(channels, network.grid.image_px)), strict=True):
        if isinstance(pixels, str):
            raise UserError(f"{file} {pixels}")
        with torch.inference_mode():
            image = torch.from_numpy(np.array(pixels))[None].to(device)
            rollout = network(image, glimpses=T, choose=greedy)
        probabilities = rollout.class_logits[0, -1].softmax(-1).tolist()
        best = max(range(len(classes)), key=probabilities.__getitem__)
        glimpses = network.grid.top_left_px(rollout.cells[0]).tolist()
        if config.json:
            found = {
                "label": classes[best],
                "probs": dict(zip(classes, probabilities, strict=True)),
                "glimpses": glimpses,
                "steps": T,
                "macs": macs[-1],
            }
            print(json.dumps({"file": str(file), **found}))
        else:
            print(f"{file}: {classes[best]} ({100 * probabilities[best]:.1f} %)")
