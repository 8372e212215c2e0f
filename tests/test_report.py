"""The page of one run: a run directory in the true format, made by hand, and the page that is drawn from it."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import shutil
from html.parser import HTMLParser
from pathlib import Path
from statistics import mean

import pytest
import torch
from safetensors.torch import load_file

from nogs.config.stages import Report
from nogs.errors import UserError
from nogs.glimpses.grid import Grid
from nogs.report import captions
from nogs.report.figures import maps
from nogs.report.read import Material, Step, gather
from nogs.report.sections import sections_of
from nogs.report.style import LIGHT, drawn_in
from nogs.report.tables import print_results, ratio, results_table, time_breakdown
from nogs.runs.directory import RunDirectory
from nogs.runs.marker import write_marker
from nogs.stages.report import draw_report
from reported import GRID, chance, examples_of, make_run, recolours, results_of

ALWAYS = ("title", "results", "time", "network", "information-gain", "where-they-look", "validation-loss")
ALWAYS += ("iterations", "accuracy")
SECTIONS = ("title", "results", "time", "end-to-end", "cost-of-a-glimpse", "network", "design-of-a-glimpse", "states")
SECTIONS += (*ALWAYS[4:], "cost", "stopping")
FIGURES = {*SECTIONS[3:]} - {"information-gain"} | {f"information-gain-{number}" for number in (1, 2, 3)}


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
    draw_report(Report(path, figures=("png", "pdf")))
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


def test_a_recoloured_figure_is_that_drawn_in_the_dark_palette(run: Path) -> None:
    for section in sections_of(gather(run), publishable=False):
        assert recolours(section) is not section.coloured_pixels, section.id


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
    assert "1,200" in text  # the mean of 1,100, 1,200 and 1,300
    assert "91.6 %" in text  # of 91.2, 91.6 and 92.0
    assert "0.940 · 0.950 · 0.960" in text  # areas under the ROC curve
    assert "245 k" in text  # 4 x 61,234 multiply-adds
    assert "0.299 nats" in text


def test_a_seed_that_never_arrived_makes_the_ratio_a_bound(run: Path) -> None:
    material = gather(run)
    # RAM: 4,000 and 4,400, and one that was trained for 6,000 without arriving; PS-NOGS: 1,200 on average.
    assert ratio(material, "ps-nogs") == "≥ 4.0"
    lines = {line.title: line.cells for line in results_table(material)}
    assert lines["Iterations to target"][0] == ("≥ 4,800", "", ("4,000", "never", "4,400"))
    # Three pairs, all of one sign: 2 of the 2^3 ways to flip them are as far from 0.
    assert lines["Iterations to target, RAM ÷ method"][1] == ("≥ 4.0", "p = 0.25", ())
    assert lines["Test accuracy, method − RAM"][1] == ("+3.6 %", "p = 0.25", ())
    assert "RAM takes at least 4.0 times as many iterations" in captions.lead(material)
    assert "at least 4,800 against 1,200" in captions.lead(material)


def test_images_that_only_one_is_right_about_are_counted_one_by_one(run: Path, tmp_path: Path) -> None:
    mixed = RunDirectory(shutil.copytree(run, tmp_path / "run") / "evaluation")
    for number, name in enumerate(f"{method}-seed{seed}" for method in ("ram", "ps-nogs") for seed in range(3)):
        record = mixed.load_tensors(name)
        mixed.save_tensors(name, {**record, "log_probs": torch.rand(50, 4, 3, generator=chance(number)).log()})
    write_marker(mixed.path)
    lines = {line.title: line.cells for line in results_table(gather(tmp_path / "run"))}
    ram, ours = lines["Images that only it : only RAM is right about"]
    assert ram.summary == "–"
    counted = []
    for seed in range(3):
        said = [load_file(mixed.path / f"{name}-seed{seed}.safetensors") for name in ("ps-nogs", "ram")]
        right = [
            [max(range(3), key=row[-1].__getitem__) == label for row, label in zip(*answers, strict=True)]
            for answers in ((of["log_probs"].tolist(), of["labels"].tolist()) for of in said)
        ]
        it, other = (sum(a and not b for a, b in zip(*pair, strict=True)) for pair in (right, right[::-1]))
        fewer = sum(math.comb(it + other, k) for k in range(min(it, other) + 1))
        p = min(1.0, 2 * fewer / 2 ** (it + other))
        counted.append((it, other))
        assert ours.seeds[seed] == f"p = {p:.1g}"
    assert ours.note == " · ".join(f"{it} : {other}" for it, other in counted)
    assert counted[0] != counted[1]
    assert ours.summary == f"{mean(it for it, _ in counted):.0f} : {mean(other for _, other in counted):.0f}"


def test_times_are_those_recorded(run: Path) -> None:
    times = {part.title: part.seconds for part in time_breakdown(gather(run))}
    # 6,000 iterations of 5 and 6 ms, validations included, three seeds each.
    trainings = {"Training RAM": 90, "Training PS-NOGS": 108}
    assert times == pytest.approx({"Posterior": 131, "Bank": 3, "Search": 62, **trainings})
    assert sum(part.share for part in time_breakdown(gather(run))) == pytest.approx(1)


def test_names_from_users_are_shown_as_they_are(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "Test image 3: &lt;b&gt;triangle" in page
    assert r"Test image 2: a $\frac$quare $x$" in page
    assert "Test image 1: [/bold] circle" in page
    assert "npz:[/bold]/:smile:&lt;i&gt;$x$.npz" in page


def test_captions_say_what_the_numbers_say(run: Path) -> None:
    material = gather(run)
    assert "0.262 nats at designed locations and 0.650 at random ones" in captions.network_and_posterior(material)
    assert "off by 4.1 % at designed locations and 2.0 % at random ones" in captions.network_and_posterior(material)
    assert "RAM in 2 of 3 seeds and PS-NOGS in 3 of 3 seeds" in captions.validation_loss(material)
    # 0.6 and 0.6 / 7: the peaks of the maps at t = 1 and 4, where the glimpses were put.
    assert "0.6 nats at first and 0.086 at the last" in captions.information_gain(material, publishable=False)


@pytest.mark.parametrize(
    ("criterion", "pooling", "said"),
    [
        ("eig", 0.0, "the square is where the gain is greatest on the image’s own map, among"),
        ("eig", 0.75, "the square is where the pooled gain is greatest (0.25 × own map + 0.75 × the mean map of all "),
        ("eig", 1.0, "the square is where the gain is greatest on the mean map of all annotated images alone, among"),
        ("epe", 0.4, "where the pooled expected entropy is least (0.6 × own map + 0.4 × the mean map of all annotated"),
    ],
)
def test_captions_say_what_the_marked_square_is(tmp_path: Path, criterion: str, pooling: float, said: str) -> None:
    path = make_run(tmp_path / "run", seeds=(0,))
    file = path / "sequences" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"criterion": criterion, "pooling": pooling}))
    write_marker(file.parent)
    material = gather(path)
    of_design = captions.design_of_a_glimpse(material, examples_with_steps(material)[0], publishable=True)
    for caption in (captions.information_gain(material, publishable=False), of_design):
        assert said.removeprefix("the square is ") in caption
        assert ("not where the image’s own is" in caption) == (0 < pooling < 1)
        assert "among the locations not yet looked at" in caption
    assert said in captions.information_gain(material, publishable=True)
    assert "the photographs are not shown" in captions.information_gain(material, publishable=True)


def examples_with_steps(material: Material) -> list[Step]:
    return [example.step for example in material.examples if example.step is not None]


def test_a_method_without_ram_has_no_target(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", methods=("ps-nogs",), seeds=(0,))
    text = Reading(draw_report(Report(path)).read_text()).text
    assert "RAM ÷ method" not in text
    assert "There is no target" in text
    assert "never" not in text
    assert "everything counted" not in text.replace("those with everything counted", "")


def test_ram_alone_is_compared_with_nothing(tmp_path: Path) -> None:
    material = gather(make_run(tmp_path / "run", methods=("ram",), seeds=(0,)))
    assert "RAM ÷ method" not in [line.title for line in results_table(material)]
    assert not [line for line in results_table(material) if "RAM" in line.title]
    assert captions.lead(material) == "RAM ends at 87.6 % test accuracy."


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", seeds=(0, 1))
    for name in ("examples", "states"):
        (path / "evaluation" / f"{name}.safetensors").unlink()
    for folder in (
        "sequences",
        "posterior",
        "baselines",
        "stopping",
        "train/ram-seed1",
        "train/ps-nogs-seed0",
        "train/ps-nogs-seed1",
    ):
        (path / folder / "COMPLETE").unlink()
    results = results_of(("ram", "ps-nogs"), (0, 1))
    for key in ("accuracy_by_glimpse", "random_accuracy_by_glimpse", "calibration_error_by_glimpse"):
        del results["sequences"][key]
    for key in ("stopping", "stopping_by_seed", "stopping_advantage", "end_to_end"):
        del results[key]
    for scores in results["methods"].values():
        del scores["test_auroc"], scores["macs_by_part"]
    RunDirectory(path / "evaluation").save_json("results.json", results)
    write_marker(path / "evaluation")
    found = Reading(draw_report(Report(path)).read_text())
    assert not (path / "figures").exists()  # written on request alone
    assert set(found.ids) == set(ALWAYS)
    assert "ROC" not in found.text
    assert "Not drawn" in found.text
    assert ratio(gather(path), "ps-nogs") == "–"  # how long the seed that never arrived was trained is not known


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run=.* holds no evaluation"):
        draw_report(Report(tmp_path))


def test_no_photograph_is_drawn_when_publishable(run: Path, tmp_path: Path) -> None:
    """Other photographs, the same page and figures, byte for byte: nothing of them is in it."""
    other = shutil.copytree(run, tmp_path / "other")
    evaluation = RunDirectory(other / "evaluation")
    noise = torch.randint(256, (3, 1, 48, 48), generator=chance(0), dtype=torch.uint8)
    completions = torch.randint(256, (3, 2, 1, 48, 48), generator=chance(1), dtype=torch.uint8)
    photographs = {"pixels": noise, "completions": completions}
    evaluation.save_tensors("examples", {**examples_of(3), **photographs}, grid=dataclasses.asdict(GRID))
    write_marker(evaluation.path)
    photographed = (run / "report.html").read_bytes()
    page, others = (
        draw_report(Report(path, publishable=True, figures=("png", "pdf"))).read_bytes() for path in (run, other)
    )
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
    assert "1,200 [" in printed
    assert printed.rstrip().endswith(f"report: {run / 'report.html'}")
