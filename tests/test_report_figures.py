"""What the figures of costs, stopping, states and designs show, against hand counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

import nogs
from nogs.attention.methods import METHODS
from nogs.glimpses.grid import Grid
from nogs.report import captions, page
from nogs.report.figures import cost_parts, costs, design_step, maps, seconds, states, stopping, training
from nogs.report.read import Example, Step, gather
from nogs.report.records import balanced_accuracy
from nogs.report.style import DARK, LIGHT, RULES, Palette, drawn_in
from nogs.runs.directory import RunDirectory
from nogs.runs.marker import write_marker
from reported import cnns_of, make_run, results_of, stopping_of
from staged import GEOMETRY, RETRIEVAL, Stages
from tiny import T, write_npz


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("figures") / "run")


def test_every_method_and_rule_has_a_colour_of_its_own() -> None:
    for palette in (LIGHT, DARK):
        assert palette.methods.keys() == METHODS.keys()
        assert len(set(palette.methods.values())) == len(METHODS)
        assert palette.rules.keys() == RULES.keys()
        assert len(set(palette.rules.values())) == len(RULES)


def test_networks_are_means_over_their_seeds() -> None:
    found = costs.networks(cnns_of()["cnn"], "test_accuracy")
    assert [(n.macs, round(n.accuracy, 9), n.on_frontier) for n in found] == [
        (30_000, 0.71, True),
        (2_000_000, 0.69, False),
    ]


def test_balanced_accuracy_counts_every_class_alike() -> None:
    right = torch.tensor([[1, 1], [1, 0], [0, 0], [0, 1]]).bool()
    labels = torch.tensor([2, 2, 2, 0])  # no image of class 1
    assert balanced_accuracy(right, labels).tolist() == pytest.approx([(2 / 3 + 0) / 2, (1 / 3 + 1) / 2])


def test_costs_are_balanced_where_classes_are_not_even(tmp_path: Path) -> None:
    """Four test images of two classes, 3 to 1; after one glimpse all are called 0, after two all are right."""
    path = make_run(tmp_path / "run", methods=("ram", "ps-nogs"), seeds=(0,))
    assert not gather(path).costs.balanced
    evaluation, labels = RunDirectory(path / "evaluation"), torch.tensor([0, 0, 0, 1])
    says = torch.stack([torch.zeros(4, dtype=torch.long), labels], 1)
    record = {"cells": torch.zeros(4, 4, dtype=torch.long), "labels": labels}
    record["log_probs"] = torch.nn.functional.one_hot(says, 2).float()
    # Under 0.5 the first two images stop after one glimpse, the others go on; under 0 nobody stops.
    record["entropy_gain"] = torch.tensor([0.1, 0.2, 0.8, 0.9])[:, None]
    for name in ("ram-seed0", "ps-nogs-seed0"):
        evaluation.save_tensors(name, record)
    results = results_of(("ram", "ps-nogs"), (0,))
    curve = [[0.5, 1.5, 1.0, 150.0], [2.0, 1.0, 0.75, 100.0]]
    results |= {"stopping": {"eig": curve}, "stopping_by_seed": {"eig": [curve]}}
    for scores in results["methods"].values():
        scores["macs_by_glimpse"] = [100, 200]
    evaluation.save_json("results.json", results)
    write_marker(evaluation.path)
    found = gather(path).costs
    assert found.balanced
    assert found.fixed["ram"] == ([100, 200], [[0.5, 1.0]])
    assert found.adaptive == ("ps-nogs", ([100.0, 150.0], [[0.5, 1.0]]))
    assert captions.accuracy_over_cost(found).startswith("Balanced test accuracy")


def test_the_cost_figure_shows_all_of_it(run: Path) -> None:
    found = gather(run).costs
    (ax,) = costs.accuracy_over_cost(found, LIGHT).axes
    drawn = {line.get_label(): line.get_xydata() for line in ax.get_lines()}
    assert drawn["PS-NOGS, 1–4 glimpses"][:, 0].tolist() == [61_234 * t for t in (1, 2, 3, 4)]
    assert drawn["PS-NOGS, adaptive stopping"][-1].tolist() == pytest.approx([3e5, 0.92])
    assert drawn["best CNNs on validation"].tolist() == [[30_000, pytest.approx(0.71)]]
    assert drawn["upper bound"][0, 1] == pytest.approx(0.95)
    assert ax.get_xscale() == "log"


def test_a_band_goes_from_the_lowest_seed_to_the_highest() -> None:
    """Seeds that cross: 0.5 → 0.7 and 0.6 → 0.6, the second from 1.2 to 2 glimpses only."""
    seeds = [[[9, 2, 0.7, 1], [9, 1, 0.5, 1]], [[9, 1.2, 0.6, 1], [9, 2, 0.6, 1]]]
    x, low, high = stopping._band(seeds)
    assert (x[0], x[-1]) == (1.2, 2)
    assert low == pytest.approx(np.minimum(0.5 + 0.2 * (x - 1), 0.6))
    assert high == pytest.approx(np.maximum(0.5 + 0.2 * (x - 1), 0.6))


def test_stopping_has_a_line_a_rule_and_a_panel_a_rival() -> None:
    given: dict[str, Any] = stopping_of(3)
    keys = ("stopping", "stopping_by_seed", "stopping_advantage")
    figure = stopping.stopping(*(given[key] for key in keys), LIGHT)
    above, *beneath = figure.axes
    assert [line.get_label() for line in above.get_lines()] == list(RULES.values())[:-1]
    assert [ax.get_title() for ax in beneath] == [
        f"over {rival}" for rival in ("confidence", "ACT", "stochastic stop", "fixed number")
    ]
    for line, rule in zip(beneath[0].get_lines()[1:], ("eig", "accuracy"), strict=True):
        assert line.get_ydata() == pytest.approx(1.0)  # 0.01, in points
        assert line.get_color() == LIGHT.rules[rule]


def test_any_subset_of_rules_is_drawn() -> None:
    given = stopping_of(1)["stopping"]
    figure = stopping.stopping({"fixed": given["fixed"]}, {}, {}, LIGHT)
    assert [line.get_label() for line in figure.axes[0].get_lines()] == ["Fixed number"]


def test_states_in_a_plane_keep_their_distances() -> None:
    """Principal components of points of a plane are a rotation of it, seen from their mean."""
    generator = torch.Generator().manual_seed(0)
    plane = torch.linalg.qr(torch.randn(7, 2, generator=generator)).Q
    points = torch.randn(12, 3, 2, generator=generator)
    figure = states.posterior_states(points @ plane.T + 5, torch.arange(12) % 2, ["a", "$b"], LIGHT)
    shown = np.stack([np.asarray(ax.collections[0].get_offsets()) for ax in figure.axes], 1)
    flat, given = (np.reshape(p, (-1, 2)) for p in (shown, points.numpy()))
    distances = [np.linalg.norm(p[:, None] - p[None], axis=-1) for p in (flat, given)]
    assert distances[0] == pytest.approx(distances[1], abs=1e-4)


def test_bars_of_seconds_are_stacked_to_the_total(run: Path) -> None:
    rows = seconds.spent(gather(run))
    (ax,) = seconds.seconds_to_target(rows, LIGHT).axes
    bars = [(bar.get_y() + 0.3, bar.get_x(), bar.get_width()) for bar in ax.patches if bar.get_width()]
    # RAM 21; PS-NOGS 131 + 3 + 62 + 7.5.
    expected = [(0, 0, 21), (1, 0, 131), (1, 131, 3), (1, 134, 62), (1, 196, 7.5)]
    assert bars == [pytest.approx(bar) for bar in expected]
    assert [text.get_text().strip() for text in ax.texts] == ["≥ 21 s", "3 min 24 s"]
    numbers = seconds.table(rows)
    assert numbers.head == ("seconds", "posterior", "bank", "search", "training", "total", "seeds that arrived")
    assert [[cell.summary for cell in line.cells] for line in numbers.lines] == [
        ["–", "–", "–", "≥ 21.0", "≥ 21.0", "2 of 3"],
        ["131", "3.0", "62.0", "7.5", "204", "3 of 3"],
    ]


def test_the_caption_of_seconds_tells_a_bound_and_who_is_left_out(run: Path) -> None:
    material = gather(run)
    caption = captions.end_to_end(seconds.spent(material), material)
    assert "RAM at least 21 s and PS-NOGS 3 min 24 s" in caption
    assert "one after the other, though seeds may have run side by side" in caption
    assert "makes a bound (≥)" in caption
    assert "Not drawn" not in caption
    del material.results["end_to_end"]["ps-nogs"]
    assert caption != captions.end_to_end(seconds.spent(material), material)
    left_out = captions.end_to_end(seconds.spent(material), material)
    assert "what its sequences cost is not known: PS-NOGS" in left_out


def test_the_parts_of_a_glimpse_are_those_that_multiply(run: Path) -> None:
    assert cost_parts.parts_of_a_glimpse(gather(run)) == {"locator": 20_000, "embedding": 41_000, "classifier": 234}


def test_the_design_of_a_glimpse_hides_photographs_on_demand() -> None:
    grid = Grid(image_px=8, glimpse_px=4, stride_px=4)
    step = Step(
        torch.zeros(2, 1, 8, 8).byte(), torch.ones(2) / 2, torch.rand(2, 4), torch.rand(4), torch.tensor([0, 3])
    )
    shown, hidden = (
        design_step.design_of_a_glimpse(step, torch.zeros(1, 8, 8), grid, LIGHT, photographs=photographs)
        for photographs in (True, False)
    )
    # What was seen, each completion, and the choice; or what was seen alone.
    assert [sum(bool(ax.images) for ax in figure.axes) for figure in (shown, hidden)] == [4, 1]
    assert [sum(len(ax.collections) == 1 for ax in figure.axes[:-1]) for figure in (shown, hidden)] == [3, 3]


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("glimpses", [1, 2, 5, 12])
def test_no_text_of_the_gain_maps_is_cut_off(glimpses: int, palette: Palette) -> None:
    """Glimpses in corners, numbers and a name as long as they come."""
    grid = Grid(image_px=64, glimpse_px=4, stride_px=2)
    corners = [0, grid.side - 1, len(grid) - grid.side, len(grid) - 1]
    cells = torch.tensor([corners[t % 4] for t in range(glimpses)])
    eig = torch.full((glimpses, len(grid)), 3.4e-4)
    example = Example(torch.zeros(1, 64, 64).byte(), 0, cells, eig, torch.zeros(glimpses, 2), None)
    with drawn_in(palette):
        name = maps.example_name(12, "an elephant under a tree")
        figure = maps.information_gain(example, example.picture, grid, palette, name=name, most_nats=3.4e-4)
    assert_whole(figure)


@pytest.mark.parametrize("photographs", [False, True])
def test_no_text_of_a_design_is_cut_off(photographs: bool) -> None:
    grid = Grid(image_px=64, glimpse_px=4, stride_px=2)
    maps_nats, cells = torch.full((5, len(grid)), 3.4e-4), torch.tensor([0, len(grid) - 1])
    step = Step(torch.zeros(5, 1, 64, 64).byte(), torch.ones(5) / 5, maps_nats, maps_nats[0], cells)
    with drawn_in(LIGHT):
        figure = design_step.design_of_a_glimpse(step, torch.zeros(1, 64, 64), grid, LIGHT, photographs=photographs)
    assert_whole(figure)


def assert_whole(figure: Figure) -> None:
    """Every text lies within the figure, at the resolutions of screens and of print."""
    for dpi in (72, page.DPI):
        figure.set_dpi(dpi)
        figure.draw_without_rendering()
        texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
        assert {"nats", "8.5e-05", "0.00034"} <= {text.get_text() for text in texts}
        for text in texts:
            box = text.get_window_extent()
            assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, text
            assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1, text


def test_figures_take_every_method_at_once(tmp_path: Path) -> None:
    material = gather(make_run(tmp_path / "run", methods=tuple(METHODS), seeds=(0, 1)))
    iterations = {name: material.trained(name, "iteration") for name in METHODS}
    assert len(training.races(material.methods, iterations, LIGHT).axes) == 2
    assert len(costs.accuracy_over_cost(material.costs, LIGHT).axes[0].get_lines()) == len(METHODS) + 5
    assert material.grid is not None
    assert material.mean_image is not None
    rows = {name: (LIGHT.method(name), shares) for name, shares in material.looks.items()}
    assert len(maps.where_they_look(rows, material.mean_image, material.grid, LIGHT).axes) == len(METHODS) * 5


@pytest.mark.slow
def test_an_evaluation_keeps_the_completions_that_the_next_glimpse_was_chosen_by(tmp_path: Path) -> None:
    """So few that all are kept: their maps, weighted, are the map of the expected information gain."""
    stages = Stages(tmp_path, write_npz(tmp_path / "tiny.npz"))
    stages.posterior(iterations=20)
    stages.bank()
    few = nogs.RetrievalOptions(**{**RETRIEVAL.__dict__, "completions": 3})
    stages.search(retrieval=few)
    stages.train("ram-0", "ram", iterations=20)
    evaluation = stages.evaluate("evaluation", "ram-0")
    saved, t = evaluation.load_tensors("examples"), T // 2
    weights, gains = saved["completion_weights"], saved["completion_gains"]
    whole = weights.sum(1) > 0.999
    assert whole.any()
    expected = saved["eig"][:, t]
    torch.testing.assert_close((weights[:, :, None] * gains).sum(1)[whole], expected[whole], rtol=0, atol=1e-5)
    states = evaluation.load_tensors("states")
    assert states["states"].shape[:2] == (len(states["labels"]), GEOMETRY.glimpses)
    parts = json.loads((evaluation.path / "results.json").read_text())["methods"]["ram"]
    assert sum(parts["macs_by_part"].values()) == parts["macs_by_glimpse"][0]
