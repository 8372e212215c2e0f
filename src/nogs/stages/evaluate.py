"""Stage evaluate: record what every trained network sees and says of the test split, then sum it up.

Evaluate records, others decide: per image and step the cells and class log-probabilities of the greedy policy
are kept, and results.json is post-processing. The posterior is judged on random and on chosen locations, for
its over-confidence on the latter is what a design suffers from (the optimiser's curse).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int, UInt8
from torch import Generator, Tensor
from torch.nn import functional as F

from nogs.attention.choosers import sampling
from nogs.attention.classify import look_at_all
from nogs.attention.methods import chooser, method
from nogs.completion.bank import load_bank
from nogs.completion.retrieval import Retrieval
from nogs.config.groups import RetrievalOptions, Source
from nogs.config.stages import Evaluate
from nogs.data import ImageSet, load
from nogs.errors import UserError
from nogs.evaluation.cost import macs_by_glimpse, parts_of_glimpse
from nogs.evaluation.examples import examples, features_along, posterior_log_probs
from nogs.evaluation.scores import accuracy, convergence, scores, scores_by_glimpse, target_nll
from nogs.evaluation.seconds import end_to_end, wall_seconds
from nogs.glimpses.fovea import pixels_read_share
from nogs.information import empirical_entropy
from nogs.posterior.protocol import Posterior
from nogs.runs.device import chance, choose_device
from nogs.runs.directory import RunDirectory, finished_run, open_run, read_run
from nogs.runs.identity import first_difference
from nogs.runs.progress import Tick, ticking
from nogs.sequences.table import Sequences, cells_of_another, load_sequences
from nogs.specs import HardAttentionSpec, PosteriorSpec
from nogs.stopping.curves import THRESHOLDED, Outlook, Stops, macs_by_rule, recorded, stop_by_every_rule, summary
from nogs.weights import load_halting, load_network, load_stopping


def evaluate(config: Evaluate, tick: Tick | None = None) -> RunDirectory:
    """Write a record a model, examples.safetensors, and results.json."""
    trained = [read_run(path, "train") for path in config.models]
    searched = read_run(config.sequences, "search")
    fitted = read_run(Path(searched.config["posterior"]), "fit-posterior")
    _check_alike(trained, searched, fitted)
    fits = _stopping_runs(config.stopping, trained)
    if finished := finished_run(config.machine.out, "evaluate", config, resume=config.machine.resume):
        return finished
    device = choose_device(config.machine.device)
    source = Source(**trained[0].config["source"])
    data = load(source)
    run = open_run(config.machine.out, "evaluate", config, resume=config.machine.resume)
    judged: dict[str, list[Judged]] = {}
    with ticking("evaluate", len(trained) + 2, tick) as report, torch.inference_mode():
        pixels = data.images.to(device)
        for number, model in enumerate(trained):
            name = model.config["method"]
            report(number, f"{name} seed {model.config['optimisation']['seed']}")
            judged.setdefault(name, []).append(_judge_network(run, model, data, pixels, stopping=fits.get(model.path)))
        report(len(trained), "the posterior")
        spec, fitted_posterior = load_network(fitted, "model", kind=PosteriorSpec, device=device)
        sequences = load_sequences(searched)
        run.save_tensors("states", features_along(fitted_posterior, data, sequences))
        posterior: Posterior = fitted_posterior
        if spec.multilabel:
            posterior = fitted_posterior.for_label(spec.classes.index(str(source.task)))
        places = _judge_posterior(posterior, data, sequences)
        report(len(trained) + 1, "examples")
        how = searched.config
        bank = load_bank(
            read_run(Path(how["bank"]), "build-bank"), data, lambda done, note: report(len(trained) + 1, note)
        )
        shown = examples(
            posterior,
            Retrieval(bank, posterior.grid, RetrievalOptions(**how["retrieval"])),
            data,
            sequences,
            count=config.examples,
            criterion=how["criterion"],
            pooling=how["pooling"],
        )
        run.save_tensors("examples", shown, grid=dataclasses.asdict(posterior.grid))
        report(len(trained) + 2, "")
    logs = {name: [one.log for one in seeds] for name, seeds in judged.items()}
    target = target_nll(logs["ram"]) if "ram" in logs else None
    stopped = [one.stopped for seeds in judged.values() for one in seeds if one.stopped]
    run.save_json(
        "results.json",
        {
            "schema": 1,
            "data": source.data,
            "task": source.task,
            "classes": data.classes,
            "target_nll_nats": target,
            **_design_figures(fitted, searched, sequences, places),
            "methods": {
                name: {**_columns([one.row for one in seeds]), **convergence(logs[name], target)}
                for name, seeds in judged.items()
            },
            "end_to_end": end_to_end(
                logs, {name: [one.before for one in seeds] for name, seeds in judged.items()}, target
            ),
            **_stopping_figures(stopped),
        },
    )
    run.finish(
        device=str(device),
        inputs={str(run.path): run.hash_of("model.safetensors") for run in (*trained, *fits.values())},
    )
    return run


class Stopped(NamedTuple):
    """Where every rule stops each test image, the multiply-adds that it then spends after t = 1..T glimpses, and the
    accuracy after each on the validation images that were held out from the heads.
    """

    stops: dict[str, Stops]
    spent: dict[str, list[int]]
    held_out_accuracy: list[float]


class Judged(NamedTuple):
    """What one trained network comes to: its row of results.json, its log, and the seconds that came before it."""

    row: dict[str, Any]
    log: list[dict[str, Any]]
    before: dict[str, float] | None
    stopped: Stopped | None


def _judge_network(
    run: RunDirectory,
    model: RunDirectory,
    data: ImageSet,
    pixels: UInt8[Tensor, "N c H H"],
    *,
    stopping: RunDirectory | None,
) -> Judged:
    """Record one network on the test split, in a file of its name, and judge it by that record."""
    device, test, channels = pixels.device, data.members("test"), data.images.shape[1]
    spec, network = load_network(model, "model", kind=HardAttentionSpec, device=device)
    T = spec.glimpses
    name, seed, labels = model.config["method"], model.config["optimisation"]["seed"], data.labels[test]
    has_policy = method(name).policy != "none"
    macs = macs_by_glimpse(network, channels=channels, glimpses=T, policy=has_policy)
    draws = chance(seed, 7, device=device)
    choose = chooser(method(name), network.grid, generator=draws, path=spec.path)
    halting = load_halting(model, "halting", device=device)
    seen = look_at_all(network, pixels, test.to(device), glimpses=T, choose=choose, halting=halting)
    log_probs = seen.class_logits.log_softmax(-1).cpu()
    kept, stopped = {"cells": seen.cells, "log_probs": log_probs, "images": test, "labels": labels}, None
    if stopping:
        heads = load_stopping(stopping, trained=model, device=device)
        outlook = Outlook(log_probs, *(said.cpu() for said in heads(log_probs.to(device))))
        kept |= recorded(outlook)
        answer_macs = network.classifier.weight.numel()
        held_out = stopping.load_json("results.json")
        stopped = Stopped(
            stop_by_every_rule(
                outlook,
                labels,
                thresholds={rule: [row[0] for row in held_out[rule]] for rule in THRESHOLDED},
                costs=stopping.config["costs"],
                generator=chance(seed, 15),
            ),
            macs_by_rule(macs, answer_macs=answer_macs, head_macs=heads.macs),
            [row[2] for row in held_out["fixed"]],
        )
    run.save_tensors(f"{name}-seed{seed}", kept)
    row = {
        "seeds": seed,
        **scores_by_glimpse(log_probs, labels),
        **(_sampled_scores(model, pixels, test, labels, draws) if model.has("model-sampled") else {}),
        **({"mean_glimpses": seen.steps.float().mean().item()} if halting is not None else {}),
        "macs_by_glimpse": macs,
        "adaptivity_nats_by_glimpse": _adaptivity(name, seen.cells),
        "pixels_read_share": pixels_read_share(seen.cells, network.grid).mean().item(),
        "macs_by_part": parts_of_glimpse(network, channels=channels, policy=has_policy),
    }
    return Judged(row, model.rows(), _came_before(model), stopped)


def _adaptivity(name: str, cells: Int[Tensor, "n T"]) -> list[float]:
    """Mutual information in nats between test image and cell, by glimpse; 0 for cells drawn apart from the image."""
    T = cells.shape[1]
    return [0.0] * T if method(name).looks == "random" else empirical_entropy(cells.cpu()).tolist()


def _sampled_scores(
    model: RunDirectory,
    pixels: UInt8[Tensor, "N c H H"],
    test: Int[Tensor, " n"],
    labels: Int[Tensor, " n"],
    generator: Generator,
) -> dict[str, float]:
    """Return the scores of the sampled policy, on the weights that were best for it in validation."""
    spec, network = load_network(model, "model-sampled", kind=HardAttentionSpec, device=pixels.device)
    halting = load_halting(model, "halting-sampled", device=pixels.device)
    seen = look_at_all(
        network,
        pixels,
        test.to(pixels.device),
        glimpses=spec.glimpses,
        choose=sampling(generator),
        halting=halting,
    )
    log_probs = seen.class_logits[:, -1].log_softmax(-1).cpu()
    return {
        "sampled_test_accuracy": accuracy(log_probs, labels),
        "sampled_test_balanced_accuracy": scores(log_probs, labels)["test_balanced_accuracy"],
        "sampled_test_nll_nats": F.nll_loss(log_probs, labels).item(),
    }


def _stopping_figures(stopped: list[Stopped]) -> dict[str, Any]:
    if not stopped:
        return {}
    return {
        **summary([one.stops for one in stopped], [one.spent for one in stopped], chance(16)),
        "held_out_accuracy_by_glimpse": [one.held_out_accuracy for one in stopped],
    }


def _columns(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Lists over seeds; costs, which are the same for all seeds, once."""
    return {key: value if key.startswith("macs_by_") else [row[key] for row in rows] for key, value in rows[0].items()}


