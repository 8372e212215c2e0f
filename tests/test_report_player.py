"""What a reader plays with, read as a browser reads it: labels, the JSON, and figures against results.json."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nogs.config.stages import Report
from nogs.evaluation.stopping import CurvePoint
from nogs.glimpses.grid import Grid
from nogs.report.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, chart_of
from nogs.report.notation import percent, short_count
from nogs.report.player import FINEST, _bytes, _edges, player_of
from nogs.report.read import gather
from nogs.report.style import BASIC, OF_METHOD
from nogs.runs.directory import RunDirectory
from nogs.runs.marker import write_marker
from nogs.stages.report import draw_report
from reported import GRID, NAMES, T, change_results, make_run, results_of, save_steps

MOST_BYTES = 4_000_000
METHODS = ("ram", "ps-nogs", "gain", "path")
CONTROLS = {"picture", "method-left", "method-right", "step", "map", "completed", "rule", "threshold"}


class Controls(HTMLParser):
    """The controls of a page with their names, the text of its scripts, and all attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.labels_for: set[str] = set()
        self.controls: list[tuple[dict[str, str | None], bool]] = []
        self.scripts: dict[str, str] = {}
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.labels = self.legends = 0
        self._script: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if identity := given.get("id"):
            self.ids.append(identity)
        if tag == "label":
            self.labels += 1
            self.labels_for.add(given.get("for") or "")
        elif tag in ("input", "select"):
            self.controls.append((given, self.labels > 0))
        elif tag == "script":
            self._script = given.get("id") or "script"
            self.scripts[self._script] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "label":
            self.labels -= 1
        elif tag == "script":
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[self._script] += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("player") / "run", methods=METHODS, seeds=(0, 1))


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nogs.report.page.DPI", 50)  # quick to draw
        return draw_report(Report(run)).read_text()


@pytest.fixture(scope="module")
def data(page: str) -> Any:
    return json.loads(Controls(page).scripts["player-data"])


def test_every_control_has_a_label_and_every_id_is_there_once(page: str) -> None:
    read = Controls(page)
    assert {given.get("id") or given.get("name") for given, _ in read.controls} == CONTROLS
    for given, inside in read.controls:
        assert inside or given["id"] in read.labels_for
    assert len(read.ids) == len({*read.ids})
    assert sum(given.get("name") == "picture" for given, _ in read.controls) == 5
    canvases = [(key, value) for tag, key, value in read.attributes if tag == "canvas"]
    assert canvases.count(("role", "img")) == 2
    assert page.count('role="status"') == 2


