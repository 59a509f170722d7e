"""Regions of interest as MediaPipe cuts them out of a picture.

Follows ``ImageToTensorCalculator`` (``image_to_tensor_utils.cc`` and the OpenCV converter) of
MediaPipe 0.10.21: a rotated rectangle is warped onto a square by bilinear interpolation, without
smoothing. The reference has OpenCV 3.4 inside, whose ``warpPerspective`` rounds positions to 1/32
pixel. OpenCV 5 does not; ``remap`` with maps of our own gives the same bits on all of them. Bits
count: a score near a threshold decides whether there is a face.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from afterdetail.detectors.litert import Tensor
from afterdetail.errors import InvalidInput
from afterdetail.types import RGB, Size

Points: TypeAlias = npt.NDArray[np.float64]
"""Points or rows of coordinates, ``(..., 2)``."""

Positions: TypeAlias = npt.NDArray[np.int32]
Maps: TypeAlias = tuple[npt.NDArray[np.int16], npt.NDArray[np.uint16]]

SUBPIXELS = 1 << 5
"""Steps between two pixels that OpenCV's fixed-point interpolation tells apart."""

FINE = 1 << 15
"""Steps between two pixels before they are cut to those; int32 then reaches 65535 pixels."""


MAX_SIDE = 32766
"""Positions in OpenCV's maps are 16 bit."""

WARP_BLOCK = 64
"""Columns that ``warpPerspective`` computes from one starting value."""

SAME_REGION = 0.5
"""Regions that overlap more (intersection over union) show the same object."""


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


def distinct(regions: list[Roi]) -> list[int]:
    """Which regions to keep, as indices: of two that are nearly the same, the later.

    Regions come most certain first, so this keeps the less certain one; so does the reference
    (``AssociationNormRectCalculator``).
    """
    kept: list[int] = []
    for index, region in enumerate(regions):
        kept = [other for other in kept if region.overlap(regions[other]) <= SAME_REGION]
        kept.append(index)
    return kept


def crop_letterbox(rgb: RGB, side: int, low: float) -> Tensor:
    """The whole picture on a square, centred, black outside it; its values mapped to ``low``..1.

    Returns float32 ``(side, side, 3)``.

    Raises:
        InvalidInput: the picture is longer than ``MAX_SIDE``.
    """
    height, width = rgb.shape[:2]
    if max(width, height) > MAX_SIDE:
        message = f"a picture of {width}x{height} pixels; detectors take up to {MAX_SIDE} a side"
        raise InvalidInput("image_dimensions", message)
    return _sampled(rgb, letterbox_maps((width, height), side), cv2.BORDER_CONSTANT, low)


def crop_turned(rgb: RGB, roi: Roi, side: int) -> Tensor:
    """A region on a square, the picture's edge repeated outside it; its values mapped to 0..1.

    Returns float32 ``(side, side, 3)``.
    """
    origin, right, down = FINE * roi.to_picture(np.array([[0, 0], [1, 0], [0, 1]]))
    steps = np.arange(side) / side
    half = FINE / SUBPIXELS / 2
    across = np.rint(np.outer(right - origin, steps) + (origin[:, None] + half)).astype(np.int32)
    along = np.rint(np.outer(down - origin, steps)).astype(np.int32)
    x, y = across[:, None, :] + along[:, :, None]
    return _sampled(rgb, _maps(x, y), cv2.BORDER_REPLICATE, 0.0)


@lru_cache(maxsize=16)
def letterbox_maps(size: Size, side: int) -> Maps:
    """Where in a picture of ``size`` each pixel of its letterbox lies.

    Halves between two positions are common here, and rounding errors decide them. So this solves
    for the projection and adds in the order that ``warpPerspective`` does, block by block, although
    the result is known to be a plain scale and shift.
    """
    corners = np.array([[0, side], [0, 0], [side, 0], [side, side]], dtype=np.float32)
    placed = Roi.letterbox(size).to_picture(corners / side).astype(np.float32)
    matrix = cv2.invert(cv2.getPerspectiveTransform(placed, corners))[1]
    pixel = np.arange(side, dtype=np.float64)
    within = pixel % WARP_BLOCK
    x, y, w = (a * (pixel - within) + b * pixel[:, None] + c + a * within for a, b, c in matrix)
    x32, y32 = (np.rint(value * (SUBPIXELS / w)).astype(np.int32) for value in (x, y))
    return _maps(x32 * (FINE // SUBPIXELS), y32 * (FINE // SUBPIXELS))


def _maps(x: Positions, y: Positions) -> Maps:
    """Positions, ``FINE`` to a pixel, cut to ``SUBPIXELS`` as OpenCV's pair of maps has them."""
    whole = np.empty((*x.shape, 2), dtype=np.int16)
    np.right_shift(x, 15, out=whole[..., 0], casting="unsafe")
    np.right_shift(y, 15, out=whole[..., 1], casting="unsafe")
    fraction = (y >> 5 & 0x3E0) | (x >> 10 & 0x1F)
    return whole, fraction.astype(np.uint16)


def _sampled(rgb: RGB, maps: Maps, border: int, low: float) -> Tensor:
    whole, fraction = maps
    pixels = cv2.remap(rgb, whole, fraction, cv2.INTER_LINEAR, borderMode=border)
    tensor: Tensor = pixels * np.float32((1 - low) / 255)
    tensor += np.float32(low)
    return tensor
