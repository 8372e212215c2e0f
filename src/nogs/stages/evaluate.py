"""Stage evaluate: record what every trained network sees and says of the test split, then sum it up.

Evaluate records, others decide: per image and step the cells and class log-probabilities of the greedy policy
are kept, and results.json is post-processing. The posterior is judged on random and on chosen locations, for
its over-confidence on the latter is what a design suffers from (the optimiser's curse).
"""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from nogs.attention import Chooser, HardAttention, StoppingHeads, chooser, sampling
from nogs.completion.retrieval import Retrieval
from nogs.config import Evaluate, RetrievalOptions, Source
from nogs.cost import macs_by_glimpse, parts_of_glimpse
from nogs.curves import THRESHOLDED, Outlook, Stops, macs_by_rule, recorded, stop_by_every_rule, summary
from nogs.data import ImageSet, load
from nogs.device import chance, choose_device
from nogs.errors import UserError
from nogs.examples import examples, posterior_log_probs, states_along
from nogs.methods import method
from nogs.models import load_attention, load_bank, load_posterior, load_stopping
from nogs.posterior import LookaheadPosterior, Posterior
from nogs.progress import Tick, ticking
from nogs.results import convergence, scores, target_nll
from nogs.rundir import RunDirectory, file_hash, finished_run, first_difference, open_run, read_run
from nogs.sequences import Sequences, load_sequences

BATCH = 512


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
    test = data.members("test")
    with ticking("evaluate", len(trained) + 2, tick) as report, torch.inference_mode():
        by_method: dict[str, list[dict[str, Any]]] = {}
        logs: dict[str, list[list[dict[str, Any]]]] = {}
        stopped: list[dict[str, Stops]] = []
        spent: list[dict[str, list[int]]] = []
        for number, model in enumerate(trained):
            network, T, _ = load_attention(model, device)
            name, seed = model.config["method"], model.config["optimisation"]["seed"]
            report(number, f"{name} seed {seed}")
            macs = macs_by_glimpse(network, channels=data.images.shape[1], glimpses=T)
            draws = chance(seed, 7, device=device)
            looks = partial(chooser, method(name), network.grid, generator=draws)
            record = _record(network, data, test, T, looks(), device)
            said: dict[str, Tensor] = {}
            if fit_of := fits.get(model.path):
                heads = load_stopping(fit_of, device, of=model)
                said, stops = _stopped(heads, fit_of, record, labels=data.labels[test], seed=seed)
                stopped.append(stops)
                spent.append(macs_by_rule(macs, answer_macs=network.classifier.weight.numel(), head_macs=heads.macs))
            del record["states"]  # large, and all that is asked of them has been
            run.save_tensors(f"{name}-seed{seed}", {**record, **said, "images": test, "labels": data.labels[test]})
            drawn = _record(network, data, test, T, looks(policy=sampling(draws)), device)
            logs.setdefault(name, []).append(model.rows())
            by_method.setdefault(name, []).append(
                {
                    "seeds": seed,
                    **scores(record["log_probs"], data.labels[test]),
                    "sampled_test_accuracy": scores(drawn["log_probs"], data.labels[test])["test_accuracy"],
                    "macs_by_glimpse": macs,
                    "macs_by_part": parts_of_glimpse(network, channels=data.images.shape[1]),
                }
            )
        report(len(trained), "the posterior")
        posterior, sequences = load_posterior(fitted, device), load_sequences(searched)
        assert sequences.effective is not None  # a search leaves its maps
        label = fitted.load_metadata("model")["classes"].index(source.task) if posterior.multilabel else None
        judged = _judge(posterior, data, test, sequences, label, device)
        if isinstance(posterior, LookaheadPosterior):
            run.save_tensors("states", states_along(posterior, data, sequences, device))
        report(len(trained) + 1, "examples")
        how = searched.config
        bank = load_bank(read_run(Path(how["bank"]), "build-bank"), data)
        shown = examples(
            posterior,
            Retrieval(bank, posterior.grid, RetrievalOptions(**how["retrieval"])),
            data,
            sequences,
            count=config.examples,
            criterion=how["criterion"],
            pooling=how["pooling"],
            label=label,
            device=device,
        )
        run.save_tensors("examples", shown, grid=dataclasses.asdict(posterior.grid))
        report(len(trained) + 2, "")
    target = target_nll(logs["ram"]) if "ram" in logs else None
    run.save_json(
        "results.json",
        {
            "schema": 1,
            "data": source.data,
            "task": source.task,
            "classes": data.classes,
            "target_nll_nats": target,
            "posterior": {
                "seconds": fitted.rows()[-1]["wall_seconds"],
                "nll_nats_by_glimpse": judged["random"]["nll_nats"],
                "accuracy_by_glimpse": judged["random"]["accuracy"],
                "calibration_error_by_glimpse": judged["random"]["calibration_error"],
            },
            "sequences": {
                "count": len(sequences.images),
                "seconds": sum(row["seconds"] for row in searched.rows()),
                "posterior_evaluations": sum(row["posterior_evaluations"] for row in searched.rows()),
                "nll_nats_by_glimpse": judged["designed"]["nll_nats"],
                "random_nll_nats_by_glimpse": judged["designed_random"]["nll_nats"],
                "accuracy_by_glimpse": judged["designed"]["accuracy"],
                "random_accuracy_by_glimpse": judged["designed_random"]["accuracy"],
                "calibration_error_by_glimpse": judged["designed"]["calibration_error"],
                "random_calibration_error_by_glimpse": judged["designed_random"]["calibration_error"],
                "effective_sample_size_by_glimpse": sequences.effective.mean(0).tolist()[1:],
            },
            "methods": {
                name: {
                    **{key: [row[key] for row in rows] for key in rows[0] if not key.startswith("macs_by_")},
                    **{key: rows[0][key] for key in ("macs_by_glimpse", "macs_by_part")},
                    **convergence(logs[name], target),
                }
                for name, rows in by_method.items()
            },
            **(summary(stopped, spent, chance(16)) if stopped else {}),
        },
    )
    run.finish(
        device=str(device),
        inputs={str(path): file_hash(path / "model.safetensors") for path in (*config.models, *config.stopping)},
    )
    return run


