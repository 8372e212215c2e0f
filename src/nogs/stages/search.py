"""Stage search: near-optimal glimpse sequences for the training images that are to be annotated.

The first glimpse is the same for all, since nothing was seen; from then on each image is completed from what
was seen of it, every location is tried on every completion, and the best is looked at. Images go through in
chunks, each a file and each with its own chance, so that a search killed anywhere goes on at its last chunk.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch

from nogs.completion.retrieval import Retrieval
from nogs.config import Search, Source
from nogs.data import ImageSet, load
from nogs.design import design_first, design_sequences
from nogs.device import chance, choose_device
from nogs.errors import UserError
from nogs.models import load_bank, load_posterior
from nogs.progress import Tick, ticking
from nogs.rundir import RunDirectory, file_hash, finished_run, open_run, read_run
from nogs.sequences import Sequences, load_sequences, save_sequences

CHUNK = 50


def search(config: Search, tick: Tick | None = None) -> RunDirectory:
    """Write sequences.safetensors: cells, maps in nats and effective sample sizes, an image a row."""
    fitted, indexed = read_run(config.posterior, "fit-posterior"), read_run(config.bank, "build-bank")
    _same_images(config, fitted.config["source"], indexed.config["source"])
    if finished := finished_run(config.machine.out, "search", config, resume=config.machine.resume):
        return finished
    device = choose_device(config.machine.device)
    source = Source(**fitted.config["source"])
    data = load(source)
    posterior = load_posterior(fitted, device)
    label = _label(data, config.task)
    run = open_run(config.machine.out, "search", config, resume=config.machine.resume)
    T = fitted.config["geometry"]["glimpses"]
    annotated = data.annotated(fitted.config["annotate"], source.split_seed)
    retrieval = Retrieval(load_bank(indexed, data), posterior.grid, config.retrieval)
    done: list[Sequences] = []
    logged = {row["chunk"] for row in run.rows()}
    with ticking("sequences", len(annotated), tick) as report, torch.inference_mode():
        report(0, "the first glimpse, shared by all")
        draws = retrieval.unconditional(config.first, generator=chance(config.seed, 5))
        first = design_first(posterior, draws, criterion=config.criterion, label=label)
        for number, chunk in enumerate(annotated.split(CHUNK)):
            name = f"chunk-{number:04}"
            if number not in logged:  # a kill between a chunk and its row: done again, to the same end
                started = time.perf_counter()
                found = design_sequences(
                    posterior,
                    retrieval,
                    data.images[chunk],
                    data.groups[chunk],
                    first,
                    glimpses=T,
                    criterion=config.criterion,
                    label=label,
                    chance=partial(chance, config.seed, 6, number),
                )
                save_sequences(run, name, Sequences(chunk, found.cells, found.epe, found.eig, found.effective))
                run.log(
                    chunk=number,
                    seconds=time.perf_counter() - started,
                    posterior_evaluations=found.evaluations,
                    effective=found.effective[:, 1:].mean().item() if T > 1 else None,
                )
            done.append(load_sequences(run, name))
            report(number * CHUNK + len(chunk), "")
    save_sequences(run, "sequences", Sequences(*(torch.cat(column) for column in zip(*done, strict=True))))
    run.finish(
        device=str(device),
        inputs={
            str(config.posterior): file_hash(config.posterior / "model.safetensors"),
            str(config.bank): file_hash(config.bank / "bank.safetensors"),
        },
    )
    return run


def _same_images(config: Search, posterior: dict[str, Any], bank: dict[str, Any]) -> None:
    for field in ("data", "image_size", "split_seed", "skip_bad"):
        if posterior[field] != bank[field]:
            raise UserError(
                f"--bank {config.bank} was built with {field} {bank[field]}, "
                f"--posterior {config.posterior} with {posterior[field]}: build them from the same images"
            )


def _label(data: ImageSet, task: str | None) -> int | None:
    """Which label of a multi-label posterior is searched for."""
    if not data.multilabel:
        if task is not None:
            raise UserError(f"--task {task}: this posterior was fitted to one label; leave --task out")
        return None
    if task not in data.classes:
        raise UserError(f"--task {task}: the posterior serves many labels; choose one of {', '.join(data.classes)}")
    return data.classes.index(task)
