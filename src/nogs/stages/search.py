"""Stage search: design near-optimal glimpse sequences for the annotated images.

Glimpse t is chosen for all images before glimpse t + 1, because their maps may be pooled (`nogs.design.greedy`). The
first map is the same for all images. Later maps are computed in chunks of images. A chunk is independent of the others
and has its own random stream, so any worker of `nogs.engine` can compute it, and again with the same result. Each chunk
is a file and a row of the log, so that a killed search continues with its missing chunks.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from nogs.completion.bank import load_bank
from nogs.completion.protocol import Completions
from nogs.completion.retrieval import Retrieval
from nogs.config.groups import Source
from nogs.config.stages import Search
from nogs.data import ImageSet, load
from nogs.design.gain_maps import CompletionGainMap, Criterion, Maps, exhaustive
from nogs.design.greedy import DesignedSequences, design_sequences, regret
from nogs.design.race import Race
from nogs.engine import Results, check_engine, computing
from nogs.errors import UserError
from nogs.evaluation.examples import posterior_log_probs
from nogs.evaluation.usefulness import Usefulness, usefulness
from nogs.glimpses.fovea import Glimpses, look, nothing_seen
from nogs.glimpses.grid import Grid
from nogs.posterior.protocol import Posterior, TrainablePosterior
from nogs.runs.device import chance, choose_device
from nogs.runs.directory import RunDirectory, finished_run, open_run, read_run
from nogs.runs.progress import Tick, ticking
from nogs.sequences.table import Sequences, on_labelled_images, save_sequences
from nogs.specs import PosteriorSpec
from nogs.weights import load_network

CHUNK = 50
"""Images in a chunk."""


def search(config: Search, tick: Tick | None = None) -> RunDirectory:
    """Write sequences.safetensors (cells, maps in nats, effective sample sizes, one row an image) and usefulness.json.

    usefulness.json has the posterior's losses along the sequences; a warning is printed if it is of no use. With
    ``regret`` n, also regret.json: by how much the search missed exhaustive search on n images, in nats of the
    pooled score, a list for each glimpse from the second.
    """
    fitted, indexed = read_run(config.posterior, "fit-posterior"), read_run(config.bank, "build-bank")
    _same_images(config, fitted.config["source"], indexed.config["source"])
    check_engine(config.engine)
    if finished := finished_run(config.machine.out, "search", config, resume=config.machine.resume):
        return finished
    device = choose_device(config.machine.device)
    source = Source(**fitted.config["source"])
    data = load(source)
    fitted_posterior = load_network(fitted, "model", kind=PosteriorSpec, device=device)[1]
    posterior, labels = _of_task(fitted_posterior, data, config.task)
    run = open_run(config.machine.out, "search", config, resume=config.machine.resume)
    T = fitted.config["geometry"]["glimpses"]
    annotated = data.annotated(fitted.config["annotate"], source.split_seed)
    retrieval = Retrieval(load_bank(indexed, data), posterior.grid, config.retrieval)
    estimator = Race(config.race, config.criterion, config.pooling) if config.strategy == "race" else exhaustive
    gpus = int(device.type == "cuda")
    gain_map = CompletionGainMap(posterior, retrieval, estimator, config.first)
    with (
        ticking("sequences", len(annotated) * (T - 1), tick) as report,
        computing(config.engine, map_chunk, gain_map, workers=config.jobs, gpus=gpus) as compute,
        torch.inference_mode(),
    ):
        chunks = Chunks(run, config, compute, posterior.grid, data, annotated, T, report)
        designed = design_sequences(
            chunks.maps_at, len(annotated), glimpses=T, criterion=config.criterion, pooling=config.pooling
        )
        if config.regret and T > 1:
            run.save_json("regret.json", {"regret_nats_by_glimpse": chunks.regrets(designed)})
        sequences = Sequences(annotated, **designed._asdict())
        useful = _usefulness(posterior, data, sequences, labels)
    run.save_json("usefulness.json", useful._asdict())
    save_sequences(
        run,
        "sequences",
        sequences,
        source=fitted.config["source"],
        geometry=fitted.config["geometry"],
        task=config.task or source.task,
        origin="search",
    )
    run.finish(
        device=str(device),
        inputs={
            str(config.posterior): fitted.hash_of("model.safetensors"),
            str(config.bank): indexed.hash_of("bank.safetensors"),
        },
    )
    if warning := useful.warning():
        print(f"warning: {warning}", file=sys.stderr)
    return run


class Chunk(NamedTuple):
    """The b states of a chunk, and what their maps depend on beside posterior and completions.

    ``groups``: of their images. ``compare``: number of states that also get exhaustive maps. ``keys``: of the chunk's
    random stream.
    """

    seen: Glimpses
    groups: Int[Tensor, " b"]
    compare: int
    criterion: Criterion
    keys: tuple[int, ...]


class ChunkMaps(NamedTuple):
    """Maps of one chunk, and the row of the log with their cost.

    ``exhaustive``: the exhaustive gain [k L] in nats of the first k images, if regret is measured, else None.
    """

    maps: Maps
    exhaustive: Tensor | None
    row: dict[str, float]


@torch.no_grad()
def map_chunk(gain_map: CompletionGainMap, chunk: Chunk) -> ChunkMaps:
    """Return the maps of a chunk's states, and for the first of them also exhaustive ones."""
    seen, groups, compare, criterion, keys = chunk
    generator = chance(*keys)
    started = time.perf_counter()
    completions = gain_map.complete(seen, groups=groups, generator=generator)
    maps = gain_map.estimator(gain_map.posterior, seen, completions, generator=generator)
    row = {
        "seconds": time.perf_counter() - started,
        "posterior_evaluations": maps.evaluations,
        "effective": maps.effective.mean().item(),
    }
    if not compare:
        return ChunkMaps(maps, None, row)
    started = time.perf_counter()
    whole = exhaustive(gain_map.posterior, *_first_of(compare, seen, completions), generator=generator)
    row |= {"exhaustive_seconds": time.perf_counter() - started, "exhaustive_evaluations": whole.evaluations}
    return ChunkMaps(maps, whole.gain(criterion), row)


