"""Stage slides: write synthetic slides and the table of their labels, which ``csv:`` reads.

A slide's lesion is the share ``lesion_share`` of its area, and its label is the lesion's kind, or none
(`nogs.data.tiled.tissue`). Classes and splits are balanced: of every five slides in order three are for training, one
for validation and one for testing.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from nogs.config.stages import Slides
from nogs.data.tiled.pyramid import write_pyramid
from nogs.data.tiled.tiff import has_tiff
from nogs.data.tiled.tissue import KINDS, Drawing, core_px, stock
from nogs.errors import UserError
from nogs.runs.directory import RunDirectory, finished_run, open_run
from nogs.runs.progress import Tick, ticking

FOLDER = "slides"
SPLITS = ("train", "train", "train", "val", "test")


def write_slides(config: Slides, tick: Tick | None = None) -> RunDirectory:
    """Write the slides of ``config`` below its run directory, labels.csv, and lesions.csv with the places of lesions.

    Every slide is written whole or not at all. A resumed run goes on with the first one that is missing.
    """
    if finished := finished_run(config.machine.out, "slides", config, resume=config.machine.resume):
        return finished
    core = core_px(config.side, config.lesion_share)
    if not has_tiff():
        raise UserError("slides are written by tifffile: install nogs[tiff]")
    run = open_run(config.machine.out, "slides", config, resume=config.machine.resume)
    folder, digits = run.path / FOLDER, len(str(config.count - 1))
    folder.mkdir(exist_ok=True)
    tiles, labels, lesions = stock(config.seed), list[Sequence[object]](), list[Sequence[object]]()
    with ticking("slides", config.count, tick) as report:
        for number in range(config.count):
            path, kind = folder / f"{number:0{digits}}.tif", KINDS[number % len(KINDS)]
            drawing = Drawing(config.side, core, kind=kind, stock=tiles, seed=(config.seed, 1, number))
            if not path.exists():
                write_pyramid(path, config.side, drawing.tile)
            name = f"{FOLDER}/{path.name}"
            labels.append((name, kind, SPLITS[number % len(SPLITS)]))
            if lesion := drawing.lesion:
                corner = (round(centre - core / 2) for centre in (lesion.row, lesion.column))
                lesions.append((name, kind, *corner, round(core)))
            report(number + 1, "")
    run.save_text("lesions.csv", _table(("file", "kind", "row", "column", "side_px"), lesions))
    run.save_text("labels.csv", _table(("file", "label", "split"), labels))
    run.finish()
    return run


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()
