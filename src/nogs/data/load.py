"""Load the images of ``data=SPEC``: read the source, leave out bad files, complete the splits, choose the task.

To add a data source, write its reader (a file in `nogs.data.sources`) and a row of `SOURCES`.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from nogs.config.groups import Source
from nogs.data.decoded import decoded
from nogs.data.drawn import Drawn
from nogs.data.files import check_regular, is_utf8
from nogs.data.imageset import NO_LABEL, ImageSet
from nogs.data.listing import Annotations, Arrays, Faults, Listing
from nogs.data.sources.celeba import celeba
from nogs.data.sources.celebahq import celebahq
from nogs.data.sources.cub import cub
from nogs.data.sources.digits import digits
from nogs.data.sources.folder import folder
from nogs.data.sources.gtsdb import gtsdb
from nogs.data.sources.gtsdb_pasted import gtsdb_pasted
from nogs.data.sources.megapixel import megapixel
from nogs.data.sources.needles import needles
from nogs.data.sources.npz import npz
from nogs.data.sources.pointers import pointers
from nogs.data.sources.table import table
from nogs.data.splits import TRAIN, complete
from nogs.errors import UserError

_FINGERPRINT_BYTES = 2**30


class Kind(NamedTuple):
    """A row of the table of sources.

    ``read`` returns the images of a path, as files to decode or as arrays. Rows that it cannot use become faults. It
    raises UserError or OSError if the whole source is unusable. ``place``: what follows the colon of a SPEC.
    """

    read: Callable[[Path, Source, Faults], Listing | Arrays]
    place: Literal["nothing", "a folder", "a file", "nothing or a file"]


SOURCES: Mapping[str, Kind] = {
    "digits": Kind(digits, "nothing"),
    "folder": Kind(folder, "a folder"),
    "csv": Kind(table, "a file"),
    "npz": Kind(npz, "a file"),
    "celeba": Kind(celeba, "a folder"),
    "celebahq": Kind(celebahq, "a folder"),
    "cub": Kind(cub, "a folder"),
    "gtsdb": Kind(gtsdb, "a folder"),
    "gtsdb-pasted": Kind(gtsdb_pasted, "a folder"),
    "needles": Kind(needles, "nothing or a file"),
    "megapixel": Kind(megapixel, "nothing or a file"),
    "pointers": Kind(pointers, "nothing or a file"),
}


def load(source: Source) -> ImageSet:
    """Return the images of a source under its task, split into train, val and test.

    Without a task a multi-label set keeps all labels. Raises UserError for invalid input. With ``skip_bad``, files
    and rows that cannot be used are listed on stderr and left out.
    """
    return of_task(load_all(source), source)


def of_task(images: ImageSet, source: Source) -> ImageSet:
    """Return the same images under the label ``source.task``.

    Raises UserError if all training images have the same label.
    """
    chosen = images if images.task else images.select(source.task)
    if source.task is not None and len(chosen.labels[chosen.members("train")].unique()) < 2:
        raise UserError(f"task={source.task}: all training images have the same label; choose another")
    return chosen


def load_all(source: Source) -> ImageSet:
    """Return the images with all of their labels, for any ``source.task``.

    The exception is a table whose labels are not all 0/1. Of such a table only the task is read.
    """
    if source.image_size is not None and source.image_size < 1:
        raise UserError(f"image_size={source.image_size}: must be one pixel or more")
    faults = Faults(source.skip_bad)
    try:
        kind, path = parse(source.data)
        contents = SOURCES[kind].read(path, source, faults)
        _check_names(contents.about.classes, source.data)
        faults.stop()  # before anything is decoded, which takes longest
        arrays = contents if isinstance(contents, Arrays) else decoded(contents, source, faults)
    except OSError as error:
        culprit = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise UserError(f"data={source.data}: cannot read {culprit}") from error
    faults.stop()
    faults.warn()
    if len(arrays.images) == 0:
        raise UserError(f"data={source.data}: no usable image is there")
    return replace(assemble(arrays, source), skipped=len(faults.found))


def parse(spec: str) -> tuple[str, Path]:
    """Return the kind and the path of a SPEC; the path is empty for a kind without one."""
    kind, colon, place = spec.partition(":")
    if kind not in SOURCES:
        raise UserError(f"data={spec}: there is no such source; {_advice(kind, place, spec)}")
    wanted = SOURCES[kind].place
    if wanted == "nothing":
        if colon:
            raise UserError(f"data={spec}: {kind} takes no path; write data={kind}")
        return kind, Path()
    if not place and not colon and wanted == "nothing or a file":
        return kind, Path()
    if not place:
        raise UserError(f"data={spec}: give its path, as in {kind}:PATH")
    try:
        path = Path(place).expanduser()
    except RuntimeError as error:
        raise UserError(f"data={spec}: unknown user in {place}; give an absolute path") from error
    if not is_utf8(str(path.absolute())):
        raise UserError(f"data={spec}: the path is not UTF-8; rename its folders and file")
    if not path.exists():
        raise UserError(f"data={spec}: {path} does not exist")
    if path.is_dir() == (wanted != "a folder"):
        raise UserError(f"data={spec}: {path} is {'a folder, not a file' if path.is_dir() else 'not a folder'}")
    if wanted != "a folder":
        check_regular(path)
    return kind, path


def assemble(arrays: Arrays, source: Source) -> ImageSet:
    """Return images and annotations as one set, with the splits that the source leaves out."""
    images, about = arrays
    groups = np.arange(len(images)) if about.groups is None else about.groups
    if about.labels.ndim == 1:
        _check_classes(about, source.data)
    split = complete(about.split, about.labels, groups=groups, seed=source.split_seed)
    if about.labels.ndim == 1:
        missing = sorted(set(range(len(about.classes))) - set(about.labels[split == TRAIN].tolist()))
        if missing:
            raise UserError(f"data={source.data}: class {about.classes[missing[0]]} has no training image; add some")
    return ImageSet(
        images=images if isinstance(images, Drawn) else torch.from_numpy(images),
        labels=torch.from_numpy(about.labels),
        classes=about.classes,
        split=torch.from_numpy(split),
        groups=torch.from_numpy(groups),
        names=about.names,
        task=about.task,
    )


def fingerprint(images: ImageSet) -> str:
    """Return the SHA-256, in hexadecimal, of labels, classes, splits, groups, names and pixels.

    Up to 1 GiB of pixels are read. Of a larger set every k-th image is read, with k such that they take about 1 GiB.
    """
    digest = hashlib.sha256(repr((tuple(images.images.shape), images.classes, images.names)).encode())
    for column in (images.labels, images.split, images.groups):
        digest.update(column.contiguous().numpy().tobytes())
    if isinstance(images.images, Drawn):
        for part in images.images.content():
            digest.update(part)
        return digest.hexdigest()
    every = 1 + images.images.numel() // _FINGERPRINT_BYTES
    for image in images.images[::every]:
        digest.update(image.contiguous().numpy())
    return digest.hexdigest()


def _advice(kind: str, place: str, spec: str) -> str:
    """Return a proposal for the SPEC to write in place of one whose kind does not exist."""
    if close := difflib.get_close_matches(kind, SOURCES, n=1):
        path = "" if SOURCES[close[0]].place.startswith("nothing") and not place else f":{place or 'PATH'}"
        return f"did you mean {close[0]}{path}?"
    if not place and Path(spec).is_dir():
        return f"did you mean folder:{spec}?"
    specs = [name if kind.place.startswith("nothing") else f"{name}:PATH" for name, kind in SOURCES.items()]
    return f"choose one of {', '.join(specs)}"


def _check_names(classes: Sequence[str], spec: str) -> None:
    for name in classes:
        if not is_utf8(name):
            raise UserError(f"data={spec}: the name of class {name!r} is not UTF-8; rename it")


def _check_classes(about: Annotations, spec: str) -> None:
    if len(about.classes) < 2:
        raise UserError(f"data={spec}: there is only one class, {about.classes[0]}; give two or more")
    labels = about.labels[about.labels != NO_LABEL]
    for name, count in zip(about.classes, np.bincount(labels, minlength=len(about.classes)), strict=True):
        if count == 0:
            raise UserError(f"data={spec}: class {name} has no image; add some, or leave the class out")
        if count == 1 and about.split is None:
            raise UserError(
                f"data={spec}: class {name} has 1 image, which cannot be split; "
                "give it three or more, or leave the class out"
            )
