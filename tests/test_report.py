"""The report: a run directory in the true format, made by hand, and the page that is drawn from it."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nogs.config import BuildBank, Evaluate, FitPosterior, Geometry, Machine, Optimisation, Report, Run, Search, Train
from nogs.errors import UserError
from nogs.glimpses import Grid
from nogs.report import captions, maps
from nogs.report.material import gather
from nogs.report.style import LIGHT, drawn_in
from nogs.report.table import print_results, ratio, results_table, time_breakdown
from nogs.rundir import RunDirectory, open_run
from nogs.sequences import Sequences, save_sequences
from nogs.stages.report import report

GRID = Grid(image_px=48, glimpse_px=8, stride_px=4)
T, CLASSES, SEEDS = 4, 3, (0, 1, 2)
SECTIONS = ("title", "results", "time", "network", "information-gain", "where-they-look", "validation-loss")
SECTIONS += ("iterations", "accuracy")
FIGURES = {
    *("network", "where-they-look", "validation-loss", "iterations", "accuracy"),
    *(f"information-gain-{number}" for number in (1, 2, 3)),
}
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
            "train_loss": 1.0,
            "nll_nats": 0.25 + 0.04 * (method == "ram") + 0.85 * math.exp(-iteration / SPEED[method]) + float(noise[k]),
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
        "macs_by_glimpse": [61_234 * (t + 1) for t in range(T)],
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
        "data": "npz:shapes.npz",
        "task": None,
        "classes": ["circle", "a $quare", "<b>triangle</b>"],
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
    }


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
    }


def make_run(path: Path, methods: tuple[str, ...] = ("ram", "ps-nogs"), seeds: tuple[int, ...] = SEEDS) -> Path:
    """A run directory as the stages leave it, of networks that never were."""
    geometry = Geometry(glimpse_size=8, stride=4, glimpses=T)
    open_run(path, "run", Run(Machine(path), geometry=geometry, methods=methods, seeds=seeds), resume=False)
    posterior = open_run(path / "posterior", "fit-posterior", FitPosterior(Machine(path / "posterior")), resume=False)
    posterior.finish(device="cpu")
    open_run(path / "bank", "build-bank", BuildBank(Machine(path / "bank")), resume=False).finish()
    config = Search(Machine(path / "sequences"), path / "posterior", path / "bank")
    searched = open_run(path / "sequences", "search", config, resume=False)
    n, L = 40, len(GRID)
    some = torch.zeros(n, T, L)
    save_sequences(
        searched, "sequences", Sequences(torch.arange(n), cells_of(n, 3, 1.0), some, some + 0, some[..., 0] + 0)
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
    out = path / "evaluation"
    evaluation = open_run(out, "evaluate", Evaluate(Machine(out), models, path / "sequences"), resume=False)
    for number, model in enumerate(models):
        record = {"cells": cells_of(50, number, 1.5), "labels": torch.zeros(50, dtype=torch.long)}
        evaluation.save_tensors(model.name, {**record, "log_probs": torch.zeros(50, T, CLASSES)})
    evaluation.save_tensors("examples", examples_of(3), grid=dataclasses.asdict(GRID))
    evaluation.save_json("results.json", results_of(methods, seeds))
    evaluation.finish(device="cpu")
    return path


class Reading(HTMLParser):
    """What a reader finds on the page: section ids, image sources, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        self.sources += [str(given[key]) for key in ("src", "srcset", "href") if given.get(key)]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_run(tmp_path_factory.mktemp("report") / "run")
    report(Report(path))
    return path


