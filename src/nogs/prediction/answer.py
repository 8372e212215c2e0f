"""The answer for one image: label, probabilities, and the glimpses in the pixels of the image that was given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from nogs.config.groups import Range
from nogs.data.frame import Box
from nogs.prediction.drawing import draw_boxes
from nogs.prediction.images import ImageLike, whole

if TYPE_CHECKING:  # matplotlib takes a second to import, and only `Answer.plot` needs it
    from matplotlib.axes import Axes
    from PIL.Image import Image


class Square(NamedTuple):
    """A glimpse in pixels of the upright image that was given: its top-left pixel and the length of its side.

    If images are squashed to a square, a glimpse is a rectangle of height ``side`` there (`Answer.boxes`).
    """

    row: int
    column: int
    side: int


class SlideRead(NamedTuple):
    """The part of a slide that was read: bytes of its file with headers, and shares of the bytes and of the pixels.

    ``pixels_share``: of the image at the network's size, the overview counted as it is stored.
    """

    bytes: int
    bytes_share: float
    pixels_share: float


@dataclass(frozen=True)
class Answer:
    """The prediction for one image.

    ``label``: the likeliest class. ``probs``: class → probability. ``glimpses``: the squares that were looked at, in
    their order; parts of them may lie outside of the image if images are padded. ``steps``: number of glimpses.
    ``macs``: multiply-adds. ``boxes``: the glimpses as rectangles. ``size``: (width, height) of the upright image.
    ``read``: what was read of a slide; None for images that were decoded whole.
    """

    label: str
    probs: dict[str, float]
    glimpses: tuple[Square, ...]
    steps: int
    macs: int
    boxes: tuple[Box, ...] = field(repr=False)
    size: tuple[int, int] = field(repr=False)
    image: ImageLike = field(repr=False, compare=False)
    range: Range | None = field(default=None, repr=False, compare=False)
    read: SlideRead | None = field(default=None, repr=False)

    def picture(self) -> Image:
        """Return the image upright, in its own size and in RGB. An image file is read again, and a slide reduced."""
        return whole(self.image, self.range)

    def overlay(self) -> Image:
        """Return the image with its glimpses drawn on it, numbered; a small image is enlarged."""
        picture = self.picture()
        return draw_boxes(picture, self._boxes_on(picture))

    def _boxes_on(self, picture: Image) -> tuple[Box, ...]:
        """Return the glimpses in the pixels of a picture, which of a slide is reduced."""
        if picture.size == self.size:
            return self.boxes
        scales = (picture.width / self.size[0], picture.height / self.size[1]) * 2
        return tuple(Box(*(round(edge * scale) for edge, scale in zip(box, scales, strict=True))) for box in self.boxes)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the image with its glimpses, numbered in their order, on ``ax`` (default: axes of a new figure)."""
        from matplotlib import pyplot
        from matplotlib.patches import Rectangle

        axes: Axes = pyplot.figure().add_subplot() if ax is None else ax
        picture = self.picture()
        axes.imshow(picture, interpolation="nearest")
        for number, (left, top, right, bottom) in enumerate(self._boxes_on(picture), start=1):
            corner = left - 0.5, top - 0.5  # pixel (0, 0) spans from -0.5 to 0.5
            axes.add_patch(Rectangle(corner, right - left, bottom - top, fill=False, edgecolor="red", linewidth=2))
            label = {"facecolor": "red", "edgecolor": "none", "pad": 1}
            axes.text(*corner, str(number), color="white", va="top", ha="left", bbox=label)
        axes.set_title(f"{self.label} ({100 * self.probs[self.label]:.1f} %)")
        axes.set_axis_off()
        return axes
