"""Stage predict: classify image files with a trained network."""

from __future__ import annotations

import glob
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from nogs.config.stages import Predict
from nogs.data.frame import Cut
from nogs.data.notices import notice
from nogs.errors import RunError, UserError
from nogs.prediction.answer import Answer
from nogs.prediction.load import load_model

STANDARD_INPUT = Path("-")


def predict(config: Predict) -> None:
    """Print one line for each image: its label and probability, or with ``config.json`` a JSON object.

    In Python, `nogs.load_model` gives a model whose ``predict`` returns the answers. Folders and patterns are replaced
    by the files in them. Files that cannot be used are reported on stderr and skipped, and RunError is raised at the
    end. If there is only one file, UserError is raised instead.
    """
    if not config.images:
        raise UserError("no image is given: name one or more files after the model's directory")
    if config.stopping is not None and config.threshold is None:
        raise UserError("`stopping` without `threshold`: give both, or neither to look as often as in training")
    files = [file for path in config.images for file in _files_of(path)]
    model = load_model(config.model, stopping=config.stopping, device=config.device)
    overlays = None if config.save_overlays is None else Overlays(config.save_overlays)
    bad, cut = 0, Cut()
    for file, answer in zip(files, model.answers(files, threshold=config.threshold), strict=True):
        if isinstance(answer, str):
            if len(files) == 1:
                raise UserError(f"{file}: {answer}")
            bad += 1
            print(f"nogs: {file}: {answer}", file=sys.stderr)
            continue
        cut = cut.add(*answer.size, model.spec.fit)
        print(
            json.dumps(_as_json(file, answer), ensure_ascii=False) if config.json else _line(file, answer), flush=True
        )
        if overlays is not None:
            overlays.save(file, answer)
    if cut.images:
        notice(f"{cut.loss(len(files) - bad)}, as in training")
    if bad:
        raise RunError(f"{bad} of {len(files)} images cannot be read; they are named above")


def _files_of(path: Path) -> Iterator[Path]:
    """Yield the files that an argument names, without hidden ones. Raises UserError if it names none.

    A folder and a pattern name files in their order, and ``-`` those in the lines of standard input.
    """
    if path == STANDARD_INPUT:
        files = [Path(line) for line in (line.rstrip("\r\n") for line in sys.stdin) if line]
        nothing = "standard input names no file; give one path a line"
    elif path.is_dir():
        files = sorted(file for file in path.iterdir() if not file.is_dir() and not file.name.startswith("."))
        nothing = f"{path}: this folder has no files; give one with images"
    elif glob.has_magic(str(path)) and not path.exists():
        files = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if not Path(name).is_dir())  # noqa: PTH207
        nothing = f"{path}: no file has a name of this pattern"
    else:
        files, nothing = [path], ""
    if not files:
        raise UserError(nothing)
    yield from files


class Overlays:
    """A folder of images with their glimpses drawn on them, each named after its file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, file: Path, answer: Answer) -> None:
        """Write NAME.png; of several files of one name NAME-2.png, NAME-3.png and so on."""
        name, number = file.stem, 1
        while name in self._names:
            number += 1
            name = f"{file.stem}-{number}"
        self._names.add(name)
        answer.overlay().save(self._folder / f"{name}.png")


def _line(file: Path, answer: Answer) -> str:
    return f"{file}: {answer.label} ({100 * answer.probs[answer.label]:.1f} %)"


def _as_json(file: Path, answer: Answer) -> dict[str, object]:
    """Return the fields of an answer, with glimpses as [row, column] of top-left pixels in the file."""
    return {
        "file": str(file),
        "label": answer.label,
        "probs": answer.probs,
        "glimpses": [[row, column] for row, column, _ in answer.glimpses],
        "sides": [side for *_, side in answer.glimpses],
        "steps": answer.steps,
        "macs": answer.macs,
    }
