"""Stage evaluate: record every trained network on the test split, then score all records into results.json.

Of each network the cells and class log-probabilities of every test image and glimpse are kept; results.json is
computed from these records and from the logs of the runs. The posterior is scored at random and at chosen locations,
because a design suffers from its over-confidence at the chosen ones (the optimiser's curse).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from nogs.attention.choosers import sampling
from nogs.attention.classify import look_at_all
from nogs.attention.gain import greatest_gains
from nogs.attention.methods import GAIN_MAPS, chooser, method
from nogs.completion.bank import load_bank
from nogs.completion.retrieval import Retrieval
from nogs.config.groups import RetrievalOptions, Source
from nogs.config.stages import Evaluate
from nogs.data import ImageSet, load
from nogs.data.pixels import Pixels
from nogs.evaluation.cost import macs_by_glimpse, parts_of_glimpse
from nogs.evaluation.examples import examples, posterior_log_probs
from nogs.evaluation.inputs import check_alike, halting_runs, seconds_before, stopping_runs
from nogs.evaluation.joint_act import JointNetwork, joint_act
from nogs.evaluation.pictures import headline, look_shares, single_images
from nogs.evaluation.records import NetworkRecord
from nogs.evaluation.results import Evaluated, results_of
from nogs.evaluation.schema import PosteriorScores, SequenceScores
from nogs.evaluation.scores import ByGlimpse, scores_by_glimpse
from nogs.evaluation.steps import record_steps
from nogs.evaluation.stopping import StoppedNetwork
from nogs.evaluation.thresholds import by_threshold
from nogs.evaluation.typed_json import to_json
from nogs.glimpses.fovea import pixels_read_share
from nogs.glimpses.grid import Grid
from nogs.posterior.protocol import Posterior
from nogs.runs.device import chance, choose_device
from nogs.runs.directory import RunDirectory, finished_run, open_run, read_run
from nogs.runs.progress import Tick, ticking
from nogs.sequences.table import Sequences, cells_of_another, load_sequences, on_labelled_images
from nogs.specs import HaltingSpec, HardAttentionSpec, PosteriorSpec
from nogs.stopping.curves import THRESHOLDED, Outlook, macs_by_rule, recorded, stop_by_every_rule
from nogs.weights import load_halting, load_network, load_stopping, read_spec

ANSWERS = 8
"""Test images whose answers are shown one by one."""


class Design(NamedTuple):
    """The search and the posterior that are evaluated; the posterior is of one label."""

    searched: RunDirectory
    fitted: RunDirectory
    posterior: Posterior
    sequences: Sequences


def evaluate(config: Evaluate, tick: Tick | None = None) -> RunDirectory:
    """Write a record of each model, the tensors that figures need, and results.json."""
    trained = [read_run(path, "train") for path in config.models]
    searched = read_run(config.sequences, "search") if config.sequences else None
    fitted = read_run(Path(searched.config["posterior"]), "fit-posterior") if searched else None
    check_alike(trained, searched, fitted)
    fits = stopping_runs(config.stopping, trained)
    joint = halting_runs(config.halting, fits)
    if finished := finished_run(config.machine.out, "evaluate", config, resume=config.machine.resume):
        return finished
    device = choose_device(config.machine.device)
    source = Source(**trained[0].config["source"])
    data = load(source)
    run = open_run(config.machine.out, "evaluate", config, resume=config.machine.resume)
    evaluated: dict[str, list[Evaluated]] = {}
    with ticking("evaluate", len(trained) + 2, tick) as report, torch.inference_mode():
        pixels = data.images.to(device)
        for number, model in enumerate(trained):
            name, seed = model.config["method"], model.config["optimisation"]["seed"]
            report(number, f"{name} seed {seed}")
            rivals = joint.get(seed, []) if model.path in fits else []
            one = _evaluate(run, model, data, pixels, stopping=fits.get(model.path), joint=rivals)
            evaluated.setdefault(name, []).append(one)
        posterior_scores, sequence_scores, step = None, None, len(trained) + 1
        designed: list[Int[Tensor, "n T"]] = []
        examples_shown = torch.empty(0, dtype=torch.long)
        if searched and fitted:
            report(len(trained), "the posterior")
            design = _design(searched, fitted, device, task=source.task)
            posterior_scores, sequence_scores = _score_design(design, data)
            report(step, "examples")
            examples_shown = _save_examples(
                run, design, data, count=config.examples, tick=lambda _, note: report(step, note)
            )
            designed.append(design.sequences.cells)
        grid = read_spec(trained[0], "model", kind=HardAttentionSpec).grid
        shown = _save_pictures(run, evaluated, designed, data, grid=grid)
        first = {name: next(run for run in trained if run.config["method"] == name) for name in evaluated}
        steps, meta = record_steps(
            evaluated,
            data,
            pixels,
            network_of=lambda name: load_network(first[name], "model", kind=HardAttentionSpec, device=device)[1],
            designed=examples_shown,
            about=shown,
            count=ANSWERS,
        )
        run.save_tensors("steps", steps, methods=meta)
        report(len(trained) + 2, "")
    results = results_of(evaluated, data, source=source.data, posterior=posterior_scores, sequences=sequence_scores)
    run.save_json("results.json", to_json(results))
    run.finish(
        device=str(device),
        inputs={
            str(run.path): run.hash_of("model.safetensors") for run in chain(trained, fits.values(), *joint.values())
        },
    )
    return run


def _evaluate(
    run: RunDirectory,
    model: RunDirectory,
    data: ImageSet,
    pixels: Pixels,
    *,
    stopping: RunDirectory | None,
    joint: Sequence[RunDirectory],
) -> Evaluated:
    """Record one network on the test split, in a file of its name.

    ``stopping``: its fit-stopping run. ``joint``: train runs of method act, which are compared with these heads.
    """
    device, test, channels = pixels.device, data.members("test"), data.images.shape[1]
    spec, network = load_network(model, "model", kind=HardAttentionSpec, device=device)
    T = spec.glimpses
    row, seed, labels = method(model.config["method"]), model.config["optimisation"]["seed"], data.labels[test]
    has_policy = row.policy != "none"
    draws = chance(seed, 7, device=device)
    choose = chooser(row, network.grid, generator=draws, path=spec.path)
    halting = load_halting(model, "halting", device=device)
    seen = look_at_all(network, pixels, test.to(device), glimpses=T, choose=choose, halting=halting)
    cells, log_probs = seen.cells.cpu(), seen.class_logits.log_softmax(-1).cpu()
    sampled_log_probs = None
    if has_policy:  # each policy has the weights of its own best validation
        _, sampled = load_network(model, "model-sampled", kind=HardAttentionSpec, device=device)
        answers = look_at_all(
            sampled,
            pixels,
            test.to(device),
            glimpses=T,
            choose=sampling(draws),
            halting=load_halting(model, "halting-sampled", device=device),
        )
        sampled_log_probs = answers.class_logits[:, -1].log_softmax(-1).cpu()
    record = NetworkRecord(
        seed,
        cells,
        log_probs,
        sampled_log_probs,
        pixels_read_share=tuple(pixels_read_share(cells, network.grid, overview_px=spec.overview_px).mean(0).tolist()),
        adaptive=row.looks != "random",
        macs_by_glimpse=tuple(macs_by_glimpse(network, channels=channels, glimpses=T, policy=has_policy)),
        macs_by_part=parts_of_glimpse(network, channels=channels, policy=has_policy),
        mean_glimpses=seen.steps.float().mean().item() if halting is not None else None,
    )
    kept = {"cells": cells, "log_probs": log_probs, "images": test, "labels": labels}
    map_gain = greatest_gains(seen.peak_logits, seen.class_logits).cpu() if row.policy in GAIN_MAPS else None
    heads = load_stopping(stopping, trained=model, device=device) if stopping else None
    macs = macs_by_rule(
        record.macs_by_glimpse,
        answer_macs=network.classifier.weight.numel(),
        head_macs=heads.macs if heads else 0,
        locator_macs=record.macs_by_part.get("locator", 0),
    )
    thresholded = by_threshold(log_probs, labels, map_gain=map_gain, macs=macs)
    stopped = None
    if stopping and heads:
        outputs = (output.cpu() for output in heads(log_probs.to(device)))
        outlook = Outlook(log_probs, *outputs)._replace(map_gain=map_gain)
        kept |= recorded(outlook)
        stopped = _stopped(stopping, outlook, labels, macs, generator=chance(seed, 15))
        if joint:
            networks = [_joint_network(of_cost, device) for of_cost in joint]
            rival = joint_act(networks, pixels, test.to(device), labels, glimpses=T)
            stopped = stopped._replace(
                stops={**stopped.stops, "act_joint": rival.stops}, macs={**stopped.macs, "act_joint": rival.macs}
            )
    run.save_tensors(f"{model.config['method']}-seed{seed}", kept)
    return Evaluated(record, model.rows(), seconds_before(model), thresholded, stopped)


def _stopped(
    stopping: RunDirectory,
    outlook: Outlook,
    labels: Int[Tensor, " n"],
    macs: Mapping[str, Sequence[int]],
    *,
    generator: Generator,
) -> StoppedNetwork:
    """Stop one network by every rule, at the thresholds that a fit-stopping run chose on other images."""
    held_out = stopping.load_json("results.json")
    stops = stop_by_every_rule(
        outlook,
        labels,
        thresholds={rule: [point[0] for point in held_out[rule]] for rule in THRESHOLDED if rule in held_out},
        costs=stopping.config["costs"],
        generator=generator,
    )
    return StoppedNetwork(stops, macs, tuple(point[2] for point in held_out["fixed"]))


def _joint_network(run: RunDirectory, device: torch.device) -> JointNetwork:
    _, network = load_network(run, "model", kind=HardAttentionSpec, device=device)
    spec, unit = load_network(run, "halting", kind=HaltingSpec, device=device)
    return JointNetwork(spec.cost, network, unit)


def _design(searched: RunDirectory, fitted: RunDirectory, device: torch.device, *, task: str | None) -> Design:
    """Load the search, with its posterior narrowed to ``task``."""
    spec, posterior = load_network(fitted, "model", kind=PosteriorSpec, device=device)
    of_label = posterior.for_label(spec.classes.index(str(task))) if spec.multilabel else posterior
    return Design(searched, fitted, of_label, load_sequences(searched))


def _score_design(design: Design, data: ImageSet) -> tuple[PosteriorScores, SequenceScores]:
    """Score the posterior on random locations (test split), and along designed, shuffled and random sequences.

    Images with sequences are training images that the posterior was not fitted to, or stand for unlabelled ones
    (`on_labelled_images`).
    """
    posterior = design.posterior
    sequences = on_labelled_images(design.sequences, data, generator=chance(18))
    T, L, test, images = sequences.cells.shape[1], len(posterior.grid), data.members("test"), sequences.images

    def along(images: Tensor, cells: Tensor) -> ByGlimpse:
        return scores_by_glimpse(posterior_log_probs(posterior, data, images, cells), data.labels[images])

    at_random = along(test, torch.randint(L, (len(test), T), generator=chance(8)))
    designed = along(images, sequences.cells)
    shuffled = along(images, cells_of_another(sequences, generator=chance(17)))
    random = along(images, torch.randint(L, tuple(sequences.cells.shape), generator=chance(9)))
    rows, useful = design.searched.rows(), design.searched.load_json("usefulness.json")
    effective = design.sequences.effective
    assert effective is not None  # a search keeps its maps
    return (
        PosteriorScores(design.fitted.rows()[-1]["wall_seconds"], **at_random.named("")),
        SequenceScores(
            count=len(design.sequences.images),
            seconds=sum(row["seconds"] for row in rows),
            posterior_evaluations=sum(row["posterior_evaluations"] for row in rows),
            effective_sample_size_by_glimpse=tuple(effective.mean(0).tolist()[1:]),
            chance_nll_nats=useful["chance_nll_nats"],
            worth=useful["worth"],
            **designed.named(""),
            **shuffled.named("shuffled_"),
            **random.named("random_"),
        ),
    )


def _save_examples(run: RunDirectory, design: Design, data: ImageSet, *, count: int, tick: Tick) -> Tensor:
    """Write the designs of ``count`` test images as tensors; return the images."""
    posterior, how = design.posterior, design.searched.config
    bank = load_bank(read_run(Path(how["bank"]), "build-bank"), data, tick)
    designed = examples(
        posterior,
        Retrieval(bank, posterior.grid, RetrievalOptions(**how["retrieval"])),
        data,
        design.sequences,
        count=count,
        criterion=how["criterion"],
        pooling=how["pooling"],
    )
    run.save_tensors("examples", designed, criterion=how["criterion"], pooling=how["pooling"])
    return designed["images"]


def _save_pictures(
    run: RunDirectory,
    evaluated: Mapping[str, Sequence[Evaluated]],
    designed: Sequence[Int[Tensor, "n T"]],
    data: ImageSet,
    *,
    grid: Grid,
) -> str:
    """Write where methods and ``designed`` sequences look, and single test images with their answers, as tensors.

    Returns the method whose answers they are.
    """
    cells = {name: [one.record.cells for one in seeds] for name, seeds in evaluated.items()}
    if designed:
        cells["designed"] = list(designed)
    run.save_tensors("looks", {name: look_shares(of_seeds, len(grid)) for name, of_seeds in cells.items()})
    shown = headline(evaluated) or next(iter(evaluated))
    first = evaluated[shown][0].record
    pictures = single_images(first, data, count=ANSWERS)
    run.save_tensors("answers", pictures, method=shown, seed=first.seed, grid=dataclasses.asdict(grid))
    return shown
