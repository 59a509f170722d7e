"""The nouns of afterdetail, one frozen record each.

Coordinates are pixels, x to the right, y down. Pictures are uint8 ``(H, W, 3)`` RGB, masks uint8
``(H, W)`` where 255 means repaint.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt

RGB: TypeAlias = npt.NDArray[np.uint8]
"""A picture: uint8 ``(H, W, 3)``."""

Gray: TypeAlias = npt.NDArray[np.uint8]
"""A mask or an alpha channel: uint8 ``(H, W)``."""

Point: TypeAlias = tuple[float, float]
Polygon: TypeAlias = tuple[Point, ...]
Size: TypeAlias = tuple[int, int]
"""Width and height in pixels, in this order."""


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned rectangle: pixels, xyxy, the right and bottom edges exclusive."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        """Zero for a box that is empty or inside out."""
        return max(0.0, self.width) * max(0.0, self.height)

    def clipped(self, size: Size) -> Box:
        """The part of the box inside a picture of ``size``; area 0 if none is."""
        width, height = size
        return Box(
            min(max(self.x0, 0), width),
            min(max(self.y0, 0), height),
            min(max(self.x1, 0), width),
            min(max(self.y1, 0), height),
        )

    def intersection(self, other: Box) -> float:
        """The area both boxes share, square pixels."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(0.0, width) * max(0.0, height)

    def iou(self, other: Box) -> float:
        """Intersection over union, 0..1."""
        shared = self.intersection(other)
        union = self.area + other.area - shared
        return shared / union if union > 0 else 0.0


class PixelBox(NamedTuple):
    """A rectangle of whole pixels: xyxy, the right and bottom edges exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    @property
    def size(self) -> Size:
        return self.width, self.height

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows, then columns: ``picture[box.slices]`` is the part inside the box."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)


@dataclass(frozen=True, slots=True)
class Detection:
    """One object a detector found.

    ``polygons`` is the outline to repaint (its parts are filled and joined); empty means the box
    itself. ``score`` is 0..1. ``box`` lies inside the picture.
    """

    label: str
    score: float
    box: Box
    polygons: tuple[Polygon, ...] = ()
    keypoints: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded picture: upright, 8 bit, with what travels beside the colours."""

    rgb: RGB
    alpha: Gray | None = None
    icc_profile: bytes | None = None

    @property
    def size(self) -> Size:
        height, width = self.rgb.shape[:2]
        return width, height


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """Where to repaint one picture, kept as the crop that is not zero: 64 small objects in a
    picture of 50 megapixels cost what they cover, not 64 pictures.

    ``alpha`` is uint8 of ``box``'s height and width, 0 outside it; ``size`` is the picture's.
    The empty mask has an empty box.
    """

    alpha: Gray
    box: PixelBox
    size: Size

    @property
    def empty(self) -> bool:
        return self.alpha.size == 0


@dataclass(frozen=True, slots=True)
class Region:
    """What the model is given to repaint one object.

    ``context`` is the part of the picture, ``size`` the model's size it is scaled to. ``content``
    is where in that size the scaled context lies: all of it, unless no size fits the picture.
    """

    context: PixelBox
    size: Size
    content: PixelBox


SIZE = r"[1-9]\d{0,4}x[1-9]\d{0,4}"
GEOMETRY = rf"^({SIZE})(?:\+(\d{{1,5}})\+(\d{{1,5}}))?$"
"""A size, and what is left out on the left and the top."""


def parse_size(text: str) -> Size:
    """``"640x1536"`` is 640 wide and 1536 high; ValueError for anything else."""
    if not re.fullmatch(SIZE, text):
        raise ValueError(f"{text!r} is not a size like '512x768' (width x height)")
    width, height = text.split("x")
    return int(width), int(height)


@dataclass(frozen=True, slots=True)
class SizeConditioning:
    """What SDXL is told of a picture's past (Podell et al. 2023, section 2.2).

    ``original`` is the width and height that it had before it was scaled, ``crop`` how many pixels
    were cropped on its left and top.
    """

    original: Size
    crop: tuple[int, int] = (0, 0)

    @classmethod
    def parse(cls, text: str) -> Self:
        """``"512x768"`` or ``"512x768+0+128"``; ValueError for anything else."""
        match = re.match(GEOMETRY, text)
        if not match:
            raise ValueError(f"{text!r} is not a size with or without a crop, like '512x768+0+128'")
        size, left, top = match.groups("0")
        return cls(parse_size(size), (int(left), int(top)))
