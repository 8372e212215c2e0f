"""Names of classes and paths that are markup elsewhere (rich, mathtext, HTML, format strings) are plain text here."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

import nogs
import nogs.cli
import nogs.stages.predict
from nogs.report.tables import print_results
from nogs.runs.progress import after, ticking
from reported import make_run

NAMES = ("[/bold] [red] :smile: {task} %s", r"$\frac$ $x$ \n", "<script>alert(1)</script>&amp;")


@pytest.mark.parametrize("name", NAMES)
def test_the_table_on_the_terminal_shows_names_as_they_are(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of the data has markup in it as well. The page with these names is drawn in test_report."""
    monkeypatch.setenv("COLUMNS", "300")
    path = make_run(tmp_path / name.replace("/", "|"))
    print_results(path)
    printed = capsys.readouterr().out
    assert "npz:[/bold]/:smile:<i>$x$.npz" in printed
    assert str(path / "report.html") in printed


@pytest.mark.parametrize("name", NAMES)
def test_progress_shows_names_as_they_are(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    with ticking(name, 2) as tick:
        after(1, name, tick)(1, name)
    assert capsys.readouterr().err.count(name.split(" ")[0]) >= 2


def test_a_terminal_without_the_characters_of_a_name_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    monkeypatch.setattr(nogs.stages.predict, "predict", lambda config: print("Žluťák ☃"))
    assert nogs.cli.main(["predict", "x"]) == 0
    sys.stdout.flush()
    assert written.getvalue() == rb"\u017dlu\u0165\xe1k \u2603" + b"\n"
