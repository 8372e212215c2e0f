"""Stage build-bank: index the training and unlabelled images, or other images, by PCA, for retrieval.

For images of the data only the latents are stored, because their pixels are there. Other images, possibly millions,
are decoded once, projected, and stored in compressed shards (`nogs.completion.shards`). PCA is fitted on a sample
first. Each shard is a file and a row of the log with its checksum, so that a killed build continues at its last shard.
Only one shard is in memory at a time.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nogs.completion.pca import fitting_sample, principal_components, project
from nogs.completion.shards import pack
from nogs.config.stages import BuildBank
from nogs.data import ImageSet, fingerprint, load
from nogs.data.decode import decode, survey
from nogs.data.frame import Frame
from nogs.data.listing import Faults
from nogs.data.memory import check_memory
from nogs.errors import UserError
from nogs.runs.device import chance
from nogs.runs.directory import RunDirectory, finished_run, open_run
from nogs.runs.files import damaged
from nogs.runs.progress import Tick, ticking

CHUNK = 512
"""Images that are projected at a time."""
SHARD = 4096
"""Images in a shard, about 100 MB at 224 pixels."""
HALF = torch.bfloat16
"""Precision of latents. Proposals are as good as in full precision (benchmarks/retrieval.py), from half the bytes."""


def build_bank(config: BuildBank, tick: Tick | None = None) -> RunDirectory:
    """Write bank.safetensors: the PCA, and the latents of the training images or the names of the shards."""
    if finished := finished_run(config.machine.out, "build-bank", config, resume=config.machine.resume):
        return finished
    data = load(config.source)
    files = _files_of(config, data) if config.images else []
    run = open_run(config.machine.out, "build-bank", config, resume=config.machine.resume)
    inputs = {config.source.data: fingerprint(data)}
    if config.images:
        inputs[str(config.images)] = _index_files(run, config, data, files, tick)
    else:
        _index_training_images(run, config, data, tick)
    run.finish(inputs=inputs)
    return run


def _index_training_images(run: RunDirectory, config: BuildBank, data: ImageSet, tick: Tick | None) -> None:
    members, generator = data.bank_members(), chance(config.seed, 4)
    with ticking("bank", len(members), tick) as report:
        report(0, "principal components")
        sample = members[fitting_sample(len(members), generator=generator)]
        check_memory(len(sample), channels=data.images.shape[1], image_px=data.images.shape[-1])
        mean, components = principal_components(data.images[sample], components=config.components, generator=generator)
        latents = torch.empty(len(members), len(components), dtype=HALF)
        for start in range(0, len(members), CHUNK):
            chunk = members[start : start + CHUNK]
            latents[start : start + len(chunk)] = project(data.images[chunk], mean, components)
            report(start + len(chunk), "")
    arrays = {"members": members, "mean": mean, "components": components, "latents": latents}
    run.save_tensors("bank", arrays, mirror=config.mirror, shards=[])


def _index_files(run: RunDirectory, config: BuildBank, data: ImageSet, files: list[Path], tick: Tick | None) -> str:
    """Write the shards that are not yet written, and bank.safetensors; return the checksum of the list of files."""
    listed = hashlib.sha256("\n".join(map(str, files)).encode("utf-8", "surrogateescape")).hexdigest()
    written = {row["name"]: row for row in run.rows()}
    if any(row["files"] != listed for row in written.values()):
        raise UserError(
            f"images={config.images}: files were added or removed since {run.path} was started; restore them, or "
            "choose another `out`"
        )
    frame = Frame(data.images.shape[1], data.images.shape[-1], config.source.fit, config.source.range)
    faults = Faults(config.source.skip_bad)
    with ticking("bank", len(files), tick) as report:
        report(0, "principal components")
        mean, components = _fitted(run, config, files, frame)
        for number, start in enumerate(range(0, len(files), SHARD)):
            name, chunk = f"shard-{number:05}", files[start : start + SHARD]
            if name not in written:  # a shard without a row in the log is written again, with the same content
                images = _decoded(chunk, frame, faults)
                latents = torch.cat([project(part, mean, components) for part in images.split(CHUNK)])
                run.save_tensors(name, pack(images, latents.to(HALF))._asdict())
                written[name] = {"sha256": run.hash_of(f"{name}.safetensors")}
                run.log(name=name, images=len(images), files=listed, **written[name])
            elif run.hash_of(f"{name}.safetensors") != written[name]["sha256"]:
                raise damaged(run.path / f"{name}.safetensors", "is damaged, its SHA-256 is not the one in log.jsonl")
            report(start + len(chunk), "")
    faults.warn()
    run.save_tensors("bank", {"mean": mean, "components": components}, mirror=config.mirror, shards=list(written))
    return listed


def _fitted(
    run: RunDirectory, config: BuildBank, files: list[Path], frame: Frame
) -> tuple[Float[Tensor, "c H H"], Float[Tensor, "k c H H"]]:
    """Return mean and components of a sample of the files, from components.safetensors if it was written before."""
    if not run.has("components"):
        generator = chance(config.seed, 4)
        sample = [files[index] for index in fitting_sample(len(files), generator=generator).tolist()]
        images = _decoded(sample, frame, Faults(config.source.skip_bad))
        mean, components = principal_components(images, components=config.components, generator=generator)
        run.save_tensors("components", {"mean": mean, "components": components})
    pca = run.load_tensors("components")
    return pca["mean"], pca["components"]


def _decoded(files: list[Path], frame: Frame, faults: Faults) -> UInt8[Tensor, "n c H H"]:
    """Return the images in the form of ``frame``.

    Files that cannot be decoded become faults if these are skipped, and raise UserError otherwise.
    """
    images = []
    for file, pixels in zip(files, decode(files, frame), strict=True):
        if not isinstance(pixels, str):
            images.append(pixels)
        elif faults.skip:
            faults.add(str(file), pixels)
        else:
            raise UserError(f"{file}: {pixels}; mend it and add resume=True, or start again with skip_bad=True")
    if not images:
        raise UserError(f"{files[0]} and the {len(files) - 1} files after it: none is an image; remove them")
    return torch.from_numpy(np.stack(images))


def _files_of(config: BuildBank, data: ImageSet) -> list[Path]:
    """Return the image files below ``config.images``, sorted. Hidden files are ignored, unreadable ones are faults.

    ``data``: the images that the bank is for, whose size the files are resized to.
    """
    root = config.images
    assert root is not None
    if not root.is_dir():
        raise UserError(f"images={root}: is not a folder; give one of image files")
    paths = sorted(path for path in root.rglob("*") if not path.is_dir() and not path.name.startswith("."))
    faults = Faults(config.source.skip_bad)
    _, bad, cut = survey(paths, data.images.shape[-1], fit=config.source.fit, range=config.source.range)
    cut.warn(len(paths) - len(bad))
    for index, reason in sorted(bad.items()):
        faults.add(str(paths[index]), reason)
    faults.stop()
    faults.warn()
    files = [path for index, path in enumerate(paths) if index not in bad]
    if len(files) < 2:
        raise UserError(f"images={root}: has {len(files)} usable images; give two or more")
    return files