def test_the_page_is_one_small_file_that_may_load_nothing(page: str) -> None:
    assert len(page.encode()) < MOST_BYTES
    assert "http:" not in page
    assert "https:" not in page
    assert "default-src 'none'; img-src data:" in page
    sources = [value for _, key, value in Controls(page).attributes if key in ("src", "href", "srcset", "action")]
    assert all(source.startswith("data:image/") for source in sources)
    assert "//" not in "".join(source.split(",")[0] for source in sources)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of the Web Content Accessibility Guidelines 2.2."""

    def luminance(colour: str) -> float:
        shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in shares)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
def test_texts_and_lines_stand_out_from_the_paper(scheme: int) -> None:
    paper, around = BASIC["paper"][scheme], BASIC["around"][scheme]
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for name in ("ink", "faint", "wrong"):
        assert min(contrast(BASIC[name][scheme], paper), contrast(BASIC[name][scheme], around)) >= 4.5, name
    for method, pair in OF_METHOD.items():
        assert contrast(pair[scheme], paper) >= 3, method
    assert contrast(BASIC["designed"][scheme], paper) >= 3  # of the focus


def test_names_from_users_are_text(page: str, data: Any) -> None:
    assert data["classes"] == [*NAMES]
    assert "<b>triangle" not in page
    assert Controls(page).scripts["script"].lstrip().startswith('"use strict"')
    assert "innerHTML" not in Controls(page).scripts["script"]


def test_without_a_script_all_is_there_as_before(page: str) -> None:
    """Only with the script, and only on screens, the player replaces the static picture."""
    assert ".playing { display: none; }" in page
    assert "@media screen { .plays #answers { display: none; } }" in page
    assert 'classList.add("plays")' in page


def test_points_are_the_curves_of_results_json(run: Path, data: Any) -> None:
    results = json.loads((run / "evaluation" / "results.json").read_text())
    compared = 0
    for method, rules in results["stopping_by_threshold"].items():
        for rule, points in rules.items():
            shown = data["rules"][rule]["lines"][method]
            assert len(shown) == len(points) == len(data["rules"][rule]["settings"])
            for (_, glimpses, accuracy, _, macs), (_, _, *texts) in zip(points, shown, strict=True):
                assert texts == [f"{glimpses:.2f}", short_count(macs), percent(accuracy)]
                compared += 1
    assert compared == 4 * (4 + 6) + 4
    for rule in ("eig", "accuracy"):
        assert data["rules"][rule]["lines"].keys() == {"ps-nogs"}
        texts = [point[2:] for point in data["rules"][rule]["lines"]["ps-nogs"]]
        assert texts == [[f"{x:.2f}", short_count(m), percent(a)] for _, x, a, m in results["stopping"][rule]]
    assert data["rules"]["confidence"]["settings"][1:3] == ["above 50 %", "above 80 %"]
    assert data["rules"]["map"]["settings"][2] == "below 0.05 nats"


def test_points_lie_where_the_axes_say() -> None:
    chart = chart_of(results_of(("ram", "gain"), (0,)), "fixed", "Fixed")
    assert chart is not None
    first, last = chart.lines[1].points[0], chart.lines[1].points[-1]  # 0.5 after 1 glimpse, 0.9 after 4
    assert (first.x, last.x) == (LEFT, WIDTH - RIGHT)
    heights = {mark.text: mark.place for mark in chart.y_marks}
    assert heights["50 %"] == first.y == HEIGHT - BOTTOM
    assert heights["90 %"] == last.y == TOP
    assert [mark.text for mark in chart.x_marks] == ["1", "2", "3", "4"]
    assert chart_of(results_of(("ram",), (0,)), "map", "Map") is None


def test_accuracies_are_balanced_where_classes_are_uneven() -> None:
    results = results_of(("ps-nogs",), (0,))
    uneven = replace(results, test=replace(results.test, uneven=True))
    chart = chart_of(uneven, "fixed", "Fixed")
    assert chart is not None
    assert chart.measure == "balanced accuracy"
    assert [point.accuracy for point in chart.lines[0].points][-1] == "80.0 %"
    # The mean curves of fitted heads are of plain accuracy.
    assert chart_of(uneven, "eig", "Entropy") is None


def test_a_curve_of_one_point_is_drawn() -> None:
    results = replace(results_of(("ps-nogs",), (0,)), stopping={"eig": (CurvePoint(0.1, 1.0, 0.0, 10.0),)})
    chart = chart_of(results, "eig", "Entropy")
    assert chart is not None
    assert len(chart.lines[0].points) == 1


def test_steps_are_those_that_were_recorded(run: Path, data: Any) -> None:
    saved = RunDirectory(run / "evaluation").load_tensors("steps")
    assert data["labels"] == saved["labels"].tolist()
    assert data["methods"].keys() == {*METHODS, "designed"}
    for method in METHODS:
        for number, image in enumerate(data["methods"][method]["images"]):
            assert image["squares"] == GRID.squares_px(saved[f"{method}.cells"][number]).tolist()
            assert image["stops"].keys() >= {"fixed", "confidence"}
            assert image["stops"]["fixed"] == [1, 2, 3, 4]
            for t, answers in enumerate(image["steps"]):
                probs = saved[f"{method}.log_probs"][number, t].exp().tolist()
                assert answers[0][0] == int(np.argmax(probs))
                assert dict(answers) == {c: pytest.approx(p, abs=6e-4) for c, p in enumerate(probs)}
    designs = data["methods"]["designed"]["images"]
    assert len(designs) == 3
    # The peaks of the maps, 0.6 / (2 t + 1) at t = 0..3.
    assert designs[0]["tops"] == [f"expected gain up to {nats} nats" for nats in ("0.6", "0.2", "0.12", "0.086")]


def test_maps_are_greatest_where_the_glimpse_went(data: Any) -> None:
    side = len(data["edges"]) - 1
    assert side == GRID.side
    for method in ("ram", "ps-nogs", "gain"):
        top = "predicted gain up to 0.3 nats" if method == "gain" else "probability up to 30.0 %"
        for image in data["methods"][method]["images"]:
            assert image["tops"] == [top] * T
            maps = np.frombuffer(base64.b64decode(image["maps"]), np.uint8).reshape(T, side, side)
            for t, (row, column, _) in enumerate(image["squares"]):
                assert maps[t].max() == maps[t, row // GRID.stride_px, column // GRID.stride_px] == 255
    assert data["methods"]["path"]["images"][0]["maps"] is None


@pytest.mark.parametrize("cells", [1, 2, 31, 32, 33, 70])
def test_fine_maps_keep_their_greatest_values(cells: int) -> None:
    grid = Grid(image_px=8 * cells, glimpse_px=8, stride_px=8)
    maps = torch.zeros(2, cells, cells)
    maps[0, 0, cells - 1] = 1.0
    coarse = np.frombuffer(base64.b64decode(_bytes(maps.flatten(1), grid)), np.uint8)
    edges = _edges(grid)
    side = len(edges) - 1
    assert side <= FINEST
    square = coarse.reshape(2, side, side)
    assert square[0, 0, -1] == square.sum() == 255
    assert (edges[0], edges[-1]) == (0, 8 * cells)
    assert edges == sorted(edges)


def test_completions_are_those_of_each_glimpse_but_the_first(data: Any) -> None:
    assert [len(of) for of in data["completions"]] == [T - 1] * 3
    assert [weight for _, weight in data["completions"][0][0]] == ["50.0 %", "25.0 %"]
    content = base64.b64decode(data["completions"][0][0][0][0].split(",")[1])
    assert Image.open(io.BytesIO(content)).size == (48, 48)


def test_the_pictures_are_the_images(page: str, run: Path) -> None:
    saved = RunDirectory(run / "evaluation").load_tensors("steps")["pixels"]
    sources = [value for tag, key, value in Controls(page).attributes if tag == "img" and key == "src"]
    pictures = [source for source in sources if source.startswith("data:image/webp")]
    assert len(pictures) == 5
    for source, pixels in zip(pictures, saved, strict=True):
        image = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))
        assert (np.array(image.convert("L")) == pixels[0].numpy()).all()


def test_nothing_but_means_of_photographs_when_publishable(run: Path) -> None:
    player = player_of(gather(run, publishable=True))
    assert player is not None
    assert len({picture.source for picture in player.pictures}) == 1
    assert not player.has_completions
    assert json.loads(player.data)["completions"] == []
    assert "photographs are not shown" in player.caption


def test_a_run_that_recorded_no_steps_or_curves_has_a_page(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", methods=("ps-nogs",), seeds=(0,))
    evaluation = RunDirectory(path / "evaluation")
    save_steps(evaluation, ("ps-nogs",))
    change_results(path, stopping_by_threshold={}, stopping={})
    player = player_of(gather(path))
    assert player is not None
    assert player.charts == []
    assert (player.left, player.right) == ("ps-nogs", "designed")
    (evaluation.path / "steps.safetensors").unlink()
    write_marker(evaluation.path)
    assert player_of(gather(path)) is None
