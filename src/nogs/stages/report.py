"""Stage report: report.html and its figures, from what the other stages left on disk."""

from __future__ import annotations

from pathlib import Path

from nogs.config import Report
from nogs.report.material import gather
from nogs.report.page import build
from nogs.rundir import RunDirectory


def report(config: Report) -> Path:
    """Write figures/*.png and *.pdf, then report.html, to the run's directory; return the page's path."""
    page = build(gather(config.run), publishable=config.publishable)
    folder = config.run / "figures"
    folder.mkdir(exist_ok=True)
    for figure in page.figures:
        for kind, content in (("png", figure.png), ("pdf", figure.pdf)):
            partial = folder / f"{figure.name}.{kind}.partial"
            partial.write_bytes(content)
            partial.replace(folder / f"{figure.name}.{kind}")
    RunDirectory(config.run).save_text("report.html", page.html)
    return config.run / "report.html"
