"""The page of one run: a run directory in the true format, made by hand, and the page that is drawn from it."""

from __future__ import annotations

import base64
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from nogs.config.stages import Report
from nogs.errors import UserError
from nogs.glimpses.grid import Grid
from nogs.report.figures import looks, maps
from nogs.report.lead import lead_of_poster, lead_of_run
from nogs.report.read import gather
from nogs.report.run_page import build, sections_of
from nogs.report.section import Cell, Table
from nogs.report.style import BASIC, DARK_OF, OF_METHOD, OF_RULE, OUTLINE, styled
from nogs.report.tables import exact_tests, methods_table, print_results, results_table
from nogs.runs.directory import RunDirectory
from nogs.runs.marker import write_marker
from nogs.stages.report import draw_report
from reported import NAMES, chance, change_results, cnns_of, make_run, results_of, save_examples

ALWAYS = ("answers", "adaptivity", "results", "classes", "where-they-look", "design-of-a-glimpse")
ALWAYS += ("information-gain", "posterior")
SECTIONS = ("title", "player", "thresholds", *ALWAYS[:3], "validation-loss", "end-to-end", *ALWAYS[3:])
SECTIONS += ("cost", "stopping", "tests", "about")
TABLES_ALONE = {"title", "player", "thresholds", "results", "classes", "tests", "about"}
FIGURES = {*SECTIONS} - TABLES_ALONE - {"information-gain"} | {f"information-gain-{number}" for number in (1, 2, 3)}


