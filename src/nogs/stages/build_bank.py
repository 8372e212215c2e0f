"""Stage build-bank: index training images for retrieval by PCA, of them and of their mirror images."""

from __future__ import annotations

import torch

from nogs.completion.retrieval import principal_components, project
from nogs.config import BuildBank
from nogs.data import fingerprint, load
from nogs.device import chance
from nogs.progress import Tick, ticking
from nogs.rundir import RunDirectory, finished_run, open_run

CHUNK = 512


def build_bank(config: BuildBank, tick: Tick | None = None) -> RunDirectory:
    """Write bank.safetensors: which images, and their PCA. The images themselves stay in the data."""
    if finished := finished_run(config.machine.out, "build-bank", config, resume=config.machine.resume):
        return finished
    data = load(config.source)
    run = open_run(config.machine.out, "build-bank", config, resume=config.machine.resume)
    members = data.members("train")
    chunks = members.split(CHUNK)
    with ticking("bank", len(members), tick) as report:
        report(0, "principal components")
        mean, components = principal_components(
            data.images[members], components=config.components, generator=chance(config.seed, 4)
        )
        latents = torch.empty(1 + config.mirror, len(members), len(components))
        for number, chunk in enumerate(chunks):
            start = number * CHUNK
            images = data.images[chunk]
            for side, view in enumerate((images, images.flip(-1))[: len(latents)]):
                latents[side, start : start + len(chunk)] = project(view, mean, components)
            report(start + len(chunk), "")
    run.save_tensors("bank", {"members": members, "mean": mean, "components": components, "latents": latents})
    run.finish(inputs={config.source.data: fingerprint(data)})
    return run
