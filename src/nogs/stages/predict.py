"""Stage predict: classify image files with a trained network."""

from __future__ import annotations

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


def predict(config: Predict) -> None:
    """Print one line for each image: its label and probability, or with ``config.json`` a JSON object.

    Folders are replaced by the files in them. Files that cannot be read are reported on stderr and skipped, and
    RunError is raised at the end. If there is only one file, UserError is raised instead.
    """
    if not config.images:
        raise UserError("no image is given: name one or more files after the model's directory")
    files = [file for path in config.images for file in _files_of(path)]
    if config.stopping is not None and config.threshold is None:
        raise UserError("`stopping` without `threshold`: give both, or neither to look as often as in training")
    model = load_model(config.model, stopping=config.stopping, device=config.device)
    bad, cut = 0, Cut()
    for file, answer in zip(files, model.answers(files, threshold=config.threshold), strict=True):
        if isinstance(answer, str):
            if len(files) == 1:
                raise UserError(f"{file}: {answer}")
            bad += 1
            print(f"nogs: {file}: {answer}", file=sys.stderr)
            continue
        cut = cut.add(*answer.size, model.spec.fit)
        print(json.dumps(_as_json(file, answer), ensure_ascii=False) if config.json else _line(file, answer))
    if cut.images:
        notice(f"{cut.loss(len(files) - bad)}, as in training")
    if bad:
        raise RunError(f"{bad} of {len(files)} images cannot be read; they are named above")


def _files_of(path: Path) -> Iterator[Path]:
    """Yield the path itself, or if it is a folder, its files in order, without hidden ones."""
    if not path.is_dir():
        yield path
        return
    files = sorted(file for file in path.iterdir() if not file.is_dir() and not file.name.startswith("."))
    if not files:
        raise UserError(f"{path}: this folder has no files; give one with images")
    yield from files


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
