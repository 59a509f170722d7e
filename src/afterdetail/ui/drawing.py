"""A dry run, drawn into a small copy of the picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from afterdetail.preview import COLOURS, Colour
from afterdetail.results import DetailedObject, DryRun, Outcome
from afterdetail.types import RGB, Mask, Point

LONGEST = 1280
"""Pixels of the copy's longer side: sharp on a screen, quick to send."""
COVER = 0.55
"""Opacity of a mask that is to be repainted."""
REPAINTED = COLOURS[0]
LEFT_ALONE: Colour = (190, 190, 190)


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """What a dry run says, and its picture with the masks drawn in.

    ``scale`` is pixels of ``drawn`` to one of the picture.
    """

    drawn: RGB
    scale: float
    objects: tuple[DetailedObject, ...]

    @property
    def planned(self) -> list[int]:
        """The ids of the objects that would be repainted."""
        return [item.id for item in self.objects if item.outcome is Outcome.PLANNED]

    def at(self, point: Point) -> int | None:
        """The id of the smallest object at a pixel of ``drawn``, None if there is none."""
        x, y = (value / self.scale for value in point)
        inside = [
            item
            for item in self.objects
            for box in [item.detection.box]
            if box.x0 <= x < box.x1 and box.y0 <= y < box.y1
        ]
        if not inside:
            return None
        return min(inside, key=lambda item: item.detection.box.area).id


def sketch(seen: DryRun) -> Sketch:
    """The picture made small enough for a page: each mask coloured, each object framed, with its
    id; grey for those that are left alone.
    """
    scale = min(1.0, LONGEST / max(seen.picture.size))
    width, height = (max(1, round(side * scale)) for side in seen.picture.size)
    small = Image.fromarray(seen.picture.rgb).resize((width, height), Image.Resampling.BOX)
    canvas = np.asarray(small, np.float32).copy()
    for mask in seen.masks:
        _colour(canvas, mask, scale)
    image = Image.fromarray(canvas.round().astype(np.uint8))
    for item in reversed(seen.objects):
        _frame(image, item, scale)
    return Sketch(np.asarray(image), scale, seen.objects)


def _colour(canvas: npt.NDArray[np.float32], mask: Mask, scale: float) -> None:
    """Cover the canvas where the mask is, as densely as it will be repainted."""
    height, width = canvas.shape[:2]
    x0, y0 = (round(side * scale) for side in mask.box[:2])
    x1, y1 = (round(side * scale) for side in mask.box[2:])
    x1, y1 = min(width, max(x0 + 1, x1)), min(height, max(y0 + 1, y1))
    if mask.empty or x1 <= x0 or y1 <= y0:
        return
    small = Image.fromarray(mask.alpha).resize((x1 - x0, y1 - y0), Image.Resampling.BOX)
    alpha = np.asarray(small, np.float32)[..., None] / 255 * COVER
    part = canvas[y0:y1, x0:x1]
    part += alpha * (np.asarray(REPAINTED, np.float32) - part)


def _frame(image: Image.Image, item: DetailedObject, scale: float) -> None:
    """The object's box, and its id on a plate in the corner."""
    colour = REPAINTED if item.outcome is Outcome.PLANNED else LEFT_ALONE
    box = item.detection.box
    pen = ImageDraw.Draw(image)
    line = max(2, round(max(image.size) / 400))
    x0, y0, x1, y1 = (side * scale for side in (box.x0, box.y0, box.x1, box.y1))
    pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), None, colour, line)
    font = ImageFont.load_default(size=max(14, round(max(image.size) / 30)))
    left, top, right, bottom = pen.textbbox((0, 0), str(item.id), font=font)
    width, height = right - left + 4 * line, bottom - top + 4 * line
    pen.rectangle((x0, y0, x0 + width, y0 + height), fill=colour)
    corner = (x0 + 2 * line - left, y0 + 2 * line - top)
    pen.text(corner, str(item.id), fill=(0, 0, 0), font=font)