def _came_before(trained: RunDirectory) -> dict[str, float] | None:
    """Seconds of each run that a training stands on; None where they are not known: made elsewhere, or gone."""
    if method(trained.config["method"]).sequences == "none":
        return {}
    learned = RunDirectory(Path(trained.config["sequences"]))
    how = learned.config if learned.complete else {"stage": "gone"}
    if how["stage"] == "search":
        paths = {"posterior": how["posterior"], "bank": how["bank"], "search": learned.path}
    elif how["stage"] == "record":
        paths = {"teacher": how["model"], "recording": learned.path}
    else:
        return None
    runs = {part: RunDirectory(Path(path)) for part, path in paths.items()}
    if not all(run.complete for run in runs.values()):
        return None
    return {part: wall_seconds(run.rows(), run.provenance) for part, run in runs.items()}


def _check_alike(trained: list[RunDirectory], searched: RunDirectory, fitted: RunDirectory) -> None:
    """Everything is judged on the same images and one task, and each record has a name of its own."""
    if not trained:
        raise UserError("`models`: give at least one run of `nogs train`")
    task = searched.config["task"] or fitted.config["source"]["task"]
    names: dict[tuple[str, int], Path] = {}
    for run in trained:
        if difference := first_difference({**fitted.config["source"], "task": task}, run.config["source"]):
            raise UserError(f"models={run.path} was trained with another {difference} than `sequences`")
        key = run.config["method"], run.config["optimisation"]["seed"]
        if key in names:
            raise UserError(f"models={names[key]} and {run.path} are both {key[0]} with seed {key[1]}: give one")
        names[key] = run.path