class Reading(HTMLParser):
    """The content of the page: section ids, image sources, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id") and tag in ("header", "section"):
            self.ids.append(str(given["id"]))
        self.sources += [str(given[key]) for key in ("src", "srcset", "href") if given.get(key)]

    def handle_data(self, data: str) -> None:
        self.text += data


def images_of(page: Path) -> list[str]:
    """The figures. The photographs that a reader plays with are no SVG (tests/test_report_player.py)."""
    sources = [source.split(",", 1) for source in Reading(page.read_text()).sources]
    svg = "data:image/svg+xml;base64"
    assert {kind for kind, _ in sources} == {svg, "data:image/webp;base64"}
    return [base64.b64decode(content).decode() for kind, content in sources if kind == svg]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_run(tmp_path_factory.mktemp("report") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nogs.report.page.DPI", 50)  # quick to draw
        draw_report(Report(path, figures=("png",)))
    return path


def test_every_section_and_figure_is_there_once_and_needs_no_network(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert Reading(page).ids == list(SECTIONS)
    assert "http" not in page.replace("http-equiv", "")
    assert len({*images_of(run / "report.html")}) == len(images_of(run / "report.html")) == len(FIGURES)
    assert all("</svg>" in image for image in images_of(run / "report.html"))
    assert {file.name for file in (run / "figures").iterdir()} == {f"{name}.png" for name in FIGURES}
    for name in FIGURES:
        assert (run / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_figures_are_written_in_every_format(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    beginnings = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    draw_report(Report(path, figures=tuple(beginnings)))
    assert {file.name for file in (path / "figures").iterdir()} == {f"{n}.{k}" for n in FIGURES for k in beginnings}
    for file in (path / "figures").iterdir():
        assert file.read_bytes().startswith(beginnings[file.suffix[1:]])


def test_the_first_thing_is_a_sentence_and_the_second_a_picture(run: Path) -> None:
    page = (run / "report.html").read_text()
    parts = ('class="lead"', "<img", "image/svg+xml", "Logistic regression on small", '<section id="results"')
    places = [page.index(part) for part in parts]
    assert places == sorted(places)
    assert page.count('class="lead"') == 1


def test_every_colour_of_a_figure_has_its_counterpart_on_dark_paper(run: Path) -> None:
    """Outlines of glimpses lie on photographs, which are the same on both."""
    for image in images_of(run / "report.html"):
        sheet, drawing = re.fullmatch(r".*?<svg[^>]*><style>(.*?)</style>(.*)", image, re.DOTALL).groups()
        assert {*re.findall(r"#[0-9a-f]{6}\b", drawing)} <= {OUTLINE}
        light, dark = sheet.split("@media (prefers-color-scheme:dark)")
        used = {*re.findall(r"var\(--c([0-9a-f]{6})\)", drawing)}
        assert used
        assert dict(re.findall(r"--c(\w{6}):#(\w{6})", light)) == {colour: colour for colour in used}
        there = dict(re.findall(r"--c(\w{6}):#(\w{6})", dark))
        assert there == {colour: DARK_OF[f"#{colour}"][1:] for colour in used}


def test_no_two_colours_of_light_paper_are_one_colour() -> None:
    """The colours of dark paper are found by those of light paper, so two equal ones could not be told apart."""
    pairs = {*BASIC.values(), *OF_METHOD.values(), *OF_RULE.values()}
    assert len({light for light, _ in pairs}) == len(pairs)


def test_the_numbers_are_those_of_results_json(run: Path) -> None:
    text = Reading((run / "report.html").read_text()).text
    scores = json.loads((run / "evaluation" / "results.json").read_text())["methods"]
    for key, write in (
        ("iterations_to_target", lambda v: f"{v:,}"),
        ("iterations_to_best_seed", lambda v: f"{v:,}"),
        ("test_accuracy", lambda v: f"{100 * v:.1f}"),
        ("sampled_test_accuracy", lambda v: f"{100 * v:.1f}"),
        ("test_nll_nats", lambda v: f"{v:.3f}"),
    ):
        for name in scores:
            seeds = " · ".join("never" if value is None else write(value) for value in scores[name][key])
            assert seeds in text, (name, key)
    assert "1,200" in text  # the mean of 1,100, 1,200 and 1,300
    assert "91.6 %" in text  # of 91.2, 91.6 and 92.0
    assert "245 k" in text  # 4 x 61,234 multiply-adds
    assert "0.299 nats" in text
    assert "0.288" in text  # of RAM's best seed


def cells(table: Table, title: str) -> list[tuple[str, tuple[str, ...]]]:
    (line,) = [line for line in table.lines if line.title == title]
    return [tuple(cell) for cell in line.cells]


def test_a_seed_that_never_arrived_makes_the_ratio_a_bound() -> None:
    results = results_of(("ram", "ps-nogs"), (0, 1, 2))
    table = methods_table(results)
    # RAM: 4,000 and 4,400, and one that was trained for 6,000 without arriving; PS-NOGS: 1,200 on average.
    assert cells(table, "Iterations to target")[0] == ("≥ 4,800", ("4,000", "never", "4,400"))
    assert cells(table, "Iterations to target, RAM ÷ method") == [("–", ()), ("≥ 4.0 ×", ())]
    assert cells(table, "Test accuracy, minus RAM")[1] == ("+3.6 points", ("+3.6", "+3.6", "+3.6"))
    assert cells(table, "Seconds to target, from nothing") == [("≥ 21.0", ()), ("204", ())]
    assert not [line for line in table.lines if "path" in line.title]


def test_networks_on_whole_images_stand_beside_the_methods() -> None:
    """Logistic regression and every CNN of a few; of many the most accurate on validation images."""
    results = results_of(("ram", "ps-nogs"), (0,)).with_cnns(cnns_of())
    table = results_table(results)
    titles = ["", "RAM", "PS-NOGS", "Logistic regression, whole image at 24 px"]
    cnns = ["ShuffleNetV2, whole image at 24 px", "MobileNetV2, whole image at 24 px"]
    assert [column.title for column in table.columns] == titles + cnns
    assert [cell for cell, _ in cells(table, "Test accuracy")][2:] == ["81.1 %", "71.0 %", "69.0 %"]
    assert [cell for cell, _ in cells(table, "Multiply-adds of an image")][2:] == ["1.73 k", "30 k", "2 M"]
    assert [cell for cell, _ in cells(table, "Iterations to target")][2:] == ["–"] * 3
    many = replace(results, cnn_means=results.cnn_means * 2)
    assert [column.title for column in results_table(many).columns] == titles + cnns[:1]


def test_adaptivity_is_shown_at_each_glimpse(run: Path) -> None:
    """In the lead, in a figure on the first screen, and in a table of every seed."""
    page = Reading((run / "report.html").read_text())
    assert "in nats at each glimpse: PS-NOGS 0.00, 0.30, 0.60, 0.90; RAM 0.00, 0.30, 0.60, 0.90." in page.text
    assert page.ids[4] == "adaptivity"
    (section,) = [section for section in sections_of(gather(run)) if section.id == "adaptivity"]
    assert section.table is not None
    assert [line.title for line in section.table.lines] == ["RAM", "PS-NOGS"]
    assert section.table.lines[0].cells[3] == Cell("0.90", ("0.90", "0.90", "0.90"))


def test_the_lead_has_losses_as_well_as_wins_and_the_test_images() -> None:
    lead = " ".join(lead_of_run(results_of(("ram", "ps-nogs", "path", "ws-ram"), (0, 1, 2))))
    assert lead.startswith(
        "On 1,234 test images, PS-NOGS classifies 91.6 % correctly and RAM 88.0 % (+3.6 points); it needs 1,200 "
        "iterations to the target loss and RAM at least 4,800, and takes 3 min 24 s from nothing, all its "
        "preparations counted, and RAM at least 21 s."
    )
    assert "PS-NOGS classifies 91.6 % correctly and the path 91.6 % (+0.0 points)" in lead
    assert "WS-RAM 91.6 % (+3.6 points)" in lead
    assert "Logistic regression on small whole images has 81.1 %." in lead
    assert "2 files or rows could not be used and were left out." in lead
    assert "no better than" not in lead


def test_the_lead_has_each_seed_where_seeds_disagree() -> None:
    results = results_of(("ram", "ps-nogs"), (0, 1))
    against = replace(results.comparisons["ram"]["ps-nogs"], test_accuracy_difference=(-0.2, 0.59))
    disagreeing = replace(results, comparisons={"ram": {"ps-nogs": against}})
    assert "(+3.6 points; by seed −20.0 points and +59.0 points)" in lead_of_run(disagreeing)[0]


def test_a_posterior_without_use_is_in_the_lead() -> None:
    results = results_of(("ram", "ps-nogs"), (0,))
    useless = replace(results, sequences=replace(results.sequences, worth="no better than chance"))
    assert "The posterior that designed the sequences is no better than chance" in lead_of_run(useless)[-1]


def test_a_target_that_a_constant_answer_reaches_is_no_race() -> None:
    results = replace(results_of(("ram", "ps-nogs"), (0,)), target_is_chance=True)
    lead = " ".join(lead_of_run(results))
    assert "RAM learned no more than the class frequencies, so the target loss is reached at once." in lead
    assert "iterations to the target" not in lead
    assert "from nothing" not in lead


def test_a_race_to_a_target_at_chance_is_in_no_table_and_no_figure(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", seeds=(0, 1))
    change_results(path, target_is_chance=True)
    page = build(gather(path)).html
    text = Reading(page).text
    assert "no better than the class frequencies, which any network reaches at once, so iterations" in text
    for left_out in ("Iterations to target", "Seconds to target", "RAM’s best seed", "dashed line", "from nothing"):
        assert left_out not in text
    assert "end-to-end" not in Reading(page).ids
    results = gather(path).results
    poster = " ".join(lead_of_poster({"a": results, "b": results}))
    assert "more accurate on 2" in poster
    assert "fewer" not in poster
    tests = exact_tests(results)
    assert tests is not None
    assert tests.table is not None
    assert [column.title for column in tests.table.columns] == ["", "accuracy", "images, seed 0", "images, seed 1"]
    assert all(len(line.cells) == 3 for line in tests.table.lines)


def test_exact_tests_stand_at_the_end(run: Path) -> None:
    """Three pairs, all of one sign: 2 of the 2^3 ways to flip them are as far from 0."""
    results = results_of(("ram", "ps-nogs"), (0, 1, 2))
    (section,) = [section for section in sections_of(gather(run)) if section.id == "tests"]
    assert section.table is not None
    ((accuracy, iterations, *images),) = [line.cells for line in section.table.lines]
    assert accuracy == ("+3.6 points", ("p = 0.25",))
    assert iterations == ("≥ 4.0 ×", ("p = 0.25",))
    counted = results.comparisons["ram"]["ps-nogs"].images
    assert [cell.summary for cell in images] == [f"{of.only_method} : {of.only_reference}" for of in counted]


def test_images_are_counted_under_the_seed_that_they_are_of() -> None:
    """A method without seed 0 has nothing in its column."""
    results = results_of(("ram", "ps-nogs", "ws-ram"), (0, 1))
    compared = dict(results.comparisons["ram"])
    late = compared["ws-ram"]
    compared["ws-ram"] = replace(late, seeds=late.seeds[1:], images=late.images[1:])
    section = exact_tests(replace(results, comparisons={"ram": compared}))
    assert section is not None
    assert section.table is not None
    assert [column.title for column in section.table.columns[3:]] == ["images, seed 0", "images, seed 1"]
    first, second = section.table.lines[1].cells[2:]
    assert first == Cell()
    assert second.summary == f"{late.images[1].only_method} : {late.images[1].only_reference}"


def test_balanced_accuracy_is_shown_where_classes_are_uneven() -> None:
    results = results_of(("ram", "ps-nogs"), (0,))
    assert "Balanced accuracy" not in [line.title for line in results_table(results).lines]
    uneven = replace(results, test=replace(results.test, uneven=True))
    assert cells(results_table(uneven), "Balanced accuracy")[0][0] == "87.1 %"


def test_a_confusion_matrix_or_the_least_accurate_classes(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", seeds=(0, 1))
    (section,) = [section for section in sections_of(gather(path)) if section.id == "classes"]
    assert section.table is not None
    assert [column.title for column in section.table.columns] == ["class ↓, answer →", *NAMES, "correct"]
    rows = [[cell.summary for cell in line.cells] for line in section.table.lines]
    assert rows == [["30", "10", "0", "50.0 %"], ["5", "45", "10", "75.0 %"], ["0", "0", "0", "–"]]
    scores = results_of(("ps-nogs",), (0, 1)).methods["ps-nogs"]
    change_results(path, methods={"ps-nogs": replace(scores, test_confusion=())})
    (section,) = [section for section in sections_of(gather(path)) if section.id == "classes"]
    assert section.table is not None
    assert [(line.title, line.cells[0].summary) for line in section.table.lines] == [
        (NAMES[0], "50.0 %"),
        (NAMES[1], "75.0 %"),
    ]


def test_names_from_users_are_shown_as_they_are(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "Test image 3: &lt;b&gt;triangle" in page
    assert r"Test image 2: a $\frac$quare $x$" in page
    assert "[/bold] circle" in page
    assert "npz:[/bold]/:smile:&lt;i&gt;$x$.npz" in page


def test_captions_have_the_numbers_of_the_results(run: Path) -> None:
    captions = {section.id: section.caption for section in sections_of(gather(run))}
    assert "0.262 nats along the image’s own sequence, 0.288 along another image’s and" in captions["posterior"]
    assert "0.650 at random locations; class frequencies alone have 1.099" in captions["posterior"]
    assert "off by 4.1 points at designed locations and 2.0 points at random ones" in captions["posterior"]
    assert "RAM in 2 of 3 seeds and PS-NOGS in 3 of 3 seeds" in captions["validation-loss"]
    # 0.6 and 0.6 / 7: the peaks of the maps at t = 1 and 4, where the glimpses were put.
    assert "0.6 nats at first and 0.086 at the last" in captions["information-gain"]
    assert "the first 1 classified correctly and the first 1 classified wrongly" in captions["answers"]
    assert "RAM 0.90 and PS-NOGS 0.90 nats" in captions["where-they-look"]


@pytest.mark.parametrize(
    ("criterion", "pooling", "expected"),
    [
        ("eig", 0.0, "square is where the gain is greatest on the image’s own map, among"),
        ("eig", 0.75, "square is where the pooled gain is greatest (0.25 × own map + 0.75 × the mean map of all "),
        ("eig", 1.0, "square is where the gain is greatest on the mean map of all annotated images alone, among"),
        ("epe", 0.4, "where the pooled expected entropy is least (0.6 × own map + 0.4 × the mean map of all annotated"),
    ],
)
def test_captions_explain_the_marked_square(tmp_path: Path, criterion: str, pooling: float, expected: str) -> None:
    path = make_run(tmp_path / "run", seeds=(0,))
    save_examples(RunDirectory(path / "evaluation"), criterion=criterion, pooling=pooling)
    write_marker(path / "evaluation")
    for publishable in (False, True):
        captions = {section.id: section.caption for section in sections_of(gather(path, publishable=publishable))}
        assert expected in captions["information-gain"]
        for name in ("information-gain", "design-of-a-glimpse"):
            assert expected.removeprefix("square is ") in captions[name]
            assert ("not where the image’s own is" in captions[name]) == (0 < pooling < 1)
            assert "among the locations not yet looked at" in captions[name]
            assert ("the photographs are not shown" in captions[name]) == publishable


def test_a_method_without_ram_has_no_target(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", methods=("ps-nogs",), seeds=(0,))
    text = Reading(draw_report(Report(path)).read_text()).text
    assert "RAM ÷ method" not in text
    assert "There is no target" in text
    assert "never" not in text
    assert "from nothing" not in text
    assert "Accuracy on 1,234 test images: PS-NOGS 91.2 %." in text


def test_ram_alone_is_compared_with_nothing(tmp_path: Path) -> None:
    results = gather(make_run(tmp_path / "run", methods=("ram",), seeds=(0,))).results
    assert not [line for line in results_table(results).lines if "RAM ÷" in line.title or "minus" in line.title]
    assert lead_of_run(results)[0] == "Accuracy on 1,234 test images: RAM 87.6 %."


def test_what_was_not_run_or_is_gone_is_left_out(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", methods=("ps-nogs",), seeds=(0, 1))
    for folder in ("baselines", "train/ps-nogs-seed0", "train/ps-nogs-seed1"):
        (path / folder / "COMPLETE").unlink()
    (path / "evaluation" / "steps.safetensors").unlink()
    fields = ("stopping", "stopping_by_seed", "stopping_advantage", "end_to_end")
    change_results(path, linear=None, stopping_method=None, **{field: {} for field in fields})
    page = draw_report(Report(path))
    assert not (path / "figures").exists()  # written on request alone
    assert Reading(page.read_text()).ids == ["title", *ALWAYS, "about"]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run=.* holds no evaluation"):
        draw_report(Report(tmp_path))


def test_results_of_another_schema_are_refused_by_key(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", seeds=(0,))
    evaluation = RunDirectory(path / "evaluation")
    results = evaluation.load_json("results.json")
    del results["methods"]["ram"]["test_accuracy"]
    evaluation.save_json("results.json", results)
    write_marker(evaluation.path)
    with pytest.raises(UserError, match=r"results\.json.*methods\.ram\.test_accuracy is missing"):
        draw_report(Report(path))


@pytest.mark.parametrize("formats", [(), pytest.param(("png", "pdf"), marks=pytest.mark.slow)])
def test_no_photograph_is_drawn_when_publishable(run: Path, tmp_path: Path, formats: tuple[str, ...]) -> None:
    """With other photographs, page and figures are equal byte for byte, so they contain none of them."""
    same, other = (shutil.copytree(run, tmp_path / name) for name in ("same", "other"))
    evaluation = RunDirectory(other / "evaluation")
    noise = torch.randint(256, (3, 1, 48, 48), generator=chance(0), dtype=torch.uint8)
    completions = torch.randint(256, (3, 2, 1, 48, 48), generator=chance(1), dtype=torch.uint8)
    save_examples(evaluation, pixels=noise, completions=completions)
    answers, meta = evaluation.load_tensors("answers"), evaluation.load_metadata("answers")
    evaluation.save_tensors("answers", {**answers, "pixels": noise[:2]}, **meta)
    write_marker(evaluation.path)
    photographed = (run / "report.html").read_bytes()
    page, others = (draw_report(Report(path, publishable=True, figures=formats)).read_bytes() for path in (same, other))
    assert page == others
    assert page != photographed
    assert b"photographs are not shown" in page
    for kind in formats:
        for name in FIGURES:
            file = f"figures/{name}.{kind}"
            assert (same / file).read_bytes() == (other / file).read_bytes()


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
    with styled():
        figure = looks.where_they_look({"ram": torch.ones(1, 1)}, torch.zeros(1, 8, 8), grid)
    assert len(figure.axes) == 2


def test_the_terminal_shows_the_table(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_results(run)
    printed = capsys.readouterr().out
    assert "PS-NOGS" in printed
    assert "1,200" in printed
    assert "≥ 4,800" in printed
    assert printed.rstrip().endswith(f"report: {run / 'report.html'}")
