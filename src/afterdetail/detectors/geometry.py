"""Regions of interest as MediaPipe cuts them out of a picture.

Follows ``ImageToTensorCalculator`` (``image_to_tensor_utils.cc`` and the OpenCV converter) of
MediaPipe 0.10.21: a rotated rectangle is warped onto a square by bilinear interpolation, without
smoothing. Bits count here: a network's scores near a threshold decide whether there is a face.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np
import numpy.typing as npt

from afterdetail.detectors.litert import Tensor
from afterdetail.types import RGB, Size

Points = npt.NDArray[np.float64]
"""Points or rows of coordinates, ``(..., 2)``."""

SUBPIXELS = 32
"""Steps between two pixels that OpenCV's fixed-point interpolation tells apart."""


class Border(IntEnum):
    """What lies outside the picture."""

    BLACK = cv2.BORDER_CONSTANT
    REPLICATE = cv2.BORDER_REPLICATE


@dataclass(frozen=True, slots=True)
class Roi:
    """A rotated rectangle: centre and sides in pixels, clockwise rotation in radians."""

    x: float
    y: float
    width: float
    height: float
    rotation: float = 0.0

    @classmethod
    def letterbox(cls, size: Size) -> Roi:
        """The square around a whole picture, its centre the picture's."""
        width, height = size
        side = max(width, height)
        return cls(width / 2, height / 2, side, side)

    def to_picture(self, points: Points) -> Points:
        """Points relative to this region (0..1, ``(..., 2)``) as pixels of the picture."""
        along = (points - 0.5) * (self.width, self.height)
        cos, sin = math.cos(self.rotation), math.sin(self.rotation)
        placed: Points = along @ np.array([[cos, sin], [-sin, cos]]) + (self.x, self.y)
        return placed

    def overlap(self, other: Roi) -> float:
        """Intersection over union of the two regions as if neither were rotated."""
        width = min(self.x + self.width / 2, other.x + other.width / 2)
        width -= max(self.x - self.width / 2, other.x - other.width / 2)
        height = min(self.y + self.height / 2, other.y + other.height / 2)
        height -= max(self.y - self.height / 2, other.y - other.height / 2)
        shared = max(0.0, width) * max(0.0, height)
        union = self.width * self.height + other.width * other.height - shared
        return shared / union if union > 0 else 0.0


def turned_square(
    box: Points, start: Points, end: Points, *, target: float, scale: float, shift_y: float = 0.0
) -> Roi:
    """The square region around ``box`` in which the line start-end points to ``target``.

    ``box`` is xyxy, ``start`` and ``end`` are points, all in pixels; ``target`` is an angle in
    radians, counter-clockwise from the x axis. The longer side is scaled by ``scale``, the centre
    moved by ``shift_y`` box heights along the turned y axis. (``DetectionsToRectsCalculator`` and
    ``RectTransformationCalculator`` with ``square_long``.)
    """
    x0, y0, x1, y1 = box
    across, up = end[0] - start[0], start[1] - end[1]
    angle = target - math.atan2(up, across)
    angle -= 2 * math.pi * math.floor((angle + math.pi) / (2 * math.pi))
    shift = (y1 - y0) * shift_y
    side = max(x1 - x0, y1 - y0) * scale
    x = (x0 + x1) / 2 - shift * math.sin(angle)
    y = (y0 + y1) / 2 + shift * math.cos(angle)
    return Roi(x, y, side, side, angle)


def crop(rgb: RGB, roi: Roi, side: int, border: Border, low: float) -> Tensor:
    """Warp a region onto a square of ``side`` pixels, its values mapped to ``low``..1.

    Returns float32 ``(side, side, 3)``.
    """
    whole, fraction = sampling_maps(roi, side)
    warped = cv2.remap(rgb, whole, fraction, cv2.INTER_LINEAR, borderMode=int(border))
    return warped * np.float32((1 - low) / 255) + np.float32(low)


def sampling_maps(roi: Roi, side: int) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint16]]:
    """Where each pixel of the square lies in the picture, as OpenCV's fixed-point remap maps.

    This is ``warpPerspective`` of OpenCV 3.4, which the reference has inside: positions rounded to
    1/32 pixel (version 5 does not round). Halves between two of those are common in letterboxes,
    and the rounding errors of solving for the matrix decide them. So it is solved for, although
    the region is known to be but turned and scaled.
    """
    corners = np.array([[0, side], [0, 0], [side, 0], [side, side]], dtype=np.float32)
    placed = roi.to_picture(corners / side).astype(np.float32)
    (a, b, c), (d, e, f), (g, h, i) = cv2.invert(cv2.getPerspectiveTransform(placed, corners))[1]
    across = np.arange(side, dtype=np.float64)
    down = across[:, None]
    scale = SUBPIXELS / (g * across + (h * down + i))
    x = np.rint((a * across + (b * down + c)) * scale).astype(np.int32)
    y = np.rint((d * across + (e * down + f)) * scale).astype(np.int32)
    whole = np.stack([x >> 5, y >> 5], axis=-1).astype(np.int16)
    return whole, ((y & 31) * SUBPIXELS + (x & 31)).astype(np.uint16)
