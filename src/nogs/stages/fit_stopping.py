"""Stage fit-stopping: fit stopping heads to the recorded predictions of a trained, frozen network.

The network runs once with its greedy policy, and once with the sampled policy for more states. The heads are then
fitted to these records alone, each in a training of its own, because one needs ten times the iterations of another.
The network runs on the validation split: on its training images an overfitted network is certain after one glimpse,
and its gains there differ from those on new images. A part of the split, by group, is held out. It decides when a
training stops, and the thresholds are chosen on it.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from nogs.attention.choosers import Chooser, sampling
from nogs.attention.classify import look_at_all
from nogs.attention.gain import greatest_gains
from nogs.attention.methods import GAIN_MAPS, chooser, method
from nogs.attention.network import HardAttention
from nogs.config.groups import Source
from nogs.config.stages import FitStopping
from nogs.data import ImageSet, load
from nogs.data.imageset import SPLITS
from nogs.data.splits import cut
from nogs.errors import UserError
from nogs.evaluation.cost import macs_by_glimpse, parts_of_glimpse
from nogs.runs.device import chance, choose_device
from nogs.runs.directory import RunDirectory, finished_run, open_run, read_run
from nogs.runs.progress import Tick, after, ticking
from nogs.specs import HardAttentionSpec, StoppingSpec
from nogs.stopping.curves import Curve, Outlook, choose_thresholds, curve, macs_by_rule, stop_by_every_rule
from nogs.stopping.heads import StoppingHeads
from nogs.stopping.objectives import OBJECTIVES, Targets, stopping_targets
from nogs.training.loop import fit
from nogs.weights import load_network, save_network

HELD_OUT = 1 / 3


class Predictions(NamedTuple):
    """Class logits of the frozen network after each glimpse, its greatest location logits before each, and labels."""

    class_logits: Float[Tensor, "n T C"]
    peak_logits: Float[Tensor, "n T"]
    labels: Int[Tensor, " n"]


def fit_stopping(config: FitStopping, tick: Tick | None = None) -> RunDirectory:
    """Write model.safetensors, and results.json: the curve of every rule on the held-out images.

    The training of each head is a run directory within, named after the head.
    """
    trained = read_run(config.model, "train")
    if finished := finished_run(config.machine.out, "fit-stopping", config, resume=config.machine.resume):
        return finished
    device, o = choose_device(config.machine.device), config.optimisation
    data = load(Source(**trained.config["source"]))
    spec, network = load_network(trained, "model", kind=HardAttentionSpec, device=device)
    T = spec.glimpses
    if T < 2:
        raise UserError(f"model={config.model} looks once: train it with glimpses=2 or more to stop it earlier")
    fitted, held = _halves(data, o.seed)
    run = open_run(config.machine.out, "fit-stopping", config, resume=config.machine.resume)
    draws = chance(o.seed, 13, device=device)
    row = method(trained.config["method"])
    looks = partial(chooser, row, network.grid, generator=draws, path=spec.path)
    record = partial(_record, network, data, T=T)
    greedy, sampled = record(fitted, choose=looks()), record(fitted, choose=looks(policy=sampling(draws)))
    fitting = Predictions(*(torch.cat(both) for both in zip(greedy, sampled, strict=True)))
    held_out = record(held, choose=looks())
    torch.manual_seed(o.seed)
    stopping = StoppingSpec(T, config.costs, trained.hash_of("model.safetensors"))
    heads = stopping.build().to(device)
    with ticking("stopping", len(OBJECTIVES) * o.iterations, tick) as report:
        for number, name in enumerate(OBJECTIVES):
            done = after(number * o.iterations, name, report)
            _fit_head(name, heads, fitting, held_out, config=config, device=device, tick=done)
    save_network(run, "model", heads, stopping)
    channels, policy = data.images.shape[1], row.policy != "none"
    macs = macs_by_rule(
        macs_by_glimpse(network, channels=channels, glimpses=T, policy=policy),
        answer_macs=network.classifier.weight.numel(),
        head_macs=heads.macs,
        locator_macs=parts_of_glimpse(network, channels=channels, policy=policy).get("locator", 0),
    )
    maps = row.policy in GAIN_MAPS
    curves = _curves(heads, held_out, maps=maps, costs=config.costs, macs=macs, generator=chance(o.seed, 14))
    run.save_json("results.json", curves)
    run.finish(device=str(device), inputs={str(config.model): trained.hash_of("model.safetensors")})
    return run


def _halves(data: ImageSet, seed: int) -> tuple[Int[Tensor, " n"], Int[Tensor, " m"]]:
    """Return the validation images to fit to and those to hold out, by class and by group.

    If there are too few to divide, all of them serve as both.
    """
    val = (data.split == SPLITS.index("val")).numpy()
    out = cut(val, data.labels.numpy(), groups=data.groups.numpy(), share=HELD_OUT, seed=seed)
    fit, held = (val & ~out, out) if out.any() else (val, val)
    return torch.from_numpy(fit.nonzero()[0]), torch.from_numpy(held.nonzero()[0])


def _record(
    network: HardAttention, data: ImageSet, images: Int[Tensor, " n"], *, T: int, choose: Chooser
) -> Predictions:
    device = network.baseline.weight.device
    looks = look_at_all(network, data.images.to(device), images.to(device), glimpses=T, choose=choose)
    return Predictions(looks.class_logits, looks.peak_logits, data.labels[images].to(device))


def _fit_head(
    name: str,
    heads: StoppingHeads,
    fitting: Predictions,
    held_out: Predictions,
    *,
    config: FitStopping,
    device: torch.device,
    tick: Tick,
) -> None:
    """Train the head ``name``. ``nll_nats`` in its log is its own loss, which the loop requires under that name."""
    run = open_run(config.machine.out / name, "fit-stopping", config, resume=True)
    head, objective = heads.get_submodule(name), OBJECTIVES[name]
    if run.complete:
        head.load_state_dict(run.load_tensors("best"))
        return
    costs = torch.tensor(config.costs, device=device)
    (features, targets), (held_features, held_targets) = (_inputs(heads, part) for part in (fitting, held_out))

    def loss(batch: Int[Tensor, " b"], generator: Generator) -> Tensor:
        return objective(head(features[batch]), Targets(*(column[batch] for column in targets)), costs, generator)

    fit(
        head,
        run,
        loss=loss,
        validate=lambda: {"nll_nats": objective(head(held_features), held_targets, costs, None).item()},
        examples=len(fitting.labels),
        optimisation=config.optimisation,
        device=device,
        tick=tick,
    )
    run.finish()


def _inputs(heads: StoppingHeads, predictions: Predictions) -> tuple[Float[Tensor, "n T f"], Targets]:
    """Return the features and the targets of the heads."""
    logits, _, labels = predictions
    t = torch.arange(1, logits.shape[1] + 1, device=logits.device)
    return heads.features(logits, t), stopping_targets(logits, labels)


def _curves(
    heads: StoppingHeads,
    held_out: Predictions,
    *,
    maps: bool,
    costs: tuple[float, ...],
    macs: dict[str, list[int]],
    generator: Generator,
) -> dict[str, Curve]:
    """Return the curve of every rule. ``maps``: whether the location head is a gain map."""
    with torch.inference_mode():
        outputs = heads(held_out.class_logits)
    outlook = Outlook(*(column.cpu() for column in (held_out.class_logits.log_softmax(-1), *outputs)))
    if maps:
        outlook = outlook._replace(map_gain=greatest_gains(held_out.peak_logits, held_out.class_logits).cpu())
    thresholds, labels = choose_thresholds(outlook), held_out.labels.cpu()
    stops = stop_by_every_rule(outlook, labels, thresholds=thresholds, costs=costs, generator=generator)
    return {rule: curve(stops[rule], macs[rule]) for rule in stops}