def _stopping_runs(paths: tuple[Path, ...], trained: list[RunDirectory]) -> dict[Path, RunDirectory]:
    """The fit-stopping run of each train run that has one: of one method, for one curve speaks of one method."""
    networks = {run.hash_of("model.safetensors"): run for run in trained} if paths else {}
    found: dict[Path, RunDirectory] = {}
    for path in paths:
        fitted = read_run(path, "fit-stopping")
        meta = fitted.load_metadata("model")
        if meta["network"] not in networks:
            raise UserError(f"stopping={path} was fitted on {fitted.config['model']}: add that to `models`")
        found[networks[meta["network"]].path] = fitted
    methods = {run.config["method"] for run in trained if run.path in found}
    if len(methods) > 1:
        raise UserError(f"`stopping` has runs on {' and '.join(sorted(methods))}: give those of one method")
    if len({tuple(run.config["costs"]) for run in found.values()}) > 1:
        raise UserError("`stopping` has runs with different `costs`: fit all seeds with the same")
    return found


def _judge_posterior(posterior: Posterior, data: ImageSet, sequences: Sequences) -> dict[str, dict[str, list[float]]]:
    """The posterior on random locations (test split), and along sequences (their images).

    Sequences are compared with the sequence of another image and with random locations. Images with sequences are
    training images that the posterior was not fitted to.
    """
    from torchmetrics.functional.classification import multiclass_calibration_error

    T, L, test = sequences.cells.shape[1], len(posterior.grid), data.members("test")
    places = {
        "random": (test, torch.randint(L, (len(test), T), generator=chance(8))),
        "designed": (sequences.images, sequences.cells),
        "shuffled": (sequences.images, cells_of_another(sequences, generator=chance(17))),
        "designed_random": (sequences.images, torch.randint(L, tuple(sequences.cells.shape), generator=chance(9))),
    }
    judged: dict[str, dict[str, list[float]]] = {}
    for name, (images, cells) in places.items():
        log_probs = posterior_log_probs(posterior, data, images, cells)
        labels = data.labels[images]
        judged[name] = {
            "nll_nats_by_glimpse": [-log_probs[:, t].gather(1, labels[:, None]).mean().item() for t in range(T)],
            "accuracy_by_glimpse": [accuracy(log_probs[:, t], labels) for t in range(T)],
            "calibration_error_by_glimpse": [
                multiclass_calibration_error(log_probs[:, t].exp(), labels, log_probs.shape[-1]).item()
                for t in range(T)
            ],
        }
    return judged


def _design_figures(
    fitted: RunDirectory,
    searched: RunDirectory,
    sequences: Sequences,
    places: dict[str, dict[str, list[float]]],
) -> dict[str, Any]:
    """The parts of results.json on the posterior and on the sequences."""
    assert sequences.effective is not None  # a search leaves its maps
    useful = searched.load_json("usefulness.json")
    return {
        "posterior": {"seconds": fitted.rows()[-1]["wall_seconds"], **places["random"]},
        "sequences": {
            "count": len(sequences.images),
            "seconds": sum(row["seconds"] for row in searched.rows()),
            "posterior_evaluations": sum(row["posterior_evaluations"] for row in searched.rows()),
            **places["designed"],
            **{f"shuffled_{key}": figures for key, figures in places["shuffled"].items()},
            **{f"random_{key}": figures for key, figures in places["designed_random"].items()},
            "effective_sample_size_by_glimpse": sequences.effective.mean(0).tolist()[1:],
            "chance_nll_nats": useful["chance_nll_nats"],
            "worth": useful["worth"],
        },
    }
