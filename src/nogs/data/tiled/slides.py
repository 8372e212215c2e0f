"""Sets of images that are read by tiles: which files they are, what headers say, and overviews in the cache.

``KEY.slides`` (JSON) has the common form, the facts of `About` and, for each slide that can be used, the size and time
of change of its file and a digest of its pixels, so that a later start opens no file. ``KEY.overview-PX.npy``, uint8
[N, c, PX, PX], has all slides reduced to PX pixels a side. It is computed when it is first needed, and mapped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from nogs.config.groups import Source
from nogs.data.decode import Header, common_form, in_threads
from nogs.data.files import is_utf8
from nogs.data.frame import Frame
from nogs.data.listing import About
from nogs.data.mapped import replacing
from nogs.data.notices import notice
from nogs.data.tiled import tiff
from nogs.data.tiled.large import LargeImage, State
from nogs.data.tiled.opening import known_large, open_large
from nogs.data.tiled.shared import Shared
from nogs.data.tiled.tiles import TiledImages
from nogs.errors import UserError

CACHE_MB = 1000
"""Megabytes of decoded tiles that a set keeps, without $NOGS_TILE_CACHE."""
MB = 10**6


class Slides(NamedTuple):
    """The slides that can be used, in the order of their files, and facts about all files."""

    images: TiledImages
    about: About


def read_slides(files: Sequence[Path], source: Source, place: Path) -> Slides | None:
    """Return files as slides; None if none of them is read by tiles, so that all are decoded whole.

    ``place``: the file of the cache that has what is known of them. In a set with a slide every other image is bad.
    """
    shared = Shared(tile_cache_bytes())
    known, slides = _open(place, len(files)), list[LargeImage]()
    if known is None:
        scanned = _scan(files, source, shared)
        if scanned is None:
            return None
        known, slides = scanned
        try:
            with replacing(place) as stream:
                stream.write(json.dumps({**asdict(known.about), "frame": known.frame, "states": known.states}).encode())
        except OSError as error:
            notice(f"the cache {place.parent} cannot be written ({error.strerror}), so every start opens all slides")
    good = [file for index, file in enumerate(files) if index not in known.about.bad]
    slides = slides or [
        known_large(file, source.range, shared=shared, state=state)
        for file, state in zip(good, known.states, strict=True)
    ]
    return Slides(TiledImages(slides, known.frame, names=tuple(map(str, good)), kept=place), known.about)


def tile_cache_bytes() -> int:
    """Return the bytes of decoded tiles that a set may keep. Raises UserError if $NOGS_TILE_CACHE is no number."""
    given = os.environ.get("NOGS_TILE_CACHE") or str(CACHE_MB)
    try:
        megabytes = float(given)
    except ValueError:
        megabytes = -1
    if not 0 <= megabytes < float("inf"):
        raise UserError(f"NOGS_TILE_CACHE={given}: give the megabytes of decoded tiles to keep, as in 1000")
    return int(megabytes * MB)


class _Known(NamedTuple):
    """What is known of a set of files. ``states``: of each slide that is not bad."""

    frame: Frame
    about: About
    states: list[State]


def _open(place: Path, count: int) -> _Known | None:
    """Return what is known of ``count`` files, None if it is absent or incomplete."""
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
        channels, side_px, fit, range = content["frame"]
        frame = Frame(int(channels), int(side_px), fit, None if range is None else tuple(range))
        states = [State(int(size), int(time_ns), str(digest)) for size, time_ns, digest in content["states"]]
        known = _Known(frame, About.from_json(content), states)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return known if len(known.states) + len(known.about.bad) == count else None


def _scan(files: Sequence[Path], source: Source, shared: Shared) -> tuple[_Known, list[LargeImage]] | None:
    """Read the headers of all files, and return the slides that are not bad; None if none is read by tiles."""

    def scanned(file: Path) -> LargeImage | str | None:
        try:
            slide = open_large(file, source.range, shared=shared)
            if slide is None:
                return None
            slide.known()
            slide.close()
            return slide if is_utf8(str(file)) else "its name is not UTF-8"
        except UserError as error:
            return str(error)
        except OSError:
            return None  # what is wrong with the file is found where all files are opened

    found = list(in_threads(scanned, files, "reading headers"))
    if all(one is None for one in found):
        return None
    example = files[next(index for index, one in enumerate(found) if one is not None)]
    small = (
        f"is decoded whole, but {example} is read by tiles, as OME-Zarr and tiled TIFFs of more than "
        f"{tiff.LARGE_PX / 1e6:.1f} million pixels are: keep such images apart, or save this one as one of them"
    )
    headers = (_header(one) if isinstance(one, LargeImage) else one or small for one in found)
    surveyed = common_form(files, headers, source.image_size, fit=source.fit, range=source.range)
    about = About(surveyed.bad, [], surveyed.cut)
    good = {index: one for index, one in enumerate(found) if isinstance(one, LargeImage) and index not in about.bad}
    first: dict[str, int] = {}
    for index, slide in good.items():
        twin = first.setdefault(slide.known().digest, index)
        if twin != index:
            about.twins.append((twin, index))
    slides = list(good.values())
    frame = surveyed.frame or Frame(3, source.image_size or 1, source.fit, source.range)
    return _Known(frame, about, [slide.known() for slide in slides]), slides


def _header(slide: LargeImage) -> Header:
    return Header(slide.width, slide.height, slide.channels == 1)
