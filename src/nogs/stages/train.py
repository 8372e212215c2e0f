"""Stage train: a hard attention network, by one of the methods.

What is descended on a batch follows from the method's row: partial supervision with REINFORCE, wake-sleep, or
for a control without a policy the label's loss alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from nogs.attention.choosers import Chooser, chooser, sampling
from nogs.attention.classify import look_at_all
from nogs.attention.methods import Method, Policy, method
from nogs.attention.network import HardAttention
from nogs.attention.objectives import Rollout, label_loss, partially_supervised_loss, wake_sleep_loss
from nogs.attention.wake_sleep import InferenceNetwork, propose
from nogs.config.stages import Train
from nogs.data import fingerprint, load
from nogs.errors import UserError
from nogs.glimpses.fovea import look
from nogs.runs.device import chance, choose_device
from nogs.runs.directory import RunDirectory, finished_run, open_run
from nogs.runs.files import file_hash
from nogs.runs.identity import as_json
from nogs.runs.progress import Tick, ticking
from nogs.sequences.table import Sequences, check_sequences, load_sequences, one_path, read_sequences_run
from nogs.training.loop import BEST, fit
from nogs.weights import grid_of, save_attention

BEST_GREEDY_AND_SAMPLED = {**BEST, "best-sampled": "sampled_nll_nats"}
"""Each policy is evaluated on the weights of its own best validation loss, so that neither is favoured."""


class Training(NamedTuple):
    """What a loss needs to know, beside its batch."""

    config: Train
    method: Method
    network: HardAttention
    inference: InferenceNetwork | None
    sequences: Sequences | None
    path: tuple[int, ...] | None
    """The cells that every image is looked at, for a method that looks along one path."""
    pixels: UInt8[Tensor, "N c H H"]
    labels: Int[Tensor, " N"]


def train(config: Train, tick: Tick | None = None) -> RunDirectory:
    """Train the network of ``config`` and write its weights to its run directory.

    ``model.safetensors`` holds the weights of the least validation loss of the greedy policy, and
    ``model-sampled.safetensors`` those of the sampled policy. A method without a policy has the first alone.
    """
    row = method(config.method, argument="method")
    sequences = _sequences(config) if row.sequences != "none" else None
    if finished := finished_run(config.machine.out, "train", config, resume=config.machine.resume):
        return finished
    device = choose_device(config.machine.device)
    data = load(config.source)
    if data.multilabel:
        raise UserError(f"a network is trained for one label: choose `task` among {', '.join(data.classes)}")
    grid, T, o = grid_of(config.geometry, data), config.geometry.glimpses, config.optimisation
    path = None
    if row.looks == "path" and sequences and config.sequences:
        path = one_path(RunDirectory(config.sequences), sequences, glimpses=T, locations=len(grid))
    run = open_run(config.machine.out, "train", config, resume=config.machine.resume)
    torch.manual_seed(o.seed)
    channels, C = data.images.shape[1], len(data.classes)
    network = HardAttention(grid, channels=channels, classes=C, hidden=config.hidden).to(device)
    inference = None
    if row.policy == "wake-sleep":
        inference = InferenceNetwork(grid, channels=channels, classes=C, hidden=config.hidden).to(device)
    pixels, labels = data.images.to(device), data.labels.to(device)
    training = Training(config, row, network, inference, sequences, path, pixels, labels)
    members, val = data.members("train").to(device), data.members("val").to(device)
    trained = network if inference is None else nn.ModuleDict({"network": network, "inference": inference})
    has_policy = row.looks == "policy"

    def scores(choose: Chooser) -> dict[str, float]:
        logits = look_at_all(network, pixels, val, glimpses=T, choose=choose).class_logits[:, -1]
        hits = logits.argmax(-1) == labels[val]
        return {"nll_nats": F.cross_entropy(logits, labels[val]).item(), "accuracy": hits.float().mean().item()}

    def validate() -> dict[str, float]:
        figures = scores(chooser(row, grid, generator=chance(o.seed, 12, device=device), path=path))
        if has_policy:
            sampled = scores(sampling(chance(o.seed, 17, device=device)))
            figures |= {f"sampled_{name}": value for name, value in sampled.items()}
        return figures

    with ticking(f"{config.method} seed {o.seed}", o.iterations, tick) as report:
        fit(
            trained,
            run,
            loss=lambda batch, generator: LOSSES[row.policy](training, members[batch], generator),
            validate=validate,
            examples=len(members),
            optimisation=o,
            device=device,
            tick=report,
            keep=BEST_GREEDY_AND_SAMPLED if has_policy else BEST,
        )
    save = partial(
        save_attention, run, network, data, hidden=config.hidden, glimpses=T, method=config.method, path=path
    )
    save(name="model")
    if has_policy:
        trained.load_state_dict(run.load_tensors("best-sampled"))
        save(name="model-sampled")
    inputs = {config.source.data: fingerprint(data)}
    if config.sequences:
        inputs[str(config.sequences)] = file_hash(config.sequences / "sequences.safetensors")
    run.finish(device=str(device), inputs=inputs)
    return run


def _reinforced(training: Training, free: Int[Tensor, " b"], generator: Generator) -> Float[Tensor, ""]:
    """Partial supervision: REINFORCE where the policy draws its own cells, the given ones where there are some.

    As published, supervised images take places in the batch; for the location head alone they come on top.
    """
    network, pixels, T = training.network, training.pixels, training.config.geometry.glimpses
    taught, given = _given(training, generator)
    published = training.config.supervision == "published"
    if published:
        free = free[len(taught) :]
    choose = chooser(training.method, network.grid, generator=generator, policy=sampling(generator))
    rollout = network(pixels, free, glimpses=T, choose=choose)
    if len(taught):
        # Where they teach the location head alone, nothing that is remembered of them needs a gradient.
        with torch.set_grad_enabled(published):
            remembered = network.remember(look(pixels, network.grid, given, taught))
        rollout = Rollout(*map(torch.cat, zip(rollout, network.say(given, remembered), strict=True)))
    images = torch.cat((free, taught))
    return partially_supervised_loss(
        rollout,
        training.labels[images],
        torch.arange(len(images), device=images.device) >= len(free),
        supervised_labels=published,
    )


def _wake_sleep(training: Training, free: Int[Tensor, " b"], generator: Generator) -> Float[Tensor, ""]:
    """Sequences from the inference network, weighed by what they make of the label."""
    assert training.inference is not None
    labels, samples = training.labels[free], training.config.wake_sleep_samples
    proposed = propose(
        training.network,
        training.inference,
        training.pixels,
        free,
        labels,
        glimpses=training.config.geometry.glimpses,
        samples=samples,
        generator=generator,
    )
    every = labels.repeat_interleave(samples)
    return wake_sleep_loss(proposed.rollout, every, proposed.log_proposal, samples=samples).mean()


def _label_alone(training: Training, free: Int[Tensor, " b"], generator: Generator) -> Float[Tensor, ""]:
    """A control: nobody chooses, so there is no policy to be taught."""
    choose = chooser(training.method, training.network.grid, generator=generator, path=training.path)
    rollout = training.network(training.pixels, free, glimpses=training.config.geometry.glimpses, choose=choose)
    return label_loss(rollout, training.labels[free]).mean()


LOSSES: dict[Policy, Callable[[Training, Tensor, Generator], Tensor]] = {
    "reinforce": _reinforced,
    "wake-sleep": _wake_sleep,
    "none": _label_alone,
}


def _sequences(config: Train) -> Sequences:
    """The sequences to learn from, if they were made for these images, this task and this geometry."""
    path = config.sequences
    if path is None:
        raise UserError(
            f"method={config.method} learns from glimpse sequences: give `sequences`, "
            "a run of `nogs search`, `nogs record` or `nogs sequences import`"
        )
    run = read_sequences_run(path)
    check_sequences(run, as_json(config.source), as_json(config.geometry))
    return load_sequences(run)


def _given(training: Training, generator: Generator) -> tuple[Int[Tensor, " k"], Int[Tensor, "k T"]]:
    """The supervised images of a step and their given cells: none, where the method has no sequences."""
    device, sequences = training.pixels.device, training.sequences
    if sequences is None:
        cells = torch.empty(0, training.config.geometry.glimpses, dtype=torch.long, device=device)
        return cells[:, 0], cells
    k = min(training.config.supervised_batch, len(sequences.images))
    rows = torch.randint(len(sequences.images), (k,), generator=generator, device=device).to(sequences.images.device)
    return sequences.images[rows].to(device), sequences.cells[rows].to(device)
