"""The square form that all images of a set get, and the part of an image that the square shows."""

from __future__ import annotations

from typing import NamedTuple

from nogs.config.groups import Fit, Range
from nogs.data.notices import notice

MUCH = (1, 3)
"""Share of an image's area, as a fraction, above which cropping is reported."""


class Frame(NamedTuple):
    """The common form: uint8 [channels, side_px, side_px].

    ``fit``: how an image that is not square becomes one. ``range``: the values (low, high) that become 0 and 255 in
    images of more than 8 bits a channel; None refuses such images.
    """

    channels: int
    side_px: int
    fit: Fit = "crop"
    range: Range | None = None


class Box(NamedTuple):
    """A part of an image in pixels, from the top left; ``right`` and ``bottom`` are the first left out."""

    left: int
    top: int
    right: int
    bottom: int

    def within(self, width: int, height: int) -> Box:
        """Return the part of the box that lies on an image of that size."""
        return Box(max(self.left, 0), max(self.top, 0), min(self.right, width), min(self.bottom, height))


class Cut(NamedTuple):
    """What cropping removes: how many images lose more than `MUCH` of their area, and the largest share lost."""

    images: int = 0
    largest: float = 0.0

    def add(self, width: int, height: int, fit: Fit) -> Cut:
        """Return the same with one more image."""
        area = width * height
        box = shown(width, height, fit).within(width, height)
        lost = area - (box.right - box.left) * (box.bottom - box.top)
        much = lost * MUCH[1] > area * MUCH[0]
        return Cut(self.images + much, max(self.largest, lost / area))

    def loss(self, count: int) -> str:
        """Describe what a set of ``count`` images loses."""
        return (
            f"cropping to the centre square removes more than a third of {self.images} of {count} images "
            f"({100 * self.largest:.0f} % at most)"
        )

    def warn(self, count: int) -> None:
        """Print a notice on a set of ``count`` images, unless no image loses much."""
        if self.images:
            notice(f"{self.loss(count)}: give fit pad or squash to keep all of an image")


def shown(width: int, height: int, fit: Fit) -> Box:
    """Return the part of a ``width`` × ``height`` image that becomes the square.

    crop: the centre square. pad: the smallest square around the image, which reaches over its border. squash: all of
    the image.
    """
    if fit == "squash":
        return Box(0, 0, width, height)
    side = min(width, height) if fit == "crop" else max(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return Box(left, top, left + side, top + side)
