"""Stage train: a hard attention network, by one of the methods."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Int
from torch import Generator, Tensor
from torch.nn import functional as F

from nogs.attention import HardAttention, following, greedy, sampling
from nogs.config import Train
from nogs.data import fingerprint, load
from nogs.device import choose_device
from nogs.errors import UserError
from nogs.fit import fit
from nogs.methods import method
from nogs.models import grid_of, save_attention
from nogs.objectives import partially_supervised_loss
from nogs.progress import Tick, ticking
from nogs.rundir import RunDirectory, as_json, file_hash, finished_run, first_difference, open_run, read_run
from nogs.sequences import Sequences, load_sequences

VALIDATION_BATCH = 512


def train(config: Train, tick: Tick | None = None) -> RunDirectory:
    """Train the network of ``config`` and write model.safetensors to its run directory."""
    needs_sequences = method(config.method).sequences != "none"
    if needs_sequences and config.sequences is None:
        raise UserError(
            f"--method {config.method} learns from glimpse sequences: give --sequences, a run of `nogs search`"
        )
    sequences = _sequences(config, config.sequences) if needs_sequences and config.sequences else None
    if finished := finished_run(config.machine.out, "train", config, resume=config.machine.resume):
        return finished
    device = choose_device(config.machine.device)
    data = load(config.source)
    if data.multilabel:
        raise UserError(f"a network is trained for one label: choose --task among {', '.join(data.classes)}")
    grid, T, o = grid_of(config.geometry, data), config.geometry.glimpses, config.optimisation
    run = open_run(config.machine.out, "train", config, resume=config.machine.resume)
    torch.manual_seed(o.seed)
    network = HardAttention(grid, channels=data.images.shape[1], classes=len(data.classes), hidden=config.hidden).to(
        device
    )
    pixels, labels = data.images.to(device), data.labels.to(device)
    members, val = data.members("train").to(device), data.members("val").to(device)

    def loss(batch: Int[Tensor, " b"], generator: Generator) -> Tensor:
        free = members[batch]
        if sequences is None:
            images, cells = free, torch.full((len(free), T), -1, device=device)
        else:
            images, cells = _with_sequences(free, sequences, config, generator)
        rollout = network(pixels, images, glimpses=T, choose=following(cells, sampling(generator)))
        return partially_supervised_loss(
            rollout,
            labels[images],
            cells[:, 0] >= 0,
            supervised_labels=config.supervision == "published",
        )

    def validate() -> dict[str, float]:
        losses, hits = [], []
        for images in val.split(VALIDATION_BATCH):
            logits = network(pixels, images, glimpses=T, choose=greedy).class_logits[:, -1]
            losses.append(F.cross_entropy(logits, labels[images], reduction="none"))
            hits.append(logits.argmax(-1) == labels[images])
        return {"nll_nats": torch.cat(losses).mean().item(), "accuracy": torch.cat(hits).float().mean().item()}

    with ticking(f"{config.method} seed {o.seed}", o.iterations, tick) as report:
        fit(
            network,
            run,
            loss=loss,
            validate=validate,
            examples=len(members),
            optimisation=o,
            device=device,
            tick=report,
        )
    save_attention(run, network, data, hidden=config.hidden, glimpses=T, method=config.method)
    inputs = {config.source.data: fingerprint(data)}
    if config.sequences:
        inputs[str(config.sequences)] = file_hash(config.sequences / "sequences.safetensors")
    run.finish(device=str(device), inputs=inputs)
    return run


def _sequences(config: Train, path: Path) -> Sequences:
    """The sequences of a search, if they were designed for these images, this task and this geometry."""
    run = read_run(path, "search")
    posterior = RunDirectory(Path(run.config["posterior"])).config
    task = run.config["task"] or posterior["source"]["task"]
    had = {**posterior["source"], **posterior["geometry"], "task": task}
    if difference := first_difference(had, {**as_json(config.source), **as_json(config.geometry)}):
        raise UserError(f"--sequences {path} were designed with another {difference}: train with the same")
    return load_sequences(run)


def _with_sequences(
    free: Int[Tensor, " b"], sequences: Sequences, config: Train, generator: Generator
) -> tuple[Int[Tensor, " n"], Int[Tensor, "n T"]]:
    """The batch's images and their given cells, -1 where the policy draws its own.

    As published, supervised images take places in the batch; for the location head alone they come on top.
    """
    k = min(config.supervised_batch, len(sequences.images))
    device = generator.device
    rows = torch.randint(len(sequences.images), (k,), generator=generator, device=device).cpu()
    if config.supervision == "published":
        free = free[k:]
    drawn = torch.full((len(free), sequences.cells.shape[1]), -1, device=device)
    return torch.cat((free, sequences.images[rows].to(device))), torch.cat((drawn, sequences.cells[rows].to(device)))
