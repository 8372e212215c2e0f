"""Stage report: report.html and its figures, from what the other stages left on disk; poster.html of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nogs.config.stages import Report
from nogs.errors import UserError
from nogs.report.page import FORMATS, Page, image_file
from nogs.report.poster_page import build_poster
from nogs.report.read import gather
from nogs.report.run_page import build
from nogs.runs.directory import RunDirectory


def draw_report(config: Report) -> Path:
    """Write the page, and figures in files if asked for, to the directory of the run or poster; return its path."""
    for kind in config.figures:
        if kind not in FORMATS:
            raise UserError(f"figures={kind}: choose among {', '.join(FORMATS)}")
    if config.runs:
        if config.run is not None or config.out is None:
            raise UserError("`runs`: give `out`, the directory of the poster, and not `run`")
        return _written(_poster(config.runs, config.titles), config.out, "poster.html", config.figures)
    if config.run is None or config.out is not None or config.titles:
        raise UserError("give `run`, the directory of a `nogs run`; or `runs` and `out`, for a poster of several")
    page = build(gather(config.run, publishable=config.publishable))
    return _written(page, config.run, "report.html", config.figures)


def _poster(runs: Sequence[Path], titles: Sequence[str]) -> Page:
    if len(set(runs)) < len(runs):
        raise UserError(f"runs={','.join(map(str, runs))}: give each once")
    if titles and (len(titles) != len(runs) or len(set(titles)) < len(titles)):
        raise UserError(f"titles={','.join(titles)}: give one for each of the {len(runs)} `runs`, all different")
    return build_poster(runs, titles)


def _written(page: Page, out: Path, name: str, formats: Sequence[str]) -> Path:
    folder = out / "figures" if formats else out
    folder.mkdir(parents=True, exist_ok=True)
    for figure in page.figures:
        for kind in formats:
            partial = folder / f"{figure.name}.{kind}.partial"
            partial.write_bytes(image_file(figure, kind))
            partial.replace(folder / f"{figure.name}.{kind}")
    RunDirectory(out).save_text(name, page.html)
    return out / name
