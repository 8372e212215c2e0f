"""The poster over several runs, and the options that ask for it."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path

import pytest

from nogs.config.stages import Report
from nogs.errors import UserError
from nogs.report.figures import labels as poster
from nogs.report.lead import lead_of_poster
from nogs.report.read import gather
from nogs.stages.report import draw_report
from reported import make_run, results_of


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("poster")
    return (
        make_run(folder / "one"),
        make_run(folder / "two", methods=("ram", "ps-nogs", "ws-ram"), seeds=(0,)),
        make_run(folder / "three", methods=("ps-nogs", "path"), seeds=(0, 1)),
    )


@pytest.mark.parametrize("formats", [("png",), pytest.param(("png", "pdf"), marks=pytest.mark.slow)])
def test_the_poster_has_a_page_and_its_figures(
    runs: tuple[Path, ...], tmp_path: Path, formats: tuple[str, ...]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nogs.report.page.DPI", 50)  # quick to draw
        page = draw_report(Report(runs=runs, out=tmp_path / "poster", figures=formats))
    assert page == tmp_path / "poster" / "poster.html"
    text = html.unescape(page.read_text())
    assert "http" not in text.replace("http-equiv", "")
    for title in (*(f"npz:[/bold]/:smile:<i>$x$.npz ({run.name})" for run in runs), "WS-RAM"):
        assert title in text
    assert "Test accuracy, minus one designed path" in text
    assert "1,234 test images, 2 files left out" in text
    looks = {f"where-they-look-{number}" for number in (1, 2, 3)}
    names = {"races", "accuracies", "stopping", "stopping-together", "cost", *looks}
    written = {file.name for file in (page.parent / "figures").iterdir()}
    assert written == {f"{name}.{kind}" for name in names for kind in formats}


@pytest.mark.slow
def test_titles_replace_those_of_the_runs(runs: tuple[Path, ...], tmp_path: Path) -> None:
    config = Report(runs=runs[:2], titles=("Smiling", "<b>Bangs $x$</b>"), out=tmp_path)
    text = html.unescape(draw_report(config).read_text())
    assert ">Smiling</th>" in text
    assert '"<b>Bangs $x$</b>: heat maps over the mean image' in text
    assert f"({runs[0].name})" not in text


def test_the_lead_counts_losses_beside_wins_over_labels_that_have_both(runs: tuple[Path, ...]) -> None:
    """One: at least 4,800 / 1,200 = 4; two: 4,000 / 1,100; three has no RAM. The root of 4 x 40 / 11 is 3.81."""
    lead = lead_of_poster({path.name: gather(path).results for path in runs})
    assert lead[0] == (
        "PS-NOGS beside RAM, on 2 of 3 labels: more accurate on 2, less on 0, +3.6 points on average; fewer iterations "
        "to the target on 2, more on 0, at least 3.8 × in the geometric mean; fewer seconds from nothing on 0, more on "
        "1, open on 1."
    )
    assert lead[1:] == [
        "PS-NOGS beside One designed path, on 1 of 3 labels: more accurate on 0, less on 0, open on 1, +0.0 points on "
        "average.",
        "The others’ accuracy and RAM’s, mean difference over labels: WS-RAM +3.6 points on 1.",
    ]


def test_a_lost_label_is_in_the_lead() -> None:
    """Won 4 times, and lost where PS-NOGS never reaches the target: no mean of only the won one."""
    won = results_of(("ram", "ps-nogs"), (0,))
    ours = won.comparisons["ram"]["ps-nogs"]
    ratio = replace(ours.iterations_ratio, value=0.3, bound="at most")
    lost = replace(
        won,
        comparisons={
            "ram": {"ps-nogs": replace(ours, mean_test_accuracy_difference=-0.27, iterations_ratio=ratio)},
        },
    )
    (lead,) = lead_of_poster({"won": won, "lost": lost})
    assert "more accurate on 1, less on 1, −11.7 points on average" in lead
    assert "fewer iterations to the target on 1, more on 1" in lead
    assert "geometric" in lead  # at most 0.3 and exactly 3.6: a bound


def test_a_row_a_label_and_a_place_a_method(runs: tuple[Path, ...]) -> None:
    labels = {path.name: gather(path).results for path in runs}
    assert poster.methods_of(labels) == ["ram", "ps-nogs", "ws-ram", "path"]
    for figure in (poster.races(labels), poster.accuracies(labels)):
        left = figure.axes[0]
        assert [label.get_text() for label in left.get_yticklabels()] == ["one", "two", "three"]
    heights = [round(y) for y, _, _ in poster._places(labels)]
    assert heights == [0, 0, 1, 1, 1, 2, 2]
    assert poster.races(labels).axes[0].get_xscale() == "log"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Report(), "give `run`"),
        (Report(Path("a"), out=Path("b")), "give `run`"),
        (Report(runs=(Path("a"),)), "`runs`: give `out`"),
        (Report(Path("a"), runs=(Path("b"),), out=Path("c")), "`runs`: give `out`"),
        (Report(runs=(Path("a"), Path("a")), out=Path("c")), "runs=a,a: give each once"),
        (Report(Path("a"), titles=("A",)), "give `run`"),
        (Report(runs=(Path("a"), Path("b")), titles=("A",), out=Path("c")), "titles=A: give one for each of the 2"),
        (Report(runs=(Path("a"), Path("b")), titles=("A", "A"), out=Path("c")), "titles=A,A: .* all different"),
        (Report(Path("a"), figures=("png", "jpg")), "figures=jpg: choose among png, pdf, svg"),
        (Report(runs=(Path("nowhere"),), out=Path("c")), "runs=nowhere holds no evaluation"),
    ],
)
def test_mistakes_are_named_in_a_line(config: Report, message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw_report(config)
