"""A run directory in the true format, made by hand, of networks that never were: what a report is drawn from."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from nogs.config.groups import Geometry, Machine, Optimisation
from nogs.config.pipeline import Run
from nogs.config.stages import Baselines, Evaluate, Train
from nogs.evaluation.comparisons import compare_with
from nogs.evaluation.pictures import look_shares
from nogs.evaluation.records import means_over_seeds
from nogs.evaluation.schema import (
    CNNScores,
    MethodScores,
    PosteriorScores,
    Results,
    SequenceScores,
    TestSet,
    WholeImage,
)
from nogs.evaluation.seconds import Seconds
from nogs.evaluation.stopping import Advantage
from nogs.evaluation.thresholds import ThresholdPoint
from nogs.evaluation.typed_json import from_json, to_json
from nogs.evaluation.uncertainty import Bounded
from nogs.glimpses.grid import Grid
from nogs.runs.directory import RunDirectory, open_run
from nogs.runs.marker import write_marker
from nogs.stopping.curves import Curve, CurvePoint

GRID = Grid(image_px=48, glimpse_px=8, stride_px=4)
T, CLASSES, SEEDS = 4, 3, (0, 1, 2)
TO_TARGET = ("iterations_to_target", "iterations_to_best_seed")
NAMES = ("[/bold] circle", r"a $\frac$quare $x$", "<b>triangle</b>")
AVERAGED = (
    "iterations_to_converge",
    "best_validation_nll_nats",
    "test_accuracy",
    "test_balanced_accuracy",
    "test_equal_prior_balanced_accuracy",
    "test_auroc",
    "test_nll_nats",
    "sampled_test_accuracy",
    "pixels_read_share",
)
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


def scores_of(method: str, seeds: tuple[int, ...], *, has_target: bool) -> MethodScores:
    """Scores of a method. Under RAM the second of three seeds never reaches the target."""
    faster, n = method != "ram", len(seeds)
    to_target = tuple(1100 + 100 * seed for seed in seeds) if faster else (4000, None, 4400)[:n]
    scores = MethodScores(
        seeds=seeds,
        iterations_to_converge=tuple((1700 if faster else 4100) + 300 * seed for seed in seeds),
        seconds_to_converge=tuple(9.5 + seed for seed in seeds),
        iterations_to_target=to_target if has_target else (None,) * n,
        seconds_to_target=tuple(value and value / 200 for value in to_target) if has_target else (None,) * n,
        iterations_to_best_seed=tuple(value and value + 50 for value in to_target) if has_target else (None,) * n,
        iterations_trained=(6000,) * n,
        seconds_trained=(24.0,) * n,
        wall_seconds_trained=(30.0,) * n,
        best_validation_nll_nats=(0.25,) * n,
        test_accuracy=tuple((0.912 if faster else 0.876) + 0.004 * seed for seed in seeds),
        test_balanced_accuracy=tuple(0.871 + 0.002 * seed for seed in seeds),
        test_equal_prior_balanced_accuracy=tuple(0.881 + 0.002 * seed for seed in seeds),
        test_auroc=tuple(0.94 + 0.01 * seed for seed in seeds),
        test_nll_nats=tuple((0.244 if faster else 0.317) + 0.005 * seed for seed in seeds),
        test_accuracy_by_glimpse=tuple(
            tuple((0.55 if faster else 0.45) + 0.12 * t + 0.004 * seed for t in range(T)) for seed in seeds
        ),
        test_balanced_accuracy_by_glimpse=tuple(tuple(0.4 + 0.1 * t for t in range(T)) for _ in seeds),
        test_equal_prior_balanced_accuracy_by_glimpse=tuple(tuple(0.45 + 0.1 * t for t in range(T)) for _ in seeds),
        test_accuracy_by_class=((0.5, 0.75, None),) * n,
        adaptivity_nats_by_glimpse=tuple(tuple(0.3 * t for t in range(T)) for _ in seeds),
        pixels_read_share=(0.1,) * n,
        pixels_read_share_by_glimpse=(tuple(0.1 * (t + 1) / T for t in range(T)),) * n,
        macs_by_glimpse=tuple(61_234 * (t + 1) for t in range(T)),
        macs_by_part={"fovea": 0, "locator": 20_000, "embedding": 41_000, "classifier": 234},
        sampled_test_accuracy=(0.8,) * n,
        sampled_test_balanced_accuracy=(0.78,) * n,
        sampled_test_nll_nats=(0.4,) * n,
        mean_accuracy_by_class=(0.5, 0.75, None),
        test_confusion=((30, 10, 0), (5, 45, 10), (0, 0, 0)),
    )
    by_glimpse = ("test_accuracy_by_glimpse", "test_balanced_accuracy_by_glimpse", "adaptivity_nats_by_glimpse")
    return replace(
        scores,
        means={
            **{key: Bounded(mean(getattr(scores, key))) for key in AVERAGED},
            **({key: _to(scores, key) for key in TO_TARGET} if has_target else {}),
        },
        means_by_glimpse={key: tuple(map(mean, zip(*getattr(scores, key), strict=True))) for key in by_glimpse},
    )


def _to(scores: MethodScores, key: str) -> Bounded:
    values = [6000 if value is None else value for value in getattr(scores, key)]
    return Bounded(mean(values), "at least" if None in getattr(scores, key) else "exact")


def results_of(methods: tuple[str, ...], seeds: tuple[int, ...], *, classes: tuple[str, ...] = NAMES) -> Results:
    has_target = "ram" in methods
    scores = {name: scores_of(name, seeds, has_target=has_target) for name in methods}
    seconds = {name: seconds_of(name, len(seeds)) for name in methods} if has_target else {}
    right = {(name, seed): right_of(name, seed) for name in methods for seed in seeds}
    return Results(
        schema=1,
        data="npz:[/bold]/:smile:<i>$x$.npz",
        task=None,
        classes=classes,
        target_nll_nats=0.2987 if has_target else None,
        best_seed_nll_nats=0.2876 if has_target else None,
        test=TestSet(1234, (40, 60, 1134), uneven=False, skipped_files=2),
        posterior=PosteriorScores(131.0, (0.93, 0.81, 0.72, 0.66), (0.51, 0.6, 0.66, 0.71), (0.01, 0.013, 0.015, 0.02)),
        sequences=SequenceScores(
            count=40,
            seconds=62.0,
            posterior_evaluations=123456,
            nll_nats_by_glimpse=(0.45, 0.31, 0.27, 0.262),
            accuracy_by_glimpse=(0.8, 0.87, 0.9, 0.91),
            calibration_error_by_glimpse=(0.02, 0.03, 0.035, 0.041),
            shuffled_nll_nats_by_glimpse=(0.45, 0.33, 0.3, 0.288),
            shuffled_accuracy_by_glimpse=(0.8, 0.85, 0.88, 0.89),
            shuffled_calibration_error_by_glimpse=(0.02, 0.03, 0.03, 0.03),
            random_nll_nats_by_glimpse=(0.94, 0.8, 0.71, 0.65),
            random_accuracy_by_glimpse=(0.5, 0.61, 0.65, 0.7),
            random_calibration_error_by_glimpse=(0.01, 0.013, 0.015, 0.02),
            effective_sample_size_by_glimpse=(30.0, 20.0, 15.0),
            chance_nll_nats=1.0986,
            worth="useful",
        ),
        methods=scores,
        comparisons={
            reference: compared
            for reference in ("ram", "path")
            if (compared := compare_with(reference, scores, right, seconds))
        },
        end_to_end=seconds,
        linear=WholeImage("logistic regression", "logistic regression", 24, 1728, 0.8, 0.811, 0.78, 0.79, 0.9),
        stopping_by_threshold={name: thresholds_of(name) for name in methods},
        stopping_method="ps-nogs",
        **stopping_of(len(seeds)),
    )


def right_of(method: str, seed: int) -> Tensor:
    """Which of 50 test images a method classifies correctly."""
    return torch.rand(50, generator=chance(100 + sum(map(ord, method)) + seed)) < 0.8


def seconds_of(method: str, seeds: int) -> Seconds:
    """Under RAM the second of three seeds never reaches the target."""
    if method == "ram":
        reached = (True, False, True)[:seeds]
        known = 21.0 if all(reached) else None
        return Seconds(known, known, 21.0, 21.0, reached)
    before = {"posterior": 131.0, "bank": 3.0, "search": 62.0}
    if method == "ps-ram":
        before = {"teacher": 30.0, "recording": 1.0}
    total = sum(before.values()) + 7.5
    return Seconds(7.5, total, 7.5, total, (True,) * seeds, **before)


def stopping_of(seeds: int) -> dict[str, Any]:
    """Curves of every rule that rise from 0.6 to 0.9; a seed is 0.02 better than the one before it."""

    def curve(points: int, better: float) -> Curve:
        share = [k / (points - 1) for k in range(points)]
        return tuple(CurvePoint(1 - x, 1 + (T - 1) * x, 0.6 + 0.3 * x**0.5 + better, 1e5 + 2e5 * x) for x in share)

    points = {"eig": 33, "accuracy": 33, "confidence": 33, "act": 9, "act_joint": 4, "stochastic": 3, "fixed": T}
    by_seed = {rule: tuple(curve(n, 0.02 * seed) for seed in range(seeds)) for rule, n in points.items()}
    ahead = tuple(Advantage(x, 0.01, -0.005, 0.02) for x in (1.0, 2.0, 3.0))
    return {
        "stopping": {rule: curve(n, 0.01 * (seeds - 1)) for rule, n in points.items()},
        "stopping_by_seed": by_seed,
        "held_out_accuracy_by_glimpse": ((0.5, 0.7, 0.8, 0.85),) * seeds,
        "stopping_advantage": {
            of: {rule: ahead[: 1 if rule == "stochastic" else 3] for rule in points if rule not in ("eig", "accuracy")}
            for of in ("eig", "accuracy")
        },
    }


def cnns_of() -> CNNScores:
    """Two seeds each of two networks, and the upper bound."""
    rows = tuple(
        WholeImage(
            name=name,
            architecture=architecture,
            resolution_px=24,
            macs=macs,
            validation_accuracy=accuracy,
            test_accuracy=accuracy + 0.02 * seed,
            test_balanced_accuracy=accuracy - 0.1,
            test_equal_prior_balanced_accuracy=accuracy - 0.05,
            test_auroc=0.9,
            seed=seed,
            on_frontier=macs < 1e6,
        )
        for name, architecture, macs, accuracy in (
            ("a", "shufflenet-v2", 30_000, 0.7),
            ("b", "mobilenet-v2", 2_000_000, 0.68),
        )
        for seed in (0, 1)
    )
    bound = replace(rows[0], name="c", architecture="upper bound", macs=50_000_000, test_accuracy=0.95)
    return CNNScores(rows, means_over_seeds(rows), bound)


def cells_of(images: int, seed: int, spread: float) -> Tensor:
    """Cells near four places, the first of which all images share; later ones are displaced at random by ``spread``."""
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
        "completions_by_glimpse": pictures.roll(1, 0)[:, None, None].repeat(1, T - 1, 2, 1, 1, 1),
        "completion_weights_by_glimpse": torch.tensor([0.5, 0.25]).expand(count, T - 1, 2),
        "completion_gains": maps_nats[:, 1:3],
    }


def make_run(path: Path, methods: tuple[str, ...] = ("ram", "ps-nogs"), seeds: tuple[int, ...] = SEEDS) -> Path:
    """A run directory as the stages leave it, of networks that never were."""
    geometry = Geometry(glimpse_size=8, stride=4, glimpses=T)
    open_run(path, "run", Run(Machine(path), geometry=geometry, methods=methods, seeds=seeds), resume=False)
    models = tuple(path / "train" / f"{method}-seed{seed}" for method in methods for seed in seeds)
    for model in models:
        method, seed = model.name.split("-seed")
        training = Train(Machine(model), geometry=geometry, optimisation=Optimisation(seed=int(seed)), method=method)
        trained = open_run(model, "train", training, resume=False)
        for row in log_of(method, int(seed)):
            trained.log(**row)
        trained.finish(device="cpu")
    baselines = open_run(path / "baselines", "baselines", Baselines(Machine(path / "baselines")), resume=False)
    baselines.save_json("results.json", to_json(cnns_of()))
    baselines.finish()
    out = path / "evaluation"
    evaluation = open_run(out, "evaluate", Evaluate(Machine(out), models, path / "sequences"), resume=False)
    looked = {
        method: look_shares([cells_of(50, number + seed, 1.5) for seed in seeds], len(GRID))
        for number, method in enumerate(methods)
    }
    evaluation.save_tensors("looks", looked | {"designed": look_shares([cells_of(40, 3, 1.0)], len(GRID))})
    save_examples(evaluation)
    log_probs = torch.tensor([[0.9, 0.05, 0.05], [0.2, 0.7, 0.1]]).log()[:, None].expand(2, T, 3)
    answers = {
        "pixels": examples_of(2)["pixels"],
        "labels": torch.tensor([0, 2]),
        "cells": cells_of(2, 5, 1.0),
        "log_probs": log_probs.contiguous(),
        "mean_image": examples_of(2)["pixels"].float().mean(0),
    }
    save_steps(evaluation, methods)
    shown = "ps-nogs" if "ps-nogs" in methods else methods[0]
    evaluation.save_tensors("answers", answers, method=shown, seed=seeds[0], grid=asdict(GRID))
    evaluation.save_json("results.json", to_json(results_of(methods, seeds)))
    evaluation.finish(device="cpu")
    return path


def save_examples(evaluation: RunDirectory, *, criterion: str = "eig", pooling: float = 0.0, **changed: Tensor) -> None:
    tensors = examples_of(3) | changed
    evaluation.save_tensors("examples", tensors, criterion=criterion, pooling=pooling)


def save_steps(evaluation: RunDirectory, methods: tuple[str, ...], **changed: Tensor) -> None:
    """Five images: those of the examples and two more. The control has no maps, and a learned gain has gains."""
    tensors = {"images": torch.arange(5), "pixels": examples_of(5)["pixels"], "labels": torch.arange(5) % CLASSES}
    for number, method in enumerate(methods):
        cells = cells_of(5, 20 + number, 1.5)
        tensors[f"{method}.cells"] = cells
        tensors[f"{method}.log_probs"] = torch.randn(5, T, CLASSES, generator=chance(number)).log_softmax(-1)
        if method != "path":
            tensors[f"{method}.maps"] = 0.1 * torch.rand(5, T, len(GRID), generator=chance(number))
            tensors[f"{method}.maps"].scatter_(2, cells[..., None], 0.3)
        for rule, curve in thresholds_of(method).items():
            steps = torch.arange(len(curve)).mul(T - 1).div(len(curve) - 1).round().long() + 1
            tensors[f"{method}.stops.{rule}"] = steps.expand(5, -1)
    meta = {method: {"seed": 0, "gains": method == "gain"} for method in methods}
    evaluation.save_tensors("steps", tensors | changed, methods=meta)


def thresholds_of(method: str) -> dict[str, tuple[ThresholdPoint, ...]]:
    """Curves that rise from 0.5, more slowly under RAM."""

    def curve(settings: tuple[float, ...]) -> tuple[ThresholdPoint, ...]:
        height = 0.3 if method == "ram" else 0.4
        shares = [k / (len(settings) - 1) for k in range(len(settings))]
        return tuple(
            ThresholdPoint(setting, 1 + (T - 1) * x, 0.5 + height * x, 0.4 + height * x, 61_234 * (1 + (T - 1) * x))
            for setting, x in zip(settings, shares, strict=True)
        )

    curves = {"fixed": curve((1.0, 2.0, 3.0, 4.0)), "confidence": curve((0.0, 0.5, 0.8, 0.9, 0.99, 1.0))}
    return curves | ({"map": curve((1.1, 0.5, 0.05, 0.0))} if method == "gain" else {})


def change_results(path: Path, **changed: Any) -> None:
    """Change fields of results.json of the evaluation in ``path``."""
    evaluation = RunDirectory(path / "evaluation")
    results = replace(from_json(Results, evaluation.load_json("results.json")), **changed)
    evaluation.save_json("results.json", to_json(results))
    write_marker(evaluation.path)
