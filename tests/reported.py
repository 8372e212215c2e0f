"""A run directory in the true format, made by hand, of networks that never were: what a report is drawn from."""

from __future__ import annotations

import dataclasses
import io
import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nogs.config.groups import Geometry, Machine, Optimisation
from nogs.config.pipeline import Run
from nogs.config.stages import Baselines, BuildBank, Evaluate, FitPosterior, FitStopping, Search, Train
from nogs.glimpses.grid import Grid
from nogs.report.sections import Section
from nogs.report.style import DARK, LIGHT, darkened, drawn_in
from nogs.runs.directory import open_run
from nogs.sequences.table import Sequences, save_sequences

GRID = Grid(image_px=48, glimpse_px=8, stride_px=4)
T, CLASSES, SEEDS = 4, 3, (0, 1, 2)
SPEED = {"ram": 1800.0, "ps-nogs": 500.0}


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blob(row: float, column: float, width: float, side: int) -> Tensor:
    """A smooth bump over a square, greatest at (row, column)."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * width**2))


def log_of(method: str, seed: int) -> list[dict[str, float]]:
    """Validations of a training that falls from 1.1 nats to about 0.25."""
    noise = torch.randn(60, generator=chance(seed)) * 0.012
    return [
        {
            "iteration": iteration,
            "seconds": round(iteration * (0.004 if method == "ram" else 0.005), 3),
            "wall_seconds": round(iteration * (0.005 if method == "ram" else 0.006), 3),
            "train_loss": 1.0,
            "nll_nats": 0.25
            + 0.04 * (method == "ram")
            + 0.85 * math.exp(-iteration / SPEED.get(method, 900.0))
            + float(noise[k]),
            "accuracy": 0.9,
        }
        for k, iteration in enumerate(range(100, 6001, 100))
    ]


def scores_of(method: str, seeds: tuple[int, ...]) -> dict[str, Any]:
    faster = method != "ram"
    return {
        "seeds": list(seeds),
        "test_accuracy": [(0.912 if faster else 0.876) + 0.004 * seed for seed in seeds],
        "test_balanced_accuracy": [0.871 + 0.002 * seed for seed in seeds],
        "test_nll_nats": [(0.244 if faster else 0.317) + 0.005 * seed for seed in seeds],
        "sampled_test_accuracy": [0.8 for _ in seeds],
        "test_accuracy_by_glimpse": [
            [(0.55 if faster else 0.45) + 0.12 * t + 0.004 * seed for t in range(T)] for seed in seeds
        ],
        "test_auroc": [0.94 + 0.01 * seed for seed in seeds],
        "macs_by_glimpse": [61_234 * (t + 1) for t in range(T)],
        "macs_by_part": {"fovea": 0, "locator": 20_000, "embedding": 41_000, "classifier": 234},
        "iterations_to_converge": [(1700 if faster else 4100) + 300 * seed for seed in seeds],
        "seconds_to_converge": [9.5 + seed for seed in seeds],
        "iterations_to_target": [1100 + 100 * seed for seed in seeds] if faster else [4000, None, 4400][: len(seeds)],
        "seconds_to_target": [5.5 + seed for seed in seeds] if faster else [16.0, None, 17.6][: len(seeds)],
        "best_validation_nll_nats": [0.25 for _ in seeds],
    }


def results_of(methods: tuple[str, ...], seeds: tuple[int, ...]) -> dict[str, Any]:
    scores = {name: scores_of(name, seeds) for name in methods}
    target = 0.2987 if "ram" in methods else None
    if target is None:
        for of_method in scores.values():
            of_method["iterations_to_target"] = of_method["seconds_to_target"] = [None] * len(seeds)
    return {
        "schema": 1,
        "data": "npz:[/bold]/:smile:<i>$x$.npz",
        "task": None,
        "classes": ["[/bold] circle", r"a $\frac$quare $x$", "<b>triangle</b>"],
        "target_nll_nats": target,
        "posterior": {
            "seconds": 131.0,
            "nll_nats_by_glimpse": [0.93, 0.81, 0.72, 0.66],
            "accuracy_by_glimpse": [0.51, 0.6, 0.66, 0.71],
            "calibration_error_by_glimpse": [0.01, 0.013, 0.015, 0.02],
        },
        "sequences": {
            "count": 40,
            "seconds": 62.0,
            "posterior_evaluations": 123456,
            "nll_nats_by_glimpse": [0.45, 0.31, 0.27, 0.262],
            "random_nll_nats_by_glimpse": [0.94, 0.8, 0.71, 0.65],
            "accuracy_by_glimpse": [0.8, 0.87, 0.9, 0.91],
            "random_accuracy_by_glimpse": [0.5, 0.61, 0.65, 0.7],
            "calibration_error_by_glimpse": [0.02, 0.03, 0.035, 0.041],
        },
        "methods": scores,
        "end_to_end": {name: seconds_of(name, len(seeds)) for name in methods} if target is not None else {},
        **stopping_of(len(seeds)),
    }


def seconds_of(method: str, seeds: int) -> dict[str, Any]:
    """Of RAM the second of three seeds never arrives."""
    if method == "ram":
        reached = [True, False, True][:seeds]
        known = 21.0 if all(reached) else None
        return {
            "training": known,
            "total": known,
            "training_at_least": 21.0,
            "total_at_least": 21.0,
            "reached": reached,
        }
    before = {"posterior": 131.0, "bank": 3.0, "search": 62.0}
    if method == "ps-ram":
        before = {"teacher": 30.0, "recording": 1.0}
    total = sum(before.values()) + 7.5
    return {
        **before,
        "training": 7.5,
        "total": total,
        "training_at_least": 7.5,
        "total_at_least": total,
        "reached": [True] * seeds,
    }


def stopping_of(seeds: int) -> dict[str, Any]:
    """Curves of every rule that rise from 0.6 to 0.9; a seed is 0.02 better than the one before it."""

    def curve(points: int, better: float) -> list[list[float]]:
        share = [k / (points - 1) for k in range(points)]
        return [[1 - x, 1 + (T - 1) * x, 0.6 + 0.3 * x**0.5 + better, 1e5 + 2e5 * x] for x in share]

    points = {"eig": 33, "accuracy": 33, "confidence": 33, "act": 9, "stochastic": 3, "fixed": T}
    by_seed = {rule: [curve(n, 0.02 * seed) for seed in range(seeds)] for rule, n in points.items()}
    ahead = [{"mean_glimpses": x, "difference": 0.01, "low": -0.005, "high": 0.02} for x in (1.0, 2.0, 3.0)]
    return {
        "stopping": {rule: curve(n, 0.01 * (seeds - 1)) for rule, n in points.items()},
        "stopping_by_seed": by_seed,
        "held_out_accuracy_by_glimpse": [[0.5, 0.7, 0.8, 0.85]] * seeds,
        "stopping_advantage": {
            of: {rule: ahead[: 1 if rule == "stochastic" else 3] for rule in points if rule not in ("eig", "accuracy")}
            for of in ("eig", "accuracy")
        },
    }


def cnns_of() -> dict[str, Any]:
    """Two seeds each of two networks, and the upper bound."""
    rows = [
        {
            "name": name,
            "architecture": architecture,
            "macs": macs,
            "test_accuracy": accuracy + 0.02 * seed,
            "test_balanced_accuracy": accuracy - 0.1,
            "on_frontier": macs < 1e6,
        }
        for name, architecture, macs, accuracy in (
            ("a", "shufflenet-v2", 30_000, 0.7),
            ("b", "mobilenet-v2", 2_000_000, 0.68),
        )
        for seed in (0, 1)
    ]
    return {"cnn": rows, "upper_bound": {**rows[0], "name": "c", "macs": 50_000_000, "test_accuracy": 0.95}}


def cells_of(images: int, seed: int, spread: float) -> Tensor:
    """Cells that share their first glimpse and wander off from it."""
    places = torch.tensor([[3, 4], [6, 3], [5, 7], [8, 6]]).expand(images, T, 2)
    moved = places + (torch.randn(images, T, 2, generator=chance(seed)) * spread).round()
    moved[:, 0] = places[:, 0] + seed % 3
    row_column = moved.long().clamp(0, GRID.side - 1)
    return row_column[..., 0] * GRID.side + row_column[..., 1]


def examples_of(count: int) -> dict[str, Tensor]:
    cells = cells_of(count, 7, 1.2)
    maps_nats = torch.stack(
        [
            torch.stack(
                [
                    0.6 / (2 * t + 1) * blob(int(cell) // GRID.side, int(cell) % GRID.side, 2.0, GRID.side).reshape(-1)
                    for t, cell in enumerate(row)
                ]
            )
            for row in cells
        ]
    )
    labels = torch.arange(count) % CLASSES
    certain = torch.linspace(0.5, 0.98, T)
    log_probs = torch.full((count, T, CLASSES), 0.0)
    for image in range(count):
        log_probs[image] = ((1 - certain) / (CLASSES - 1))[:, None].log()
        log_probs[image, :, labels[image]] = certain.log()
    pictures = torch.stack(
        [
            (255 * (blob(16, 20 + 3 * k, 5, 48) + blob(34, 14 + 6 * k, 7, 48) * 0.8).clamp(0, 1)).to(torch.uint8)[None]
            for k in range(count)
        ]
    )
    return {
        "images": torch.arange(count),
        "pixels": pictures,
        "labels": labels,
        "cells": cells,
        "eig": maps_nats,
        "epe": 1 - maps_nats,
        "log_probs": log_probs,
        "mean_image": pictures.float().mean(0),
        "completions": pictures.roll(1, 0)[:, None].repeat(1, 2, 1, 1, 1),
        "completion_weights": torch.tensor([0.5, 0.25]).expand(count, 2),
        "completion_gains": maps_nats[:, 1:3],
    }


def make_run(path: Path, methods: tuple[str, ...] = ("ram", "ps-nogs"), seeds: tuple[int, ...] = SEEDS) -> Path:
    """A run directory as the stages leave it, of networks that never were."""
    geometry = Geometry(glimpse_size=8, stride=4, glimpses=T)
    open_run(path, "run", Run(Machine(path), geometry=geometry, methods=methods, seeds=seeds), resume=False)
    posterior = open_run(path / "posterior", "fit-posterior", FitPosterior(Machine(path / "posterior")), resume=False)
    posterior.finish(device="cpu")
    open_run(path / "bank", "build-bank", BuildBank(Machine(path / "bank")), resume=False).finish()
    how = Search(Machine(path / "sequences"), path / "posterior", path / "bank")
    searched = open_run(path / "sequences", "search", how, resume=False)
    n, L = 40, len(GRID)
    some = torch.zeros(n, T, L)
    save_sequences(
        searched,
        "sequences",
        Sequences(torch.arange(n), cells_of(n, 3, 1.0), some, some + 0, some[..., 0] + 0),
        source={},
        geometry={},
        task=None,
        origin="search",
    )
    searched.finish()
    models = tuple(path / "train" / f"{method}-seed{seed}" for method in methods for seed in seeds)
    for model in models:
        method, seed = model.name.split("-seed")
        training = Train(Machine(model), geometry=geometry, optimisation=Optimisation(seed=int(seed)), method=method)
        trained = open_run(model, "train", training, resume=False)
        for row in log_of(method, int(seed)):
            trained.log(**row)
        trained.finish(device="cpu")
    baselines = open_run(path / "baselines", "baselines", Baselines(Machine(path / "baselines")), resume=False)
    baselines.save_json("results.json", cnns_of())
    baselines.finish()
    stopped = path / "stopping"
    open_run(stopped, "fit-stopping", FitStopping(Machine(stopped), models[-1]), resume=False).finish()
    out = path / "evaluation"
    config = Evaluate(Machine(out), models, path / "sequences", stopping=(stopped,))
    evaluation = open_run(out, "evaluate", config, resume=False)
    for number, model in enumerate(models):
        record = {"cells": cells_of(50, number, 1.5), "labels": torch.zeros(50, dtype=torch.long)}
        evaluation.save_tensors(model.name, {**record, "log_probs": torch.zeros(50, T, CLASSES)})
    evaluation.save_tensors("examples", examples_of(3), grid=dataclasses.asdict(GRID))
    states = torch.randn(40, T, 6, generator=chance(1))
    evaluation.save_tensors("states", {"states": states, "labels": torch.arange(40) % CLASSES})
    evaluation.save_json("results.json", results_of(methods, seeds))
    evaluation.finish(device="cpu")
    return path


def recolours(section: Section) -> bool:
    """Whether `darkened` makes of all its figures what the dark palette does.

    But for the names that matplotlib gives to markers and clips, which are hashes of what they draw.
    """
    names = re.compile(rb"\b[mp][0-9a-f]{10}\b")
    same = []
    for _, draw in section.draws:
        light, dark = (io.BytesIO(), io.BytesIO())
        for palette, file in ((LIGHT, light), (DARK, dark)):
            with drawn_in(palette):
                draw(palette).savefig(file, format="svg", metadata={"Date": None})
        same.append(names.sub(b"", darkened(light.getvalue())) == names.sub(b"", dark.getvalue()))
    return all(same)
