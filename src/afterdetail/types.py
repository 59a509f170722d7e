"""The nouns of afterdetail, one frozen record each.

Coordinates are pixels, x to the right, y down. Pictures are uint8 ``(H, W, 3)`` RGB, masks uint8
``(H, W)`` where 255 means repaint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

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
