"""Stage evaluate: record what every trained network sees and says of the test split, then sum it up.

Evaluate records, others decide: per image and step the cells and class log-probabilities of the greedy policy
are kept, and results.json is post-processing. The posterior is judged on random and on chosen locations, for
its over-confidence on the latter is what a design suffers from (the optimiser's curse).
"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nogs.attention import Chooser, HardAttention, greedy, sampling
from nogs.completion.retrieval import Retrieval
from nogs.config import Evaluate, RetrievalOptions, Source
from nogs.cost import macs_by_glimpse
from nogs.data import ImageSet, load
from nogs.design import Design, design_sequences
from nogs.device import chance, choose_device
from nogs.errors import UserError
from nogs.glimpses import look
from nogs.models import load_attention, load_bank, load_posterior
from nogs.posterior import Posterior, class_log_probs
from nogs.progress import Tick, ticking
from nogs.results import convergence, target_nll
from nogs.rundir import RunDirectory, file_hash, finished_run, first_difference, open_run, read_run
from nogs.sequences import Sequences, load_sequences

BATCH = 512


def evaluate(config: Evaluate, tick: Tick | None = None) -> RunDirectory:
    """Write a record a model, examples.safetensors, and results.json."""
    trained = [read_run(path, "train") for path in config.models]
    searched = read_run(config.sequences, "search")
    fitted = read_run(Path(searched.config["posterior"]), "fit-posterior")
    _check_alike(trained, searched, fitted)
    if finished := finished_run(config.machine.out, "evaluate", config, resume=config.machine.resume):
        return finished
    device = choose_device(config.machine.device)
    source = Source(**trained[0].config["source"])
    data = load(source)
    run = open_run(config.machine.out, "evaluate", config, resume=config.machine.resume)
    test = data.members("test")
    with ticking("evaluate", len(trained) + 2, tick) as report, torch.inference_mode():
        scores: dict[str, list[dict[str, Any]]] = {}
        logs: dict[str, list[list[dict[str, Any]]]] = {}
        for number, model in enumerate(trained):
            network, T, _ = load_attention(model, device)
            name, seed = model.config["method"], model.config["optimisation"]["seed"]
            report(number, f"{name} seed {seed}")
            record = _record(network, data, test, T, greedy, device)
            run.save_tensors(f"{name}-seed{seed}", {**record, "images": test, "labels": data.labels[test]})
            drawn = _record(network, data, test, T, sampling(chance(seed, 7, device=device)), device)
            logs.setdefault(name, []).append(model.rows())
            scores.setdefault(name, []).append(
                {
                    "seeds": seed,
                    **_scores(record["log_probs"], data.labels[test]),
                    "sampled_test_accuracy": _scores(drawn["log_probs"], data.labels[test])["test_accuracy"],
                    "macs_by_glimpse": macs_by_glimpse(network, channels=data.images.shape[1], glimpses=T),
                }
            )
        report(len(trained), "the posterior")
        posterior, sequences = load_posterior(fitted, device), load_sequences(searched)
        label = fitted.load_metadata("model")["classes"].index(source.task) if posterior.multilabel else None
        judged = _judge(posterior, data, test, sequences, label, device)
        report(len(trained) + 1, "examples")
        _examples(run, config.examples, searched, posterior, data, sequences, label, device)
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
                "seconds": fitted.rows()[-1]["seconds"],
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
                    **{key: [row[key] for row in rows] for key in rows[0] if key != "macs_by_glimpse"},
                    "macs_by_glimpse": rows[0]["macs_by_glimpse"],
                    **convergence(logs[name], target),
                }
                for name, rows in scores.items()
            },
        },
    )
    run.finish(device=str(device), inputs={str(path): file_hash(path / "model.safetensors") for path in config.models})
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


def _record(
    network: HardAttention, data: ImageSet, images: Int[Tensor, " n"], T: int, choose: Chooser, device: torch.device
) -> dict[str, Tensor]:
    """Cells [n, T] and class log-probabilities [n, T, C] of each image."""
    pixels = data.images.to(device)
    rollouts = [network(pixels, rows, glimpses=T, choose=choose) for rows in images.to(device).split(BATCH)]
    return {
        "cells": torch.cat([rollout.cells for rollout in rollouts]).cpu(),
        "log_probs": torch.cat([rollout.class_logits.log_softmax(-1) for rollout in rollouts]).cpu(),
    }


def _scores(log_probs: Float[Tensor, "n T C"], labels: Int[Tensor, " n"]) -> dict[str, Any]:
    """Accuracy, balanced accuracy and NLL of the last prediction; accuracy after each glimpse."""
    from torchmetrics.functional.classification import multiclass_accuracy  # seconds to import, for this stage alone

    said, C = log_probs.argmax(-1), log_probs.shape[-1]
    last = log_probs[:, -1]
    return {
        "test_accuracy": (said[:, -1] == labels).float().mean().item(),
        "test_balanced_accuracy": multiclass_accuracy(last.exp(), labels, C, average="macro").item(),
        "test_nll_nats": -last.gather(1, labels[:, None]).mean().item(),
        "test_accuracy_by_glimpse": (said == labels[:, None]).float().mean(0).tolist(),
    }


def _posterior_log_probs(
    posterior: Posterior,
    data: ImageSet,
    images: Int[Tensor, " n"],
    cells: Int[Tensor, "n T"],
    label: int | None,
    device: torch.device,
) -> Float[Tensor, "n T C"]:
    pixels = data.images.to(device)
    logits = [
        posterior.logits_by_glimpse(look(pixels, posterior.grid, at.to(device), batch.to(device)))
        for batch, at in zip(images.split(BATCH), cells.split(BATCH), strict=True)
    ]
    return class_log_probs(torch.cat(logits).cpu(), multilabel=posterior.multilabel, label=label)


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
        log_probs = _posterior_log_probs(posterior, data, images, cells, label, device)
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


def _examples(
    run: RunDirectory,
    count: int,
    searched: RunDirectory,
    posterior: Posterior,
    data: ImageSet,
    sequences: Sequences,
    label: int | None,
    device: torch.device,
) -> None:
    """Design sequences for a few test images of every class, to be looked at; keep maps and pictures."""
    how = searched.config
    bank = load_bank(read_run(Path(how["bank"]), "build-bank"), data)
    retrieval = Retrieval(bank, posterior.grid, RetrievalOptions(**how["retrieval"]))
    test, C = data.members("test"), len(data.classes)
    by_class = [test[data.labels[test] == c] for c in range(C)]
    turns = [members[turn] for turn in range(count) for members in by_class if turn < len(members)]
    images = torch.stack(turns[:count])
    # The first design needs no completion of these images: take the one that the search found.
    first = Design(sequences.cells[:1, 0], sequences.epe[:1, 0], sequences.eig[:1, 0])
    found = design_sequences(
        posterior,
        retrieval,
        data.images[images],
        data.groups[images],
        first,
        glimpses=sequences.cells.shape[1],
        criterion=how["criterion"],
        label=label,
        chance=partial(chance, 10),
    )
    log_probs = _posterior_log_probs(posterior, data, images, found.cells, label, device)
    run.save_tensors(
        "examples",
        {
            "images": images,
            "pixels": data.images[images],
            "labels": data.labels[images],
            "cells": found.cells,
            "eig": found.eig,
            "epe": found.epe,
            "log_probs": log_probs,
            "mean_image": data.images[test].float().mean(0),
        },
        grid=dataclasses.asdict(posterior.grid),
    )
