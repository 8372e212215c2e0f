"""Read images in folders: one sub-folder per class, optionally within ``train/``, ``val/`` and ``test/``.

Every file of a class folder is an image, except hidden ones, and so is every folder ``*.zarr`` (OME-Zarr). Classes are
sorted by name, or by value if all are integers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nogs.config.groups import Source
from nogs.data.files import is_zarr
from nogs.data.imageset import SPLITS
from nogs.data.listing import Annotations, Faults, Listing, by_path, in_order
from nogs.errors import UserError

_IGNORED = {"thumbs.db", "desktop.ini"}
"""Files that Windows writes into folders of images."""


def folder(root: Path, source: Source, faults: Faults) -> Listing:
    """Return all images under ``root``. The name of an image is its path below ``root``.

    The sub-folders are splits if one of them is called ``train``. Files that are no images are found when decoding.
    """
    above = _folders(root)
    splits = [name for name in above if name in SPLITS] if "train" in above else []
    if splits and len(splits) < len(above):
        other = next(name for name in above if name not in SPLITS)
        raise UserError(f"{root / other}: beside train/ there may be only val/ and test/; rename or move it")
    tops = [(SPLITS.index(name), root / name) for name in SPLITS if name in splits] or [(-1, root)]
    places = [(which, name, top / name) for which, top in tops for name in _classes(top)]
    classes = in_order(name for _, name, _ in places)
    files: list[Path] = []
    labels: list[int] = []
    split: list[int] = []
    for which, name, place in places:
        images = _images(place)
        files += images
        labels += [classes.index(name)] * len(images)
        split += [which] * len(images)
    about = Annotations(
        names=tuple(file.relative_to(root).as_posix() for file in files),
        labels=np.array(labels, dtype=np.int64),
        classes=classes,
        split=np.array(split, dtype=np.int64) if splits else None,
    )
    return by_path(files, about)


def _folders(root: Path) -> list[str]:
    return sorted(
        entry.name
        for entry in root.iterdir()
        if entry.is_dir() and not entry.name.startswith(".") and not is_zarr(entry)
    )


def _classes(root: Path) -> list[str]:
    names = _folders(root)
    if not names:
        raise UserError(f"{root}: has no sub-folders; give each class a folder of images there")
    return names


def _images(place: Path) -> list[Path]:
    """Return the files of a class folder, sorted by name."""
    files = []
    for entry in sorted(place.iterdir()):
        if entry.name.startswith(".") or entry.name.lower() in _IGNORED:
            continue
        if entry.is_dir() and not is_zarr(entry):
            raise UserError(
                f"{entry}: a class folder ({place.name}) holds images only; move this folder out of it, "
                "or, if it is a class, name the folder above it train, val or test"
            )
        files.append(entry)
    if not files:
        raise UserError(f"{place}: class folder {place.name} has no images; fill or remove it")
    return files
