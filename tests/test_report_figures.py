"""The figures of costs, stopping, seconds, answers and designs, against values counted by hand."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

import nogs
from nogs.attention.methods import METHODS
from nogs.glimpses.grid import Grid
from nogs.report import page
from nogs.report.figures import answers, costs, design_step, gain_maps, learning, looks, posterior, seconds, stopping
from nogs.report.read import Answers, Example, Step, gather
from nogs.report.style import DARK_OF, LOSS, OF_METHOD, RULE_COLOURS, RULES, for_both_papers, styled
from nogs.stopping.curves import CurvePoint
from reported import cnns_of, make_run, results_of, stopping_of
from staged import RETRIEVAL, Stages
from tiny import T, write_npz


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("figures") / "run")


def test_every_method_and_rule_has_a_colour_of_its_own() -> None:
    assert OF_METHOD.keys() == METHODS.keys()
    assert RULE_COLOURS.keys() == RULES.keys()
    for which in (0, 1):
        assert len({pair[which] for pair in OF_METHOD.values()}) == len(METHODS)
    assert len({DARK_OF[colour] for colour in RULE_COLOURS.values()}) == len(RULES)


def test_colours_of_an_image_become_variables_of_its_style_sheet() -> None:
    (light, dark), other = OF_METHOD["ram"], "#123456"
    image = f'<?xml?><svg width="1"><path style="fill: {light}; stroke: {other}"/></svg>'
    name = f"--c{light[1:]}"
    assert for_both_papers(image) == (
        f'<?xml?><svg width="1"><style>:root{{{name}:{light};}}@media (prefers-color-scheme:dark)'
        f'{{:root{{{name}:{dark};}}}}</style><path style="fill: var({name}); stroke: {other}"/></svg>'
    )


def test_costs_are_balanced_where_classes_are_uneven() -> None:
    results = results_of(("ram", "ps-nogs"), (0,)).with_cnns(cnns_of())
    balanced = {
        rule: tuple(tuple(p._replace(accuracy=0.55) for p in c) for c in curves)
        for rule, curves in results.stopping_by_seed.items()
    }
    uneven = replace(results, test=replace(results.test, uneven=True), stopping_balanced_by_seed=balanced)
    (ax,) = costs.accuracy_over_cost(uneven).axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in ax.get_lines()}
    assert ax.get_ylabel() == "balanced test accuracy"
    assert drawn["RAM, 1–4 glimpses"] == pytest.approx([0.4, 0.5, 0.6, 0.7])
    assert set(drawn["PS-NOGS, adaptive stopping"]) == {0.55}
    assert drawn["ShuffleNetV2"] == pytest.approx([0.6])
    assert drawn["logistic regression"] == [0.78]


def test_the_cost_figure_shows_all_of_it(run: Path) -> None:
    (ax,) = costs.accuracy_over_cost(gather(run).results).axes
    drawn = {line.get_label(): line.get_xydata() for line in ax.get_lines()}
    assert drawn["PS-NOGS, 1–4 glimpses"][:, 0].tolist() == [61_234 * t for t in (1, 2, 3, 4)]
    assert drawn["PS-NOGS, adaptive stopping"][-1].tolist() == pytest.approx([3e5, 0.92])
    assert drawn["best CNNs on validation"].tolist() == [[30_000, pytest.approx(0.71)]]
    assert drawn["logistic regression"].tolist() == [[1728, 0.811]]
    assert drawn["upper bound"][0, 1] == pytest.approx(0.95)
    assert ax.get_xscale() == "log"


def test_a_band_goes_from_the_lowest_seed_to_the_highest() -> None:
    """Seeds that cross: 0.5 → 0.7 and 0.6 → 0.6, the second from 1.2 to 2 glimpses only."""
    seeds = [
        (CurvePoint(9, 2, 0.7, 1), CurvePoint(9, 1, 0.5, 1)),
        (CurvePoint(9, 1.2, 0.6, 1), CurvePoint(9, 2, 0.6, 1)),
    ]
    x, low, high = stopping._band(seeds)
    assert (x[0], x[-1]) == (1.2, 2)
    assert low == pytest.approx(np.minimum(0.5 + 0.2 * (x - 1), 0.6))
    assert high == pytest.approx(np.maximum(0.5 + 0.2 * (x - 1), 0.6))


def test_stopping_has_a_line_a_rule_and_a_panel_a_rival() -> None:
    given: dict[str, Any] = stopping_of(3)
    keys = ("stopping", "stopping_by_seed", "stopping_advantage")
    figure = stopping.stopping(*(given[key] for key in keys))
    above, *beneath = figure.axes
    drawn = [title for rule, title in RULES.items() if rule in given["stopping"]]
    assert [line.get_label() for line in above.get_lines()] == drawn
    assert len(drawn) > 5
    assert [ax.get_title() for ax in beneath] == [
        f"over {rival}" for rival in ("confidence", "ACT", "ACT, trained jointly", "stochastic stop", "fixed number")
    ]
    for line, rule in zip(beneath[0].get_lines()[1:], ("eig", "accuracy"), strict=True):
        assert line.get_ydata() == pytest.approx(1.0)  # 0.01, in points
        assert line.get_color() == RULE_COLOURS[rule]


def test_any_subset_of_rules_is_drawn() -> None:
    given = stopping_of(1)["stopping"]
    figure = stopping.stopping({"fixed": given["fixed"]}, {}, {})
    assert [line.get_label() for line in figure.axes[0].get_lines()] == ["Fixed number"]


def test_bars_of_seconds_are_stacked_to_the_total(run: Path) -> None:
    rows = gather(run).results.end_to_end
    (ax,) = seconds.seconds_to_target(rows).axes
    bars = [(bar.get_y() + 0.3, bar.get_x(), bar.get_width()) for bar in ax.patches if bar.get_width()]
    # RAM 21; PS-NOGS 131 + 3 + 62 + 7.5.
    expected = [(0, 0, 21), (1, 0, 131), (1, 131, 3), (1, 134, 62), (1, 196, 7.5)]
    assert bars == [pytest.approx(bar) for bar in expected]
    assert [text.get_text().strip() for text in ax.texts] == ["≥ 21 s", "3 min 24 s"]
    numbers = seconds.table(rows)
    titles = ["seconds", "posterior", "bank", "search", "training", "total", "seeds that reached it"]
    assert [column.title for column in numbers.columns] == titles
    assert [[cell.summary for cell in line.cells] for line in numbers.lines] == [
        ["–", "–", "–", "≥ 21.0", "≥ 21.0", "2 of 3"],
        ["131", "3.0", "62.0", "7.5", "204", "3 of 3"],
    ]


def test_the_caption_of_seconds_names_bounds_and_methods_that_are_left_out(run: Path) -> None:
    material = gather(run)
    caption = seconds.section(material).caption
    assert "as if all stages ran one after the other" in caption
    assert "so its method has a bound (≥)" in caption
    assert "is not known" not in caption
    known = {name: row for name, row in material.results.end_to_end.items() if name == "ram"}
    left_out = replace(material, results=replace(material.results, end_to_end=known))
    assert "The cost of the sequences of PS-NOGS is not known." in seconds.section(left_out).caption


def test_a_mean_of_seeds_ends_with_the_first_of_them() -> None:
    logs = {
        "ram": [
            [{"iteration": 100 * i, "seconds": i, "nll_nats": x} for i, x in enumerate(losses, 1)]
            for losses in ((1.0, 0.8, 0.6), (0.6, 0.4))
        ]
    }
    left, right = learning.validation_loss(logs, 0.5).axes
    means = [line for line in left.get_lines() if line.get_label() == "RAM"]
    assert [line.get_xydata().tolist() for line in means] == [[[100, pytest.approx(0.8)], [200, pytest.approx(0.6)]]]
    assert len(right.get_lines()) == 4  # two seeds, their mean, the target


def test_the_posterior_is_drawn_at_designed_shuffled_and_random_locations() -> None:
    figure = posterior.posterior(results_of(("ram",), (0,)).sequences)
    losses = [line.get_ydata()[-1] for line in figure.axes[0].get_lines()]
    assert losses == [0.262, 0.288, 0.65]


def test_answers_are_named_and_mistakes_are_red() -> None:
    grid = Grid(image_px=8, glimpse_px=4, stride_px=4)
    log_probs = torch.tensor([[0.9, 0.1], [0.3, 0.7]]).log()[:, None]
    pixels, cells = torch.zeros(2, 1, 8, 8).byte(), torch.tensor([[0], [3]])
    given = Answers("ram", 0, pixels, torch.tensor([0, 0]), cells, log_probs)
    figure = answers.single_images(given, grid, ("a", "$b"), picture=None)
    right, wrong = figure.axes
    assert right.get_title() == "a, 90 %"
    assert wrong.get_title() == "\\$b, 70 %\nis a"
    assert [ax.title.get_color() == LOSS for ax in (right, wrong)] == [False, True]


def test_the_design_of_a_glimpse_hides_photographs_on_demand() -> None:
    grid = Grid(image_px=8, glimpse_px=4, stride_px=4)
    step = Step(
        torch.zeros(2, 1, 8, 8).byte(), torch.ones(2) / 2, torch.rand(2, 4), torch.rand(4), torch.tensor([0, 3])
    )
    shown, hidden = (
        design_step.design_of_a_glimpse(step, torch.zeros(1, 8, 8), grid, photographs=photographs)
        for photographs in (True, False)
    )
    # What was seen, each completion, and the choice; or what was seen alone.
    assert [sum(bool(ax.images) for ax in figure.axes) for figure in (shown, hidden)] == [4, 1]
    assert [sum(len(ax.collections) == 1 for ax in figure.axes[:-1]) for figure in (shown, hidden)] == [3, 3]


@pytest.mark.parametrize("glimpses", [1, 2, 5, 12])
def test_no_text_of_the_gain_maps_is_cut_off(glimpses: int) -> None:
    """Glimpses in corners, numbers and a name as long as they come."""
    grid = Grid(image_px=64, glimpse_px=4, stride_px=2)
    corners = [0, grid.side - 1, len(grid) - grid.side, len(grid) - 1]
    cells = torch.tensor([corners[t % 4] for t in range(glimpses)])
    eig = torch.full((glimpses, len(grid)), 3.4e-4)
    example = Example(torch.zeros(1, 64, 64).byte(), 0, cells, eig, torch.zeros(glimpses, 2), None)
    with styled():
        name = "Test image 12: an elephant under a t…"
        figure = gain_maps.information_gain(example, example.picture, grid, name=name, most_nats=3.4e-4)
    assert_whole(figure)


@pytest.mark.parametrize("photographs", [False, True])
def test_no_text_of_a_design_is_cut_off(photographs: bool) -> None:
    grid = Grid(image_px=64, glimpse_px=4, stride_px=2)
    maps_nats, cells = torch.full((5, len(grid)), 3.4e-4), torch.tensor([0, len(grid) - 1])
    step = Step(torch.zeros(5, 1, 64, 64).byte(), torch.ones(5) / 5, maps_nats, maps_nats[0], cells)
    with styled():
        figure = design_step.design_of_a_glimpse(step, torch.zeros(1, 64, 64), grid, photographs=photographs)
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
    lines = costs.accuracy_over_cost(material.results).axes[0].get_lines()
    assert len(lines) == len(METHODS) + 6  # stopping, two kinds of CNN, logistic regression, frontier, upper bound
    figure = looks.where_they_look(material.looks, material.mean_image, material.grid)
    assert len(figure.axes) == (len(METHODS) + 1) * 5


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
    weights, gains = saved["completion_weights_by_glimpse"][:, t - 1], saved["completion_gains"]
    assert saved["completions_by_glimpse"].shape[:3] == (4, T - 1, weights.shape[1])
    whole = weights.sum(1) > 0.999
    assert whole.any()
    expected = saved["eig"][:, t]
    torch.testing.assert_close((weights[:, :, None] * gains).sum(1)[whole], expected[whole], rtol=0, atol=1e-5)
    parts = json.loads((evaluation.path / "results.json").read_text())["methods"]["ram"]
    assert sum(parts["macs_by_part"].values()) == parts["macs_by_glimpse"][0]


def test_large_pictures_of_a_figure_become_smaller_and_stay_alike() -> None:
    """A smooth picture with a transparent half; a small one stays as it is."""
    y, x = np.mgrid[:160, :160]
    noise = np.random.default_rng(0).integers(0, 30, (160, 160))
    pixels = np.dstack((x, y, (x + y) // 2 + noise, np.where(x < 80, 115, 255))).astype(np.uint8)

    def embedded(picture: Image.Image) -> str:
        file = io.BytesIO()
        picture.save(file, "PNG")
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()

    large, small = embedded(Image.fromarray(pixels)), embedded(Image.fromarray(pixels[:20, :20]))
    svg = f'<svg><image xlink:href="{large}"/><image xlink:href="{small}" y="2"/></svg>'
    lighter = page.lighter(svg)
    assert small in lighter
    assert len(lighter) < 0.3 * len(svg)
    kind, content = lighter.split('"')[1].split(",")
    assert kind == "data:image/webp;base64"
    kept = np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))).astype(int)
    assert (kept[..., 3] == pixels[..., 3]).all()
    assert np.abs(kept - pixels).mean() < 4
