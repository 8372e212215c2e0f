"""Decode the files of a listing, and name those that cannot be used."""

from __future__ import annotations

import numpy as np

from nogs.config.groups import Source
from nogs.data import cache
from nogs.data.drawn import Drawn
from nogs.data.files import is_utf8
from nogs.data.imageset import NO_LABEL
from nogs.data.listing import Arrays, Faults, Listing
from nogs.data.notices import notice


def decoded(listing: Listing, source: Source, faults: Faults) -> Arrays:
    """Return the images of a listing, decoded or from the cache. Files that cannot be used become faults."""
    images, about = cache.read(listing.files, source, listing.boxes)
    bad = about.bad | {i: "its name is not UTF-8" for i, name in enumerate(listing.about.names) if not is_utf8(name)}
    for index, reason in sorted(bad.items()):
        faults.add(listing.where[index], reason)
    kept = [index for index in range(len(listing.files)) if index not in about.bad]
    about.cut.warn(len(kept))
    if listing.about.labels.ndim == 1:
        _warn_of_twins(listing, about.twins)
    rows = [row for row, index in enumerate(kept) if index not in bad]
    good = np.array([kept[row] for row in rows], dtype=np.int64)
    if len(rows) < len(kept) and not isinstance(images, Drawn):  # slides without a good name are bad already
        images = images[rows]
    return Arrays(images, listing.about.keep(good))


def _warn_of_twins(listing: Listing, twins: list[tuple[int, int]]) -> None:
    """Print a notice if files with the same pixels are in two classes."""
    labels, classes = listing.about.labels, listing.about.classes
    known = [(one, other) for one, other in twins if NO_LABEL not in (labels[one], labels[other])]
    apart = [(one, other) for one, other in known if labels[one] != labels[other]]
    if apart:
        one, other = apart[0]
        notice(
            f"the same image is in two classes, {len(apart)} times: {listing.where[one]} "
            f"({classes[labels[one]]}) and {listing.where[other]} ({classes[labels[other]]})"
        )