def _check_alike(trained: list[RunDirectory], searched: RunDirectory, fitted: RunDirectory) -> None:
    """Everything is judged on the same images and one task, and each record has a name of its own."""
    if not trained:
        raise UserError("--models: give at least one run of `nogs train`")
    task = searched.config["task"] or fitted.config["source"]["task"]
    names: dict[tuple[str, int], Path] = {}
    for run in trained:
        if difference := first_difference({**fitted.config["source"], "task": task}, run.config["source"]):
            raise UserError(f"--models {run.path} was trained with another {difference} than --sequences")
        key = run.config["method"], run.config["optimisation"]["seed"]
        if key in names:
            raise UserError(f"--models {names[key]} and {run.path} are both {key[0]} with seed {key[1]}: give one")
        names[key] = run.path


def _stopping_runs(paths: tuple[Path, ...], trained: list[RunDirectory]) -> dict[Path, RunDirectory]:
    """The fit-stopping run of each train run that has one: of one method, for one curve speaks of one method."""
    networks = {file_hash(run.path / "model.safetensors"): run for run in trained} if paths else {}
    found: dict[Path, RunDirectory] = {}
    for path in paths:
        fitted = read_run(path, "fit-stopping")
        meta = fitted.load_metadata("model")
        if meta["network"] not in networks:
            raise UserError(f"--stopping {path} was fitted on {fitted.config['model']}: add that to --models")
        found[networks[meta["network"]].path] = fitted
    methods = {run.config["method"] for run in trained if run.path in found}
    if len(methods) > 1:
        raise UserError(f"--stopping has runs on {' and '.join(sorted(methods))}: give those of one method")
    if len({tuple(run.config["costs"]) for run in found.values()}) > 1:
        raise UserError("--stopping has runs with different --costs: fit all seeds with the same")
    return found


def _stopped(
    heads: StoppingHeads, fitted: RunDirectory, record: dict[str, Tensor], *, labels: Int[Tensor, " n"], seed: int
) -> tuple[dict[str, Tensor], dict[str, Stops]]:
    """What the heads said, to be kept, and where every rule stops: thresholds are those of held-out images."""
    device = next(heads.parameters()).device
    said = heads(record["states"].to(device), record["log_probs"].to(device))
    outlook = Outlook(record["log_probs"], *(column.cpu() for column in said))
    curves = json.loads((fitted.path / "results.json").read_text())
    stops = stop_by_every_rule(
        outlook,
        labels,
        thresholds={rule: [row[0] for row in curves[rule]] for rule in THRESHOLDED},
        costs=fitted.config["costs"],
        generator=chance(seed, 15),
    )
    return recorded(outlook), stops


def _record(
    network: HardAttention, data: ImageSet, images: Int[Tensor, " n"], T: int, choose: Chooser, device: torch.device
) -> dict[str, Tensor]:
    """Cells [n, T], class log-probabilities [n, T, C] and states [n, T, h] of each image."""
    pixels = data.images.to(device)
    rollouts = [network(pixels, rows, glimpses=T, choose=choose) for rows in images.to(device).split(BATCH)]
    return {
        "cells": torch.cat([rollout.cells for rollout in rollouts]).cpu(),
        "log_probs": torch.cat([rollout.class_logits.log_softmax(-1) for rollout in rollouts]).cpu(),
        "states": torch.cat([rollout.states for rollout in rollouts]).cpu(),
    }


def _judge(
    posterior: Posterior,
    data: ImageSet,
    test: Int[Tensor, " n"],
    sequences: Sequences,
    label: int | None,
    device: torch.device,
) -> dict[str, Any]:
    """The posterior on random locations (test split), and along sequences against random ones (their images).

    Images with sequences are training images that the posterior was not fitted to.
    """
    from torchmetrics.functional.classification import multiclass_calibration_error

    T, L = sequences.cells.shape[1], len(posterior.grid)
    places = {
        "random": (test, torch.randint(L, (len(test), T), generator=chance(8))),
        "designed": (sequences.images, sequences.cells),
        "designed_random": (sequences.images, torch.randint(L, tuple(sequences.cells.shape), generator=chance(9))),
    }
    judged: dict[str, Any] = {}
    for name, (images, cells) in places.items():
        log_probs = posterior_log_probs(posterior, data, images, cells, label, device)
        labels = data.labels[images]
        judged[name] = {
            "nll_nats": [-log_probs[:, t].gather(1, labels[:, None]).mean().item() for t in range(T)],
            "accuracy": [(log_probs[:, t].argmax(-1) == labels).float().mean().item() for t in range(T)],
            "calibration_error": [
                multiclass_calibration_error(log_probs[:, t].exp(), labels, log_probs.shape[-1]).item()
                for t in range(T)
            ],
        }
    return judged
