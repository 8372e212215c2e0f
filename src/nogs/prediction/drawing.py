"""Draw numbered glimpses on an image with Pillow, which takes no time to import."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from nogs.data.frame import Box

LEAST_PX = 480
"""Smaller images are enlarged by a whole number until their longer side has at least this many pixels."""
COLOUR, NUMBER_COLOUR = "red", "white"


def draw_boxes(picture: Image.Image, boxes: Sequence[Box]) -> Image.Image:
    """Return an RGB image with the outlines of ``boxes``, which are in its pixels, numbered in their order."""
    scale = -(-LEAST_PX // max(picture.size))
    drawn = picture.resize((scale * picture.width, scale * picture.height), Image.Resampling.NEAREST)
    line = max(2, max(drawn.size) // 240)
    font = ImageFont.load_default(size=8 * line)
    draw = ImageDraw.Draw(drawn)
    for box in boxes:
        left, top, right, bottom = (scale * value for value in box)
        draw.rectangle((left, top, right - 1, bottom - 1), outline=COLOUR, width=line)
    for number, box in enumerate(boxes, start=1):
        # Glimpses at the same place share their numbers.
        if box in boxes[: number - 1]:
            continue
        numbers = ",".join(str(n) for n, other in enumerate(boxes, start=1) if other == box)
        corner = max(0, scale * box.left), max(0, scale * box.top)
        edges = draw.textbbox(corner, numbers, font=font)
        draw.rectangle((*corner, edges[2] + line, edges[3] + line), fill=COLOUR)
        draw.text((corner[0] + line // 2, corner[1]), numbers, fill=NUMBER_COLOUR, font=font)
    return drawn
