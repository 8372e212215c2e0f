"""Stage train: train a hard attention network by one of the methods.

The method's row in `nogs.attention.methods` names the objective and how cells are chosen.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Int
from torch import Generator, Tensor
from torch.nn import functional as F

from nogs.attention.choosers import Chooser, sampling
from nogs.attention.classify import Looks, look_at_all
from nogs.attention.methods import OBJECTIVES, chooser, method, scheduled
from nogs.attention.train_step import Training
from nogs.config.groups import Together
from nogs.config.stages import Train
from nogs.data import fingerprint, load
from nogs.data.jittered import Jittered
from nogs.errors import UserError
from nogs.glimpses.initial import initialise
from nogs.runs.device import chance, choose_device
from nogs.runs.directory import RunDirectory, finished_run, open_run, read_run
from nogs.runs.extend import LONGER, PATIENT, extend_run
from nogs.runs.identity import as_json
from nogs.runs.progress import Tick, ticking
from nogs.sequences.table import Sequences, check_sequences, load_sequences, one_path, read_sequences_run
from nogs.specs import HaltingSpec, HardAttentionSpec, grid_of
from nogs.training.loop import fit
from nogs.training.world import World, train_together
from nogs.weights import save_network, start_from


def train(config: Train, tick: Tick | None = None) -> RunDirectory:
    """Train the network of ``config`` and write its weights to its run directory.

    ``model.safetensors`` holds the weights of the least validation loss of the greedy policy, and
    ``model-sampled.safetensors`` those of the sampled policy, so that neither is favoured. A method without a policy
    has the first alone. A method that trains a halting unit is validated by its loss plus the cost of its glimpses,
    and has ``halting.safetensors`` and ``halting-sampled.safetensors`` beside these.

    Several processes show a bar of their own in place of ``tick``.
    """
    method(config.method, argument="method")
    device = choose_device(config.machine.device)
    alone = config.together == Together()
    train_together(partial(_train, config, tick if alone else None), config.together, device)
    return RunDirectory(config.machine.out)


def _train(config: Train, tick: Tick | None, world: World) -> None:
    """Train as one of the processes of ``world``, of which the first writes the run directory."""
    row = method(config.method)
    sequences = _sequences(config) if row.sequences != "none" else None
    start = read_run(config.start, "train") if config.start else None
    if config.machine.resume and world.leads:
        fixed = scheduled(config.method, config.optimisation.schedule) or bool(config.gains.pretraining)
        extend_run(config.machine.out, "train", config, outdated=PATIENT if fixed else LONGER)
    if world.tell(
        world.leads and finished_run(config.machine.out, "train", config, resume=config.machine.resume) is not None
    ):
        return
    device = world.device(choose_device(config.machine.device))
    data = load(config.source)
    data.check_one_label()
    grid, T, o = grid_of(config.geometry, data), config.geometry.glimpses, config.optimisation
    path = None
    if row.looks == "path" and sequences and config.sequences:
        path = one_path(RunDirectory(config.sequences), sequences, glimpses=T, locations=len(grid))
    spec = HardAttentionSpec(
        grid,
        data.images.shape[1],
        data.classes,
        config.network.hidden,
        T,
        config.method,
        path,
        config.source.fit,
        config.source.range,
        config.geometry.overview,
        config.network.core,
    )
    if world.leads:
        run = open_run(config.machine.out, "train", config, resume=config.machine.resume)
    world.tell("opened")
    if not world.leads:
        run = RunDirectory(config.machine.out)
    torch.manual_seed(o.seed)
    network = spec.build()
    if config.network.initial == "he":
        initialise(network.embedding)
    network.to(device)
    if start:
        start_from(start, network)
    pixels, labels = data.images.to(device), data.labels.to(device)
    members, val = data.members("train").to(device), data.members("val").to(device)
    has_policy = row.looks == "policy"

    def choose(generator: Generator) -> Chooser:
        return chooser(row, grid, generator=generator, path=path, policy=sampling(generator))

    seen = Jittered(pixels, config.jitter) if config.jitter else pixels
    taught = (
        config.supervised_batch if sequences is None else world.share_of(config.supervised_batch, "supervised_batch")
    )
    own = replace(config, supervised_batch=taught)
    trained, loss, halting = OBJECTIVES[row.policy](Training(own, network, choose, sequences, seen, labels))

    def step(batch: Int[Tensor, " b"], generator: Generator) -> Tensor:
        with seen.drawing(generator) if isinstance(seen, Jittered) else nullcontext():
            return loss(members[batch], generator)

    def scores(choose: Chooser) -> dict[str, float]:
        looks = look_at_all(network, pixels, val, glimpses=T, choose=choose, halting=halting)
        return _scores(looks, labels[val], halting_cost=None if halting is None else config.halting_cost)

    def validate() -> dict[str, float]:
        figures = scores(chooser(row, grid, generator=chance(o.seed, 12, device=device), path=path))
        if has_policy:
            sampled = scores(choose(chance(o.seed, 17, device=device)))
            figures |= {f"sampled_{name}": value for name, value in sampled.items()}
        return figures

    best = "nll_nats" if halting is None else "cost_nats"
    shown = ticking(f"{config.method} seed {o.seed}", o.iterations, tick) if world.leads else nullcontext(_silent)
    with shown as report:
        fit(
            trained,
            run,
            loss=step,
            validate=validate,
            examples=len(members),
            optimisation=o,
            device=device,
            tick=report,
            keep={"best": best, "best-sampled": f"sampled_{best}"} if has_policy else {"best": best},
            world=world,
        )
    if not world.leads:
        return
    for suffix in ("", "-sampled") if has_policy else ("",):
        trained.load_state_dict(run.load_tensors(f"best{suffix}"))
        save_network(run, f"model{suffix}", network, spec)
        if halting is not None:
            save_network(run, f"halting{suffix}", halting, HaltingSpec(config.network.hidden, config.halting_cost))
    inputs = {config.source.data: fingerprint(data)}
    if config.sequences:
        inputs[str(config.sequences)] = RunDirectory(config.sequences).hash_of("sequences.safetensors")
    if start:
        inputs[str(start.path)] = start.hash_of("model.safetensors")
    run.finish(device=str(device), inputs=inputs)


def _silent(done: int, note: str) -> None:
    """Show nothing: the first process shows the progress of all."""


def _scores(looks: Looks, labels: Int[Tensor, " n"], *, halting_cost: float | None) -> dict[str, float]:
    """Return the figures of a validation; with ``halting_cost`` in nats also the mean number and the cost of glimpses.

    ``cost_nats`` is the loss of the answers plus the cost of the glimpses.
    """
    logits = looks.class_logits[:, -1]
    hits = logits.argmax(-1) == labels
    figures = {"nll_nats": F.cross_entropy(logits, labels).item(), "accuracy": hits.float().mean().item()}
    if halting_cost is None:
        return figures
    glimpses = looks.steps.float().mean().item()
    return {**figures, "cost_nats": figures["nll_nats"] + halting_cost * glimpses, "mean_glimpses": glimpses}


def _sequences(config: Train) -> Sequences:
    """Load the sequences to imitate. Raises UserError unless they are of these images, this task and this geometry."""
    path = config.sequences
    if path is None:
        raise UserError(
            f"method={config.method} learns from glimpse sequences: give `sequences`, "
            "a run of `nogs search`, `nogs record` or `nogs sequences import`"
        )
    run = read_sequences_run(path)
    check_sequences(run, as_json(config.source), as_json(config.geometry))
    return load_sequences(run)