def test_every_section_and_figure_is_there_and_needs_no_network(run: Path) -> None:
    page = (run / "report.html").read_text()
    found = Reading(page)
    assert found.ids == list(SECTIONS)
    assert "http" not in page
    assert len(found.sources) == 2 * len(FIGURES)  # light and dark
    for source in found.sources:
        kind, content = source.split(",", 1)
        assert kind == "data:image/svg+xml;base64"
        assert b"</svg>" in base64.b64decode(content)
    assert {file.name for file in (run / "figures").iterdir()} == {f"{n}.{k}" for n in FIGURES for k in ("png", "pdf")}
    for name in FIGURES:
        assert (run / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (run / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_the_numbers_are_those_of_results_json(run: Path) -> None:
    text = Reading((run / "report.html").read_text()).text
    scores = json.loads((run / "evaluation" / "results.json").read_text())["methods"]
    for key, write in (
        ("iterations_to_target", lambda v: f"{v:,}"),
        ("iterations_to_converge", lambda v: f"{v:,}"),
        ("test_accuracy", lambda v: f"{100 * v:.1f} %"),
        ("test_balanced_accuracy", lambda v: f"{100 * v:.1f} %"),
        ("test_nll_nats", lambda v: f"{v:.3f}"),
    ):
        for name in scores:
            seeds = " · ".join("never" if value is None else write(value) for value in scores[name][key])
            assert seeds in text, (name, key)
    assert "1,200 ± 100" in text  # mean and standard deviation of 1,100, 1,200 and 1,300
    assert "91.6 ± 0.4 %" in text  # of 91.2, 91.6 and 92.0
    assert "245 k" in text  # 4 x 61,234 multiply-adds
    assert "0.299 nats" in text


def test_a_seed_that_never_arrived_makes_the_ratio_a_bound(run: Path) -> None:
    material = gather(run)
    # RAM: 4,000 and 4,400, and one that was trained for 6,000 without arriving; PS-NOGS: 1,200 on average.
    assert ratio(material, "ps-nogs") == "≥ 4.0"
    assert results_table(material)[0].cells[0] == ("≥ 4,800", ("4,000", "never", "4,400"))
    assert "RAM takes at least 4.0 times as many iterations" in captions.lead(material)
    assert "at least 4,800 against 1,200" in captions.lead(material)


def test_times_are_those_recorded(run: Path) -> None:
    times = {part.title: part.seconds for part in time_breakdown(gather(run))}
    # 6,000 iterations of 4 and 5 ms, three seeds each.
    assert times == pytest.approx({"Posterior": 131, "Search": 62, "Training RAM": 72, "Training PS-NOGS": 90})
    assert sum(part.share for part in time_breakdown(gather(run))) == pytest.approx(1)


def test_names_from_users_are_shown_as_they_are(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "Test image 3: &lt;b&gt;triangle" in page
    assert "Test image 2: a $quare" in page


def test_captions_say_what_the_numbers_say(run: Path) -> None:
    material = gather(run)
    assert "0.262 nats at designed locations and 0.650 at random ones" in captions.network_and_posterior(material)
    assert "off by 4.1 % at designed locations and 2.0 % at random ones" in captions.network_and_posterior(material)
    assert "RAM in 2 of 3 seeds and PS-NOGS in 3 of 3 seeds" in captions.validation_loss(material)
    # 0.6 and 0.6 / 7: the peaks of the maps at t = 1 and 4, where the glimpses were put.
    assert "0.6 nats at first and 0.086 at the last" in captions.information_gain(material, publishable=False)


def test_a_method_without_ram_has_no_target(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", methods=("ps-nogs",), seeds=(0,))
    text = Reading(report(Report(path)).read_text()).text
    assert "RAM ÷ method" not in text
    assert "There is no target" in text
    assert "never" not in text


def test_ram_alone_is_compared_with_nothing(tmp_path: Path) -> None:
    material = gather(make_run(tmp_path / "run", methods=("ram",), seeds=(0,)))
    assert "RAM ÷ method" not in [line.title for line in results_table(material)]
    assert captions.lead(material) == "RAM ends at 87.6 % test accuracy."


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", seeds=(0, 1))
    (path / "evaluation" / "examples.safetensors").unlink()
    for folder in ("sequences", "posterior", "train/ram-seed1", "train/ps-nogs-seed0", "train/ps-nogs-seed1"):
        (path / folder / "COMPLETE").unlink()
    results = results_of(("ram", "ps-nogs"), (0, 1))
    for key in ("accuracy_by_glimpse", "random_accuracy_by_glimpse", "calibration_error_by_glimpse"):
        del results["sequences"][key]
    RunDirectory(path / "evaluation").save_json("results.json", results)
    found = Reading(report(Report(path)).read_text())
    assert found.ids == list(SECTIONS)
    assert len(found.sources) == 2 * 4
    assert "Not drawn" in found.text
    assert ratio(gather(path), "ps-nogs") == "–"  # how long the seed that never arrived was trained is not known


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--run .* holds no evaluation"):
        report(Report(tmp_path))


def test_no_photograph_is_drawn_when_publishable(run: Path, tmp_path: Path) -> None:
    """Other photographs, the same page and figures, byte for byte: nothing of them is in it."""
    other = shutil.copytree(run, tmp_path / "other")
    evaluation = RunDirectory(other / "evaluation")
    noise = torch.randint(256, (3, 1, 48, 48), generator=chance(0), dtype=torch.uint8)
    evaluation.save_tensors("examples", {**examples_of(3), "pixels": noise}, grid=dataclasses.asdict(GRID))
    photographed = (run / "report.html").read_bytes()
    page, others = (report(Report(path, publishable=True)).read_bytes() for path in (run, other))
    assert page == others
    assert page != photographed
    assert b"photographs are not shown" in page
    for file in (run / "figures").iterdir():
        assert file.read_bytes() == (other / "figures" / file.name).read_bytes()


def test_coverage_adds_up_the_squares_that_were_looked_at() -> None:
    grid = Grid(image_px=4, glimpse_px=2, stride_px=1)
    shares = torch.zeros(9)
    shares[0], shares[4] = 0.25, 0.75  # top-left pixels (0, 0) and (1, 1)
    expected = [[0.25, 0.25, 0, 0], [0.25, 1, 0.75, 0], [0, 0.75, 0.75, 0], [0, 0, 0, 0]]
    assert maps.coverage(shares, grid).tolist() == expected


def test_tiles_meet_half_way_between_glimpse_centres() -> None:
    # Offsets 0, 4, 8, 10 (the last touches the border): centres 2, 6, 10, 12.
    assert maps.edges_px(Grid(image_px=14, glimpse_px=4, stride_px=4)) == [0, 4, 8, 11, 14]


def test_a_single_location_and_a_single_glimpse_are_drawn() -> None:
    grid = Grid(image_px=8, glimpse_px=8, stride_px=4)
    with drawn_in(LIGHT):
        figure = maps.where_they_look({"RAM": ("#123456", torch.ones(1, 1))}, torch.zeros(1, 8, 8), grid, LIGHT)
    assert len(figure.axes) == 2


def test_the_terminal_shows_the_table(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_results(run)
    printed = capsys.readouterr().out
    assert "PS-NOGS" in printed
    assert "1,200 ± 100" in printed
    assert printed.rstrip().endswith(f"report: {run / 'report.html'}")
