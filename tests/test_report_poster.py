"""The poster over several runs, and how it is asked for."""

from __future__ import annotations

import html
from pathlib import Path

import pytest

from nogs.config.stages import Report
from nogs.errors import UserError
from nogs.report.figures import labels as poster
from nogs.report.poster_page import _sections as poster_sections
from nogs.report.poster_page import lead
from nogs.report.read import gather
from nogs.report.style import LIGHT
from nogs.stages.report import draw_report
from reported import make_run, recolours


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("poster")
    return (
        make_run(folder / "one"),
        make_run(folder / "two", methods=("ram", "ps-nogs", "ws-ram"), seeds=(0,)),
        make_run(folder / "three", methods=("ps-nogs",), seeds=(0, 1)),
    )


def test_the_poster_has_a_page_and_its_figures(runs: tuple[Path, ...], tmp_path: Path) -> None:
    page = draw_report(Report(runs=runs, out=tmp_path / "poster", figures=("png", "pdf")))
    assert page == tmp_path / "poster" / "poster.html"
    text = html.unescape(page.read_text())
    assert "http" not in text
    for title in (*(f"npz:[/bold]/:smile:<i>$x$.npz ({run.name})" for run in runs), "WS-RAM"):
        assert title in text
    looks = {f"where-they-look-{number}" for number in (1, 2, 3)}
    written = {file.stem for file in (page.parent / "figures").glob("*.pdf")}
    assert written == {"races", "accuracies", "stopping", "stopping-together", "cost", *looks}
    assert written == {file.stem for file in (page.parent / "figures").glob("*.png")}


def test_a_recoloured_figure_is_that_drawn_in_the_dark_palette(runs: tuple[Path, ...]) -> None:
    for section in poster_sections({path.name: gather(path) for path in runs}):
        assert recolours(section) is not section.coloured_pixels, section.id


def test_the_lead_is_a_geometric_mean_over_labels_that_have_both(runs: tuple[Path, ...]) -> None:
    labels = {path.name: gather(path) for path in runs}
    text = lead(labels)
    # one: at least 4,800 / 1,200 = 4; two: 4,000 / 1,100; three has no RAM. The root of 4 x 40 / 11 is 3.81.
    assert "RAM takes at least 3.8 times as many iterations to the target loss as PS-NOGS" in text
    assert "(geometric mean over 2 of 3 labels)" in text
    # 91.6 and 91.2 against 88.0 and 87.6.
    assert "PS-NOGS ends at 91.4 % test accuracy, RAM at 87.8 %" in text


def test_a_row_a_label_and_a_place_a_method(runs: tuple[Path, ...]) -> None:
    labels = {path.name: gather(path) for path in runs}
    assert poster.methods_of(labels) == ["ram", "ps-nogs", "ws-ram"]
    for figure in (poster.races(labels, LIGHT), poster.accuracies(labels, LIGHT)):
        left = figure.axes[0]
        assert [label.get_text() for label in left.get_yticklabels()] == ["one", "two", "three"]
    heights = [round(y) for y, _, _ in poster._places(labels)]
    assert heights == [0, 0, 1, 1, 1, 2]
    assert poster.races(labels, LIGHT).axes[0].get_xscale() == "log"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (Report(), "give `run`"),
        (Report(Path("a"), out=Path("b")), "give `run`"),
        (Report(runs=(Path("a"),)), "`runs`: give `out`"),
        (Report(Path("a"), runs=(Path("b"),), out=Path("c")), "`runs`: give `out`"),
        (Report(runs=(Path("a"), Path("a")), out=Path("c")), "runs=a,a: give each once"),
        (Report(Path("a"), figures=("png", "jpg")), "figures=jpg: choose among png, pdf, svg"),
        (Report(runs=(Path("nowhere"),), out=Path("c")), "runs=nowhere holds no evaluation"),
    ],
)
def test_mistakes_are_told_in_a_line(config: Report, says: str) -> None:
    with pytest.raises(UserError, match=says):
        draw_report(config)
