"""``--data SPEC`` to an ImageSet: the source is read, bad files dealt with, splits made, a task picked."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from nogs.config.groups import Source
from nogs.data import cache
from nogs.data.imageset import ImageSet
from nogs.data.listing import Annotations, Faults, Listing
from nogs.data.sources.celeba import celeba
from nogs.data.sources.celebahq import celebahq
from nogs.data.sources.cub import cub
from nogs.data.sources.digits import CANVAS_PX, digits
from nogs.data.sources.folder import folder
from nogs.data.sources.npz import npz
from nogs.data.sources.table import table
from nogs.data.splits import TRAIN, complete
from nogs.errors import UserError

_LISTINGS: dict[str, Callable[[Path, Faults], Listing]] = {
    "folder": folder,
    "csv": table,
    "celeba": celeba,
    "celebahq": celebahq,
    "cub": cub,
}
_KINDS = ("digits", *(f"{kind}:PATH" for kind in (*_LISTINGS, "npz")))
_FILES = ("csv", "npz")
_FINGERPRINT_BYTES = 2**30


def load(source: Source) -> ImageSet:
    """The images that ``--data``, ``--task`` and ``--image-size`` name, split into train, val and test.

    Without a task a multi-label set stays multi-label. Raises UserError for whatever the user can mend;
    with ``--skip-bad`` files and rows that cannot be used are listed on stderr and left out.
    """
    return of_task(load_all(source), source)


def of_task(images: ImageSet, source: Source) -> ImageSet:
    """The same under the label that ``--task`` names. Raises UserError where training images do not differ in it."""
    chosen = images.select(source.task)
    if source.task is not None and chosen.labels[chosen.members("train")].bincount(minlength=2).min() == 0:
        raise UserError(f"task={source.task}: all training images have the same label; choose another")
    return chosen


def load_all(source: Source) -> ImageSet:
    """The images under all of their labels, whatever the task."""
    if source.image_size is not None and source.image_size < 1:
        raise UserError(f"image_size={source.image_size}: must be one pixel or more")
    if _is_digits(source.data):
        return digits(source.image_size or CANVAS_PX, source.split_seed)
    faults = Faults(source.skip_bad)
    try:
        kind, path = parse(source.data)
        images, about = _read(kind, path, source.image_size, faults)
    except OSError as error:
        culprit = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise UserError(f"data={source.data}: cannot read {culprit}") from error
    faults.stop()
    faults.warn()
    if len(images) == 0:
        raise UserError(f"data={source.data}: no usable image is there")
    return _assemble(images, about, source)


def fingerprint(images: ImageSet) -> str:
    """SHA-256, in hexadecimal, of labels, classes, splits, groups, names and pixels.

    Of pixels, all up to 1 GiB; of a larger set every k-th image, so that about 1 GiB is read.
    """
    digest = hashlib.sha256(repr((tuple(images.images.shape), images.classes, images.names)).encode())
    for column in (images.labels, images.split, images.groups):
        digest.update(column.contiguous().numpy().tobytes())
    every = 1 + images.images.numel() // _FINGERPRINT_BYTES
    for image in images.images[::every]:
        digest.update(image.contiguous().numpy())
    return digest.hexdigest()


def _is_digits(spec: str) -> bool:
    if spec.startswith("digits:"):
        raise UserError(f"data={spec}: digits are built in and take no path; write data=digits")
    return spec == "digits"


def parse(spec: str) -> tuple[str, Path]:
    """The kind and the path of a SPEC other than ``digits``."""
    kind, colon, place = spec.partition(":")
    choices = f"choose one of {', '.join(_KINDS)}"
    kinds = [name.removesuffix(":PATH") for name in _KINDS]
    if kind not in kinds:
        close = difflib.get_close_matches(kind, kinds, n=1)
        if close:
            choices = f"did you mean {close[0]}{':' + (place or 'PATH') if close[0] != 'digits' else ''}?"
        elif not colon and Path(spec).is_dir():
            choices = f"did you mean folder:{spec}?"
        raise UserError(f"data={spec}: there is no such source; {choices}")
    if not place:
        raise UserError(f"data={spec}: give its path, as in {kind}:PATH")
    try:
        path = Path(place).expanduser()
    except RuntimeError as error:
        raise UserError(f"data={spec}: nobody has the home folder of {place}; write it out") from error
    if not path.exists():
        raise UserError(f"data={spec}: {path} does not exist")
    if path.is_dir() == (kind in _FILES):
        raise UserError(f"data={spec}: {path} is {'a folder, not a file' if path.is_dir() else 'not a folder'}")
    return kind, path


def _read(
    kind: str, path: Path, image_size: int | None, faults: Faults
) -> tuple[UInt8[Tensor, "N c H H"], Annotations]:
    if kind == "npz":
        images, about = npz(path, image_size, faults)
        return torch.from_numpy(images), about
    listing = _LISTINGS[kind](path, faults)
    faults.stop()  # bad rows first: they are found before anything is decoded
    pixels = cache.read(listing.files, image_size, listing.boxes)
    for index, reason in sorted(pixels.bad.items()):
        faults.add(listing.where[index], reason)
    good = np.array([i for i in range(len(listing.files)) if i not in pixels.bad], dtype=np.int64)
    return torch.from_numpy(pixels.images), listing.about.keep(good)


def _assemble(images: UInt8[Tensor, "N c H H"], about: Annotations, source: Source) -> ImageSet:
    groups = np.arange(len(images)) if about.groups is None else about.groups
    if about.labels.ndim == 1:
        _check_classes(about, source.data)
    split = complete(about.split, about.labels, groups=groups, seed=source.split_seed)
    if about.labels.ndim == 1:
        missing = sorted(set(range(len(about.classes))) - set(about.labels[split == TRAIN].tolist()))
        if missing:
            raise UserError(f"data={source.data}: class {about.classes[missing[0]]} has no training image; add some")
    return ImageSet(
        images=images,
        labels=torch.from_numpy(about.labels),
        classes=about.classes,
        split=torch.from_numpy(split),
        groups=torch.from_numpy(groups),
        names=about.names,
    )


def _check_classes(about: Annotations, spec: str) -> None:
    if len(about.classes) < 2:
        raise UserError(f"data={spec}: there is only one class, {about.classes[0]}; give two or more")
    for name, count in zip(about.classes, np.bincount(about.labels, minlength=len(about.classes)), strict=True):
        if count == 0:
            raise UserError(f"data={spec}: class {name} has no image; add some, or leave the class out")
        if count == 1 and about.split is None:
            raise UserError(
                f"data={spec}: class {name} has 1 image, which cannot be split; "
                "give it three or more, or leave the class out"
            )
