"""Stage predict: classify image files with a trained network, or with an export of one, which needs no torch."""

from __future__ import annotations

import glob
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image

from nogs.config.stages import Predict
from nogs.errors import RunError, UserError

# Importing torch takes longer than everything else that a first answer needs, so only `_by_network` does.

STANDARD_INPUT = Path("-")
Fields = dict[str, Any]
"""label, probs, glimpses as [row, column] of top-left pixels in the file, sides, steps and macs."""


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
    files, bad = [file for path in config.images for file in _files_of(path)], 0
    classify = _by_export if (config.model / "model.json").exists() else _by_network
    for file, answer in zip(files, classify(config, files), strict=True):
        if isinstance(answer, str):
            if len(files) == 1:
                raise UserError(f"{file}: {answer}")
            bad += 1
            print(f"nogs: {file}: {answer}", file=sys.stderr)
        elif config.json:
            print(json.dumps({"file": str(file), **answer}, ensure_ascii=False), flush=True)
        else:
            print(f"{file}: {answer['label']} ({100 * answer['probs'][answer['label']]:.1f} %)", flush=True)
            if "read_bytes" in answer:
                print(_what_was_read(answer), flush=True)
    if bad:
        raise RunError(f"{bad} of {len(files)} images cannot be read; they are named above")


def _by_network(config: Predict, files: Sequence[Path]) -> Iterator[Fields | str]:
    """Yield the answer for each file, or the reason why it cannot be used; write overlays."""
    from nogs.data.frame import Cut
    from nogs.data.notices import notice
    from nogs.prediction.load import load_model

    model = load_model(config.model, stopping=config.stopping, device=config.device)
    overlays = None if config.save_overlays is None else Overlays(config.save_overlays)
    good, cut = 0, Cut()
    for file, answer in zip(files, model.answers(files, threshold=config.threshold), strict=True):
        if isinstance(answer, str):
            yield answer
            continue
        good, cut = good + 1, cut.add(*answer.size, model.spec.fit)
        if overlays is not None:
            overlays.save(file, answer.overlay())
        yield {
            "label": answer.label,
            "probs": answer.probs,
            "glimpses": [[row, column] for row, column, _ in answer.glimpses],
            "sides": [side for *_, side in answer.glimpses],
            "steps": answer.steps,
            "macs": answer.macs,
            **({} if answer.read is None else {f"read_{name}": value for name, value in answer.read._asdict().items()}),
        }
    if cut.images:
        notice(f"{cut.loss(good)}, as in training")


def _by_export(config: Predict, files: Sequence[Path]) -> Iterator[Fields | str]:
    """Yield the same by the graphs of `nogs export`. Raises UserError for what an export cannot do."""
    for name in ("stopping", "save_overlays"):
        if getattr(config, name) is not None:
            raise UserError(
                f"{name}={getattr(config, name)}: {config.model} is an export; give the run directory of train"
            )
    try:
        from nogs.export.nogs_onnx import Model

        model = Model(config.model)
        gains = "gain" in model.step.outputs
    except ImportError:
        raise UserError(f"model={config.model} is an export, which needs onnxruntime: install nogs[onnx]") from None
    except Exception as error:  # onnxruntime and json raise many kinds of errors for damaged files
        reason = str(error).partition("\n")[0]
        raise UserError(f"model={config.model} is an export that cannot be run ({reason}): export it again") from None
    if config.threshold is not None:
        if not gains:
            raise UserError(f"threshold={config.threshold}: this export predicts no gain; export it with `stopping`")
        model.about["threshold_nats"] = config.threshold
    for file in files:
        try:
            yield model.predict(file) if file.is_file() or not file.exists() else "it is not a file"
        except ValueError as error:
            yield str(error).removeprefix(f"{file} ")
        except OSError as error:
            yield f"cannot be read: {error.strerror}" if error.strerror else "is not an image that Pillow can read"


def _files_of(path: Path) -> Iterator[Path]:
    """Yield the files that an argument names, without hidden ones. Raises UserError if it names none.

    A folder and a pattern name files in their order, and ``-`` those in the lines of standard input.
    """
    if path == STANDARD_INPUT:
        files = [Path(line) for line in (line.rstrip("\r\n") for line in sys.stdin) if line]
        nothing = "standard input names no file; give one path a line"
    elif not _is_image(path):
        files = sorted(file for file in path.iterdir() if _is_image(file) and not file.name.startswith("."))
        nothing = f"{path}: this folder has no files; give one with images"
    elif glob.has_magic(str(path)) and not path.exists():
        files = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if _is_image(Path(name)))  # noqa: PTH207
        nothing = f"{path}: no file has a name of this pattern"
    else:
        files, nothing = [path], ""
    if not files:
        raise UserError(nothing)
    yield from files


def _is_image(path: Path) -> bool:
    """Return whether a path is no folder, or a folder that is an image in OME-Zarr."""
    return path.suffix.lower() == ".zarr" or not path.is_dir()


def _what_was_read(answer: Fields) -> str:
    """Return a line on the bytes that were read of a slide, and one for each glimpse."""
    looks = zip(answer["glimpses"], answer["sides"], strict=True)
    return "\n".join(
        [
            f"  read {answer['read_bytes'] / 1e6:.2f} MB, {100 * answer['read_bytes_share']:.3g} % of the file and "
            f"{100 * answer['read_pixels_share']:.3g} % of the pixels",
            *(
                f"  glimpse {t}: row {row}, column {column}, {side} pixels"
                for t, ((row, column), side) in enumerate(looks, 1)
            ),
        ]
    )


class Overlays:
    """A folder of images with their glimpses drawn on them, each named after its file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, file: Path, overlay: Image) -> None:
        """Write NAME.png; of several files of one name NAME-2.png, NAME-3.png and so on."""
        name, number = file.stem, 1
        while name in self._names:
            number += 1
            name = f"{file.stem}-{number}"
        self._names.add(name)
        overlay.save(self._folder / f"{name}.png")
