"""Stage fit-stopping: heads that say when a trained network has looked enough, fitted to what it does.

The network is frozen and run once, under its own policy (greedy, and once sampled, for more states); the heads
then learn from that record alone, each in a training of its own, for one needs ten times the iterations of
another. The network is run on the validation split: on its training images an overfitted network is certain after
one glimpse, and its gains there are not those of other images. A part of the split, by group, is held out: it
says when to stop fitting, and thresholds are chosen on it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor
from torch.nn import functional as F

from nogs.attention.choosers import Chooser, chooser, sampling
from nogs.attention.classify import look_at_all
from nogs.attention.methods import method
from nogs.attention.network import HardAttention
from nogs.config.groups import Source
from nogs.config.stages import FitStopping
from nogs.data import ImageSet, load
from nogs.data.imageset import SPLITS
from nogs.data.splits import cut
from nogs.errors import UserError
from nogs.evaluation.cost import macs_by_glimpse
from nogs.information import entropy
from nogs.runs.device import chance, choose_device
from nogs.runs.directory import RunDirectory, finished_run, open_run, read_run
from nogs.runs.files import file_hash
from nogs.runs.progress import Tick, after, ticking
from nogs.stopping.curves import Curve, Outlook, choose_thresholds, curve, macs_by_rule, stop_by_every_rule
from nogs.stopping.heads import StoppingHeads
from nogs.stopping.rules import act_loss, gains_ahead, stochastic_loss, stop_log_probs, stop_sampled, within_reach
from nogs.training.loop import fit
from nogs.weights import load_attention, save_stopping

HELD_OUT = 1 / 3


class Record(NamedTuple):
    """What the frozen network said of n images."""

    class_logits: Float[Tensor, "n T C"]
    labels: Int[Tensor, " n"]


def fit_stopping(config: FitStopping, tick: Tick | None = None) -> RunDirectory:
    """Write model.safetensors, and results.json: the curve of every rule on the held-out images.

    Each head's training is a run directory within, of its name.
    """
    trained = read_run(config.model, "train")
    if finished := finished_run(config.machine.out, "fit-stopping", config, resume=config.machine.resume):
        return finished
    device, o = choose_device(config.machine.device), config.optimisation
    data = load(Source(**trained.config["source"]))
    network, T, _, path = load_attention(trained, device)
    if T < 2:
        raise UserError(f"model={config.model} looks once: train it with glimpses=2 or more to stop it earlier")
    fitted, held = _halves(data, o.seed)
    run = open_run(config.machine.out, "fit-stopping", config, resume=config.machine.resume)
    draws = chance(o.seed, 13, device=device)
    row = method(trained.config["method"])
    looks = partial(chooser, row, network.grid, generator=draws, path=path)
    record = partial(_record, network, data, T=T)
    greedy, sampled = record(fitted, choose=looks()), record(fitted, choose=looks(policy=sampling(draws)))
    known = Record(*(torch.cat(both) for both in zip(greedy, sampled, strict=True)))
    unknown = record(held, choose=looks())
    torch.manual_seed(o.seed)
    heads = StoppingHeads(glimpses=T, costs=len(config.costs)).to(device)
    with ticking("stopping", len(OBJECTIVES) * o.iterations, tick) as report:
        for number, name in enumerate(OBJECTIVES):
            done = after(number * o.iterations, name, report)
            _fit_head(name, heads, known, unknown, config=config, device=device, tick=done)
    save_stopping(run, heads, costs=config.costs, of=trained)
    macs = macs_by_rule(
        macs_by_glimpse(network, channels=data.images.shape[1], glimpses=T, policy=row.policy != "none"),
        answer_macs=network.classifier.weight.numel(),
        head_macs=heads.macs,
    )
    curves = _curves(heads, unknown, costs=config.costs, macs=macs, generator=chance(o.seed, 14))
    run.save_json("results.json", curves)
    run.finish(device=str(device), inputs={str(config.model): file_hash(config.model / "model.safetensors")})
    return run


def _halves(data: ImageSet, seed: int) -> tuple[Int[Tensor, " n"], Int[Tensor, " m"]]:
    """Validation images to fit to, and to hold out; by class and by group. Too few to part serve as both."""
    val = (data.split == SPLITS.index("val")).numpy()
    out = cut(val, data.labels.numpy(), groups=data.groups.numpy(), share=HELD_OUT, seed=seed)
    fit, held = (val & ~out, out) if out.any() else (val, val)
    return torch.from_numpy(fit.nonzero()[0]), torch.from_numpy(held.nonzero()[0])


def _record(network: HardAttention, data: ImageSet, images: Int[Tensor, " n"], *, T: int, choose: Chooser) -> Record:
    device = network.baseline.weight.device
    seen = look_at_all(network, data.images.to(device), images.to(device), glimpses=T, choose=choose)
    return Record(seen.class_logits, data.labels[images].to(device))


class Lesson(NamedTuple):
    """What there is to learn of n images, whatever the head."""

    told: Float[Tensor, "n T f"]
    entropy_gain: Float[Tensor, "n G K"]
    accuracy_gain: Float[Tensor, "n G K"]
    label_log_probs: Float[Tensor, "n T"]
    right: Bool[Tensor, "n T"]


def _lesson(heads: StoppingHeads, record: Record) -> Lesson:
    log_probs, T = record.class_logits.log_softmax(-1), record.class_logits.shape[1]
    right = log_probs.argmax(-1) == record.labels[:, None]
    return Lesson(
        heads.features(record.class_logits, torch.arange(1, T + 1, device=right.device)),
        gains_ahead(-entropy(log_probs)),
        gains_ahead(right.float()),
        log_probs.gather(-1, record.labels[:, None, None].expand(-1, T, 1))[..., 0],
        right,
    )


Objective = Callable[[Float[Tensor, "n T k"], Lesson, Float[Tensor, " K"], Generator | None], Float[Tensor, ""]]
"""(what a head says, lesson, costs, chance) → its loss; without chance, as a validation wants it, in expectation."""


def _entropy_gain(said: Tensor, lesson: Lesson, costs: Tensor, generator: Generator | None) -> Tensor:
    return _error(said, lesson.entropy_gain)


def _accuracy_gain(said: Tensor, lesson: Lesson, costs: Tensor, generator: Generator | None) -> Tensor:
    return _error(said, lesson.accuracy_gain)


def _error(said: Float[Tensor, "n T K"], gains: Float[Tensor, "n G K"]) -> Float[Tensor, ""]:
    """Mean square over the horizons that are within reach."""
    known = within_reach(said.shape[1]).to(said.device).expand_as(gains)
    return F.mse_loss(said[:, :-1][known], gains[known])


def _act(said: Tensor, lesson: Lesson, costs: Tensor, generator: Generator | None) -> Tensor:
    return act_loss(said.sigmoid().mT, lesson.label_log_probs[:, None], costs).mean()


def _stochastic(said: Tensor, lesson: Lesson, costs: Tensor, generator: Generator | None) -> Tensor:
    t = torch.arange(1, said.shape[1] + 1, device=said.device)
    rewards = lesson.right[:, None].float() - costs[:, None] * t
    if generator is None:
        return -(stop_log_probs(said.mT).exp() * rewards).sum(-1).mean()
    return stochastic_loss(said.mT, stop_sampled(said.mT, generator), rewards).mean()


OBJECTIVES: dict[str, Objective] = {
    "entropy_gain": _entropy_gain,
    "accuracy_gain": _accuracy_gain,
    "act": _act,
    "stochastic": _stochastic,
}
"""Of each of the `StoppingHeads`, by name."""


def _fit_head(
    name: str,
    heads: StoppingHeads,
    known: Record,
    unknown: Record,
    *,
    config: FitStopping,
    device: torch.device,
    tick: Tick,
) -> None:
    """Train one head. In its log, ``nll_nats`` is what `fit` calls the figure that counts: the head's own loss."""
    run = open_run(config.machine.out / name, "fit-stopping", config, resume=True)
    head, objective, lesson, test = (
        heads.get_submodule(name),
        OBJECTIVES[name],
        _lesson(heads, known),
        _lesson(heads, unknown),
    )
    if run.complete:
        head.load_state_dict(run.load_tensors("best"))
        return
    costs = torch.tensor(config.costs, device=device)

    def loss(batch: Int[Tensor, " b"], generator: Generator) -> Tensor:
        drawn = Lesson(*(column[batch] for column in lesson))
        return objective(head(drawn.told), drawn, costs, generator)

    fit(
        head,
        run,
        loss=loss,
        validate=lambda: {"nll_nats": objective(head(test.told), test, costs, None).item()},
        examples=len(known.labels),
        optimisation=config.optimisation,
        device=device,
        tick=tick,
    )
    run.finish()


def _curves(
    heads: StoppingHeads,
    held: Record,
    *,
    costs: tuple[float, ...],
    macs: dict[str, list[int]],
    generator: Generator,
) -> dict[str, Curve]:
    with torch.inference_mode():
        said = heads(held.class_logits)
    outlook = Outlook(*(column.cpu() for column in (held.class_logits.log_softmax(-1), *said)))
    thresholds = choose_thresholds(outlook)
    found = stop_by_every_rule(outlook, held.labels.cpu(), thresholds=thresholds, costs=costs, generator=generator)
    return {rule: curve(stops, macs[rule]) for rule, stops in found.items()}
