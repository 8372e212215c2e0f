"""The common square form of all images of a set, and the part of each image in it."""

from __future__ import annotations

from typing import NamedTuple

from nogs.config.groups import Fit, Range
from nogs.data.notices import notice

REPORTED_SHARE = (1, 3)
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
    """The effect of cropping: number of images that lose more than `REPORTED_SHARE`, and the largest share lost."""

    images: int = 0
    largest: float = 0.0

    def add(self, width: int, height: int, fit: Fit) -> Cut:
        """Return the effect with one more image of ``width`` x ``height`` pixels."""
        area = width * height
        box = shown(width, height, fit).within(width, height)
        lost = area - (box.right - box.left) * (box.bottom - box.top)
        reported = lost * REPORTED_SHARE[1] > area * REPORTED_SHARE[0]
        return Cut(self.images + reported, max(self.largest, lost / area))

    def loss(self, count: int) -> str:
        """Describe the loss of a set of ``count`` images."""
        return (
            f"cropping to the centre square removes more than a third of {self.images} of {count} images "
            f"({100 * self.largest:.0f} % at most)"
        )

    def warn(self, count: int) -> None:
        """Print a notice on the loss of a set of ``count`` images, if any image loses more than `REPORTED_SHARE`."""
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
