"""Detections drawn into their picture, for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import cycle

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from afterdetail.types import Box, Detection, Mask, Picture, Polygon

Colour = tuple[int, int, int]

# Okabe and Ito's colours, which everyone can tell apart (https://jfly.uni-koeln.de/color/).
COLOURS: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
MASK: Colour = (204, 121, 167)
"""Of every mask: one may be of many objects."""
FILL = 90
"""Opacity of a filled outline, of 255."""


def draw(
    picture: Picture, detections: Iterable[Detection], masks: Sequence[Mask] | None = None
) -> Picture:
    """A copy of the picture with each object's outline filled, its box, label and score.

    Objects take turns with the colours; the most confident is drawn last, on top.

    Args:
        masks: filled instead of the outlines: what would be repainted, blur and all.
    """
    image = Image.fromarray(picture.rgb).convert("RGBA")
    drawn = list(zip(detections, cycle(COLOURS), strict=False))
    if masks is None:
        for detection, colour in reversed(drawn):
            image = _filled(image, detection, colour)
    else:
        for mask in masks:
            _tint(image, mask)
    for detection, colour in reversed(drawn):
        _frame(image, detection, colour)
    return Picture(np.asarray(image.convert("RGB")), picture.alpha, picture.icc_profile)


def _filled(image: Image.Image, detection: Detection, colour: Colour) -> Image.Image:
    layer = Image.new("RGBA", image.size)
    pen = ImageDraw.Draw(layer)
    for part in detection.polygons or (_corners(detection.box),):
        pen.polygon(part, fill=(*colour, FILL), outline=(*colour, 255))
    return Image.alpha_composite(image, layer)


def _tint(image: Image.Image, mask: Mask) -> None:
    alpha = (mask.alpha.astype(np.uint16) * FILL // 255).astype(np.uint8)
    place = (mask.box.x0, mask.box.y0)
    image.paste(Image.new("RGBA", mask.box.size, MASK), place, Image.fromarray(alpha))


def _frame(image: Image.Image, detection: Detection, colour: Colour) -> None:
    """The box, and above it (inside, at the top of the picture) label and score on a plate."""
    pen = ImageDraw.Draw(image)
    line = max(2, round(max(image.size) / 400))
    font = ImageFont.load_default(size=max(12, round(max(image.size) / 45)))
    box = detection.box
    pen.rectangle(
        (box.x0, box.y0, max(box.x0, box.x1 - 1), max(box.y0, box.y1 - 1)), None, colour, line
    )
    text = f"{detection.label} {detection.score:.2f}"
    x0, y0, x1, y1 = pen.textbbox((0, 0), text, font=font)
    width, height = x1 - x0 + 2 * line, y1 - y0 + 2 * line
    left = min(max(0.0, box.x0), max(0.0, image.width - width))
    top = box.y0 - height if box.y0 >= height else box.y0
    pen.rectangle((left, top, left + width, top + height), fill=colour)
    pen.text((left + line - x0, top + line - y0), text, fill=_ink(colour), font=font)


def _corners(box: Box) -> Polygon:
    return (box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1)


def _ink(plate: Colour) -> Colour:
    """Black or white, whichever is easier to read on the plate (Rec. 709 luma)."""
    luma = 0.2126 * plate[0] + 0.7152 * plate[1] + 0.0722 * plate[2]
    return (0, 0, 0) if luma > 128 else (255, 255, 255)
