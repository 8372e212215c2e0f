"""Stage search: near-optimal glimpse sequences for the training images that are to be annotated.

The first glimpse is the same for all, since nothing was seen; from then on each image is completed from what
was seen of it, locations are tried on the completions, every one on all or in a race (`nogs.design.race`), and the
best is looked at. All images take a glimpse before any takes the next, for their maps may be pooled. They go
through in chunks, each a file and each with its own chance, so that a search killed anywhere goes on at its
last chunk.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from nogs.completion.protocol import Completions
from nogs.completion.retrieval import Retrieval
from nogs.config.groups import Source
from nogs.config.stages import Search
from nogs.data import ImageSet, load
from nogs.design.gain_maps import Maps, map_next
from nogs.design.greedy import choose, regret
from nogs.design.race import race_next
from nogs.errors import UserError
from nogs.glimpses.fovea import Glimpses, look, nothing_seen
from nogs.runs.device import chance, choose_device
from nogs.runs.directory import RunDirectory, finished_run, open_run, read_run
from nogs.runs.files import file_hash
from nogs.runs.progress import Tick, ticking
from nogs.sequences.table import Sequences, save_sequences
from nogs.weights import load_bank, load_posterior

CHUNK = 50


def search(config: Search, tick: Tick | None = None) -> RunDirectory:
    """Write sequences.safetensors: cells, maps in nats and effective sample sizes, an image a row.

    With ``regret``, regret.json: what was lost against exhaustive search, in nats of the score that was
    maximised, a list for each glimpse from the second, of that many images.
    """
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
    logged = {row["name"] for row in run.rows()}

    def map_completed(seen: Glimpses, completed: Completions, generator: Generator) -> Maps:
        if config.strategy == "exhaustive":
            return map_next(posterior, seen, completed, label=label)
        return race_next(
            posterior,
            seen,
            completed,
            options=config.race,
            criterion=config.criterion,
            pooling=config.pooling,
            label=label,
            generator=generator,
        )

    def map_chunk(name: str, images: Int[Tensor, " b"], cells: Int[Tensor, "b t"], number: int) -> dict[str, Tensor]:
        if name not in logged:  # a kill between a chunk and its row: done again, to the same end
            started = time.perf_counter()
            t = cells.shape[1]
            generator = chance(config.seed, 6, number, t) if t else chance(config.seed, 5)
            if t:
                seen = look(data.images, posterior.grid, cells, images)
                completed = retrieval(seen, groups=data.groups[images], generator=generator)
            else:
                completed = retrieval.unconditional(config.first, generator=generator)
                seen = nothing_seen(completed.images[:1], posterior.grid)
            found = map_completed(seen, completed, generator)
            row = {
                "seconds": time.perf_counter() - started,
                "posterior_evaluations": found.evaluations,
                "effective": found.effective.mean().item(),
            }
            tensors = {"epe": found.epe, "eig": found.eig, "effective": found.effective}
            if t and (compared := min(len(images), config.regret - number * CHUNK)) > 0:
                started = time.perf_counter()
                whole = map_next(posterior, *_first_of(compared, seen, completed), label=label)
                tensors["exhaustive"] = whole.gain(config.criterion)
                row |= {
                    "exhaustive_seconds": time.perf_counter() - started,
                    "exhaustive_evaluations": whole.evaluations,
                }
            run.save_tensors(name, tensors)
            run.log(name=name, **row)
        return run.load_tensors(name)

    n = len(annotated)
    cells = torch.empty(n, 0, dtype=torch.long)
    columns: list[dict[str, Tensor]] = []
    regrets: list[list[float]] = []
    with ticking("sequences", n * (T - 1), tick) as report, torch.inference_mode():
        for t in range(T):
            if t == 0:
                report(0, "the first glimpse, shared by all")
                first = map_chunk("glimpse-00", annotated[:0], cells[:0], 0)
                column = {key: value.expand(n, *value.shape[1:]) for key, value in first.items()}
            else:
                chunks = []
                for number, rows in enumerate(torch.arange(n).split(CHUNK)):
                    name = f"glimpse-{t:02}-chunk-{number:04}"
                    chunks.append(map_chunk(name, annotated[rows], cells[rows], number))
                    report(n * (t - 1) + number * CHUNK + len(rows), f"glimpse {t + 1} of {T}")
                column = {key: torch.cat([chunk[key] for chunk in chunks if key in chunk]) for key in chunks[0]}
            gain = column["eig"] if config.criterion == "eig" else -column["epe"]
            chosen = choose(gain, cells, pooling=config.pooling)
            if (exhaustive := column.pop("exhaustive", None)) is not None:
                regrets.append(
                    regret(
                        exhaustive, chosen, looked_at=cells, population=gain.mean(0), pooling=config.pooling
                    ).tolist()
                )
            cells = torch.cat((cells, chosen[:, None]), dim=1)
            columns.append(column)
    if regrets:
        run.save_json("regret.json", {"regret_nats_by_glimpse": regrets})
    maps = {key: torch.stack([column[key] for column in columns], dim=1) for key in columns[0]}
    save_sequences(
        run,
        "sequences",
        Sequences(annotated, cells, **maps),
        source=fitted.config["source"],
        geometry=fitted.config["geometry"],
        task=config.task or source.task,
        origin="search",
    )
    run.finish(
        device=str(device),
        inputs={
            str(config.posterior): file_hash(config.posterior / "model.safetensors"),
            str(config.bank): file_hash(config.bank / "bank.safetensors"),
        },
    )
    return run


def _first_of(count: int, seen: Glimpses, completed: Completions) -> tuple[Glimpses, Completions]:
    """The first images of a chunk, and what completes them."""
    theirs = completed.owners < count
    return Glimpses(seen.patches[:count], seen.cells[:count]), Completions(
        completed.images[theirs], completed.owners[theirs], completed.weights[theirs], completed.effective[:count]
    )


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
