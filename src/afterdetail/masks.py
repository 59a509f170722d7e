"""From what was detected to the mask that is repainted: draw, move, dilate or erode, join, blur.

Every step works on the crop around the object and gives, bit for bit, what the same step on the
whole picture would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageFilter

from afterdetail.types import Box, Detection, Gray, Mask, PixelBox, Point, Polygon, Size

_NOWHERE = PixelBox(0, 0, 0, 0)
_WIDEST = 1_000_000
"""Sigma beyond which a gaussian is flat over any picture; PIL refuses the largest integers."""


def draw(detection: Detection, size: Size) -> Mask:
    """The detection's outline filled with 255: its polygons joined, or its box if it has none.

    Every pixel the outline touches belongs to it; what lies outside a picture of ``size`` does not.
    """
    if not detection.polygons:
        box = _touched(detection.box, size)
        return trimmed(np.full((box.height, box.width), 255, np.uint8), box, size)
    bounds = _bounds([point for part in detection.polygons for point in part])
    inside = _touched(bounds, size)
    if inside.width == 0:
        return _empty(size)
    # cv2 bends edges that leave its canvas, so the outline is filled whole and then cut.
    canvas = _around(bounds, size)
    alpha = np.zeros((canvas.height, canvas.width), np.uint8)
    # One by one: together, cv2 would leave out what two polygons share.
    for polygon in detection.polygons:
        cv2.fillPoly(alpha, [_corners(polygon, canvas)], 255)
    return trimmed(alpha[_shifted(inside, canvas).slices], inside, size)


def union(masks: Sequence[Mask]) -> Mask:
    """All masks of one picture in one, the larger value where they overlap. At least one mask."""
    size = masks[0].size
    boxes = [mask.box for mask in masks if not mask.empty]
    if not boxes:
        return _empty(size)
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    box = PixelBox(min(x0), min(y0), max(x1), max(y1))
    alpha = np.zeros((box.height, box.width), np.uint8)
    for mask in masks:
        part = alpha[_shifted(mask.box, box).slices]
        np.maximum(part, mask.alpha, out=part)
    return Mask(alpha, box, size)


def dilate(mask: Mask, kernel: int) -> Mask:
    """The mask grown by half of ``kernel`` pixels, rounded down, on every side alike (a square)."""
    reach = min(kernel // 2, max(mask.size))
    if mask.empty or reach == 0:
        return mask
    alpha, box = _with_margin(mask, reach)
    return trimmed(_grown(alpha, reach), box, mask.size)


def erode(mask: Mask, kernel: int) -> Mask:
    """The mask shrunk by half of ``kernel`` pixels, rounded down, on every side alike.

    At an edge of the picture nothing is known of what lies beyond: there it does not shrink.
    """
    reach = min(kernel // 2, max(mask.size))
    if mask.empty or reach == 0:
        return mask
    alpha, box = _with_margin(mask, reach)
    return trimmed(255 - _grown(255 - alpha, reach), box, mask.size)


def move(mask: Mask, x: int, y: int) -> Mask:
    """The mask ``x`` pixels further right and ``y`` down; what leaves the picture is lost."""
    if mask.empty or x == y == 0:
        return mask
    width, height = mask.size
    left, top = mask.box.x0 + x, mask.box.y0 + y
    inside = PixelBox(
        max(left, 0), max(top, 0), min(mask.box.x1 + x, width), min(mask.box.y1 + y, height)
    )
    if inside.width <= 0 or inside.height <= 0:
        return _empty(mask.size)
    here = _shifted(inside, PixelBox(left, top, left, top))
    return trimmed(mask.alpha[here.slices], inside, mask.size)


def invert(mask: Mask) -> Mask:
    """Everything else."""
    return from_array(255 - to_array(mask))


def blur(mask: Mask, sigma: int) -> Mask:
    """The mask under a gaussian of ``sigma`` pixels, as PIL's ``GaussianBlur(sigma)`` blurs it.

    A small mask under a wide gaussian rounds to nothing: the result may be empty.
    """
    if mask.empty or sigma == 0:
        return mask
    sigma = min(sigma, _WIDEST)
    # PIL's gaussian is three box blurs, none of which reaches further than sigma + 1.
    alpha, box = _with_margin(mask, 3 * (sigma + 1))
    blurred = Image.fromarray(alpha).filter(ImageFilter.GaussianBlur(sigma))
    return trimmed(np.asarray(blurred), box, mask.size)


def trimmed(alpha: Gray, box: PixelBox, size: Size) -> Mask:
    """The mask ``alpha``, which lies at ``box`` in a picture of ``size``, without its zero rim."""
    rows = np.flatnonzero(alpha.any(axis=1))
    columns = np.flatnonzero(alpha.any(axis=0))
    if not rows.size:
        return _empty(size)
    inner = PixelBox(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    x0, y0 = box.x0, box.y0
    moved = PixelBox(inner.x0 + x0, inner.y0 + y0, inner.x1 + x0, inner.y1 + y0)
    return Mask(np.ascontiguousarray(alpha[inner.slices]), moved, size)


def from_array(gray: Gray) -> Mask:
    """A mask the size of its picture, uint8 ``(H, W)``, 255 = repaint."""
    height, width = gray.shape
    return trimmed(gray, PixelBox(0, 0, width, height), (width, height))


def to_array(mask: Mask) -> Gray:
    """The mask at the size of its picture, uint8 ``(H, W)``."""
    width, height = mask.size
    gray = np.zeros((height, width), np.uint8)
    gray[mask.box.slices] = mask.alpha
    return gray


def _grown(alpha: Gray, reach: int) -> Gray:
    """Each pixel the largest within ``reach`` pixels; beyond an edge of the array there is none."""
    grown = 0
    while grown < reach:
        # Three windows of the reach so far, side by side, are one of twice that reach: a kernel
        # of any size in few passes. A longer step would miss what a window beyond an edge sees.
        step = min(grown + 1, reach - grown)
        points = np.zeros((2 * step + 1, 1), np.uint8)
        points[::step] = 1
        alpha = np.asarray(cv2.dilate(cv2.dilate(alpha, points), points.T), np.uint8)
        grown += step
    return alpha


def _empty(size: Size) -> Mask:
    return Mask(np.zeros((0, 0), np.uint8), _NOWHERE, size)


def _bounds(points: Sequence[Point]) -> Box:
    """The smallest box that holds every pixel a point lies in."""
    xs, ys = zip(*points, strict=True)
    return Box(min(xs), min(ys), math.floor(max(xs)) + 1, math.floor(max(ys)) + 1)


def _touched(box: Box, size: Size) -> PixelBox:
    """The pixels of a picture of ``size`` that the box touches; empty if there are none."""
    inside = box.clipped(size)
    if inside.width == 0:
        return _NOWHERE
    return PixelBox(
        math.floor(inside.x0), math.floor(inside.y0), math.ceil(inside.x1), math.ceil(inside.y1)
    )


def _around(box: Box, size: Size) -> PixelBox:
    """The whole pixels of a box, as far as one picture's size beyond the picture."""
    width, height = size
    return PixelBox(
        math.floor(max(box.x0, -width)),
        math.floor(max(box.y0, -height)),
        math.ceil(min(box.x1, 2 * width)),
        math.ceil(min(box.y1, 2 * height)),
    )


def _corners(polygon: Polygon, box: PixelBox) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    """The pixels a polygon's points lie in, relative to the box."""
    return (np.floor(polygon) - (box.x0, box.y0)).astype(np.int32)


def _shifted(box: PixelBox, origin: PixelBox) -> PixelBox:
    return PixelBox(box.x0 - origin.x0, box.y0 - origin.y0, box.x1 - origin.x0, box.y1 - origin.y0)


def _with_margin(mask: Mask, margin: int) -> tuple[Gray, PixelBox]:
    """The mask with ``margin`` pixels more on every side, as far as the picture reaches."""
    width, height = mask.size
    x0, y0, x1, y1 = mask.box
    box = PixelBox(
        max(x0 - margin, 0), max(y0 - margin, 0), min(x1 + margin, width), min(y1 + margin, height)
    )
    alpha = np.zeros((box.height, box.width), np.uint8)
    alpha[_shifted(mask.box, box).slices] = mask.alpha
    return alpha, box