@dataclass(frozen=True)
class Chunks:
    """The maps of all ``annotated`` images in chunks. Chunks in ``run`` are read, and missing ones computed.

    ``compute``: computes chunks. ``glimpses``: T. ``report``: the progress callback.
    """

    run: RunDirectory
    config: Search
    compute: Results[Chunk, ChunkMaps]
    grid: Grid
    data: ImageSet
    annotated: Int[Tensor, " n"]
    glimpses: int
    report: Tick

    def maps_at(self, cells: Int[Tensor, "n t"]) -> Maps:
        """Return the maps of all images after t ≥ 0 glimpses."""
        n, t = cells.shape
        logged = {row["name"] for row in self.run.rows()}
        if t == 0:
            self.report(0, "the first glimpse, shared by all")
            if "glimpse-00" not in logged:
                seen, nobody = nothing_seen(self.data.images[:1], self.grid), torch.zeros(1, dtype=torch.long)
                whole = Chunk(seen, nobody, 0, self.config.criterion, (self.config.seed, 5))
                for _, maps in self.compute([whole]):
                    self._save("glimpse-00", maps)
            return self._load("glimpse-00").expand(n)
        missing: dict[str, Chunk] = {}
        names, done = [], n
        for number, rows in enumerate(torch.arange(n).split(CHUNK)):
            names.append(_chunk_name(t, number))
            if names[-1] in logged:
                continue
            # A chunk without a row in the log is computed again, with the same content.
            images, compare = self.annotated[rows], max(0, min(len(rows), self.config.regret - number * CHUNK))
            seen = look(self.data.images, self.grid, cells[rows], images)
            keys = self.config.seed, 6, number, t
            missing[names[-1]] = Chunk(seen, self.data.groups[images], compare, self.config.criterion, keys)
            done -= len(rows)
        missing_names = tuple(missing)
        for index, maps in self.compute(list(missing.values())):
            name = missing_names[index]
            self._save(name, maps)
            done += len(missing[name].groups)
            self.report(n * (t - 1) + done, f"glimpse {t + 1} of {self.glimpses}")
        chunks = [self._load(name) for name in names]
        epe, eig, effective = (torch.cat(column) for column in zip(*(chunk[:3] for chunk in chunks), strict=True))
        return Maps(epe, eig, effective, evaluations=0)

    def regrets(self, designed: DesignedSequences) -> list[list[float]]:
        """Return the regret in nats of each glimpse from the second, for the images with exhaustive maps."""
        gain, regrets = designed.gain(self.config.criterion), []
        for t in range(1, self.glimpses):
            numbers = range(-(-min(self.config.regret, len(self.annotated)) // CHUNK))
            tensors = [self.run.load_tensors(_chunk_name(t, number)) for number in numbers]
            missed = regret(
                torch.cat([chunk["exhaustive"] for chunk in tensors]),
                designed.cells[:, t],
                visited=designed.cells[:, :t],
                population=gain[:, t].mean(0),
                pooling=self.config.pooling,
            )
            regrets.append(missed.tolist())
        return regrets

    def _save(self, name: str, chunk: ChunkMaps) -> None:
        tensors = {"epe": chunk.maps.epe, "eig": chunk.maps.eig, "effective": chunk.maps.effective}
        if chunk.exhaustive is not None:
            tensors["exhaustive"] = chunk.exhaustive
        self.run.save_tensors(name, tensors)
        self.run.log(name=name, **chunk.row)

    def _load(self, name: str) -> Maps:
        tensors = self.run.load_tensors(name)
        return Maps(tensors["epe"], tensors["eig"], tensors["effective"], evaluations=0)


def _chunk_name(t: int, number: int) -> str:
    return f"glimpse-{t:02}-chunk-{number:04}"


def _first_of(count: int, seen: Glimpses, completions: Completions) -> tuple[Glimpses, Completions]:
    """Return the first ``count`` states and their completions."""
    kept = completions.owners < count
    return Glimpses(seen.patches[:count], seen.cells[:count]), Completions(
        completions.images[kept], completions.owners[kept], completions.weights[kept], completions.effective[:count]
    )


def _same_images(config: Search, posterior: dict[str, Any], bank: dict[str, Any]) -> None:
    for field in ("data", "image_size", "split_seed", "skip_bad"):
        if posterior[field] != bank[field]:
            raise UserError(
                f"bank={config.bank} was built with {field}={bank[field]}, "
                f"posterior={config.posterior} with {posterior[field]}: build them from the same images"
            )


def _usefulness(
    posterior: Posterior,
    data: ImageSet,
    sequences: Sequences,
    labels: Int[Tensor, " N"],
) -> Usefulness:
    """Return the posterior's usefulness along designed sequences, compared with uniformly drawn locations."""
    images, cells = on_labelled_images(sequences, data, generator=chance(18))[:2]
    random = torch.randint(len(posterior.grid), tuple(cells.shape), generator=chance(9))
    along, elsewhere = (posterior_log_probs(posterior, data, images, at) for at in (cells, random))
    return usefulness(along, elsewhere, labels[images])


def _of_task(posterior: TrainablePosterior, data: ImageSet, task: str | None) -> tuple[Posterior, Int[Tensor, " N"]]:
    """Return the posterior for one task and the labels of all images for it.

    ``task``: the label of a multi-label posterior; None if the posterior has one label.
    """
    if not data.multilabel:
        if task is not None:
            raise UserError(f"task={task}: this posterior was fitted to one label; leave `task` out")
        return posterior, data.labels
    if task not in data.classes:
        raise UserError(f"task={task}: the posterior has several labels; choose one of {', '.join(data.classes)}")
    label = data.classes.index(task)
    return posterior.for_label(label), data.labels[:, label]
