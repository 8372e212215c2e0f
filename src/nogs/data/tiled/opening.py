"""Which files are read by tiles, and the class that reads each format: to add a format, name its class here."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nogs.config.groups import Range
from nogs.data.files import is_zarr
from nogs.data.tiled.large import LargeImage, State
from nogs.data.tiled.shared import Shared
from nogs.data.tiled.slide import Slide
from nogs.data.tiled.tiff import check_small, has_tiff, is_tiff
from nogs.errors import UserError


def open_large(path: Path, range: Range | None, *, shared: Shared | None = None) -> LargeImage | None:
    """Return a file to be read by tiles, None if it is neither an OME-Zarr nor a tiled TIFF of more than `LARGE_PX`.

    ``range``: the values that become 0 and 255 in a file of more than 8 bits a channel. Raises UserError for such a
    file that cannot be read by tiles.
    """
    if is_zarr(path):
        image = _zarr(path, range, shared=shared)
        assert image.levels
        return image
    if not path.is_file() or not is_tiff(path):
        return None
    if not has_tiff():
        check_small(path)
        return None
    slide = Slide(path, range, shared=shared)
    if slide.parse(only_large=True):
        return slide
    slide.close()
    return None


def known_large(path: Path, range: Range | None, *, shared: Shared, state: State) -> LargeImage:
    """Return a file that was opened by `open_large` before, without reading it. ``state``: what identifies it."""
    kind = _zarr if is_zarr(path) else Slide
    return kind(path, range, shared=shared, state=state)


def has_zarr() -> bool:
    """Return whether zarr is installed, in version 3 or later, which needs Python 3.11."""
    try:
        return int(version("zarr").partition(".")[0]) >= 3
    except PackageNotFoundError:
        return False


def _zarr(path: Path, range: Range | None, *, shared: Shared | None = None, state: State | None = None) -> LargeImage:
    if not has_zarr():
        raise UserError("is an OME-Zarr image: install nogs[zarr], with Python 3.11 or later")
    from nogs.data.tiled.ome_zarr import OmeZarr  # imports zarr

    return OmeZarr(path, range, shared=shared, state=state)
