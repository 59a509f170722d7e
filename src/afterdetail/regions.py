"""Which part of the picture the model sees to repaint one object, and the way there and back."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from afterdetail.types import RGB, Gray, Mask, PixelBox, Region, Size


def plan(mask_box: PixelBox, picture: Size, padding: int, sizes: Sequence[Size]) -> Region:
    """The region of one object.

    The mask's box is padded by ``padding`` pixels on every side; at an edge of the picture it
    slides inward. Of the model's ``sizes``, the one nearest to it in aspect ratio whose grown box
    fits the picture is taken: the box grows to that ratio, to a pixel, and slides inside. If none
    fits, the grown box is cut to the picture, and what it lacks is filled on extraction.

    Args:
        mask_box: box of the blurred mask's pixels > 0, not empty, inside the picture.
        picture: width and height of the picture.
        padding: pixels, >= 0.
        sizes: width and height of what the model repaints, at least one.
    """
    padded = _padded(mask_box, picture, padding)
    nearest_first = sorted(sizes, key=lambda size: abs(_log_ratio(size) - _log_ratio(padded.size)))
    for size in nearest_first:
        grown = _grown(padded.size, size)
        if grown[0] <= picture[0] and grown[1] <= picture[1]:
            return Region(_around(padded, grown, picture), size, PixelBox(0, 0, *size))
    size = nearest_first[0]
    context = _around(padded, _grown(padded.size, size), picture)
    return Region(context, size, _content(context.size, size))


def extract(rgb: RGB, region: Region) -> RGB:
    """The region of a picture at the model's size, uint8 ``(h, w, 3)``.

    What the picture lacks is filled by repeating its edge.
    """
    scaled = _resized(rgb[region.context.slices], region.content.size)
    (width, height), content = region.size, region.content
    if content.size == region.size:
        return scaled
    rows = (content.y0, height - content.y1)
    columns = (content.x0, width - content.x1)
    return np.pad(scaled, (rows, columns, (0, 0)), mode="edge")


def extract_mask(mask: Mask, region: Region) -> Gray:
    """The region of a mask at the model's size, uint8 ``(h, w)``, each pixel its nearest one.

    The filled part repeats the mask's edge too: beside an object at the edge it is repainted with
    it, so that no seam runs along the edge of the picture.
    """
    width, height = region.size
    content, context = region.content, region.context
    x = _nearest(width, (content.x0, content.x1), (context.x0, context.x1))
    y = _nearest(height, (content.y0, content.y1), (context.y0, context.y1))
    columns = np.flatnonzero((x >= mask.box.x0) & (x < mask.box.x1))
    rows = np.flatnonzero((y >= mask.box.y0) & (y < mask.box.y1))
    gray = np.zeros((height, width), np.uint8)
    if rows.size and columns.size:
        nearest = mask.alpha[y[rows] - mask.box.y0][:, x[columns] - mask.box.x0]
        gray[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = nearest
    return gray


def restore(patch: RGB, region: Region) -> RGB:
    """A repainted region, uint8 ``(h, w, 3)`` at the model's size, back at its context's size."""
    return _resized(patch[region.content.slices], region.context.size)


def _log_ratio(size: Size) -> float:
    return math.log(size[0] / size[1])


def _padded(box: PixelBox, picture: Size, padding: int) -> PixelBox:
    x0, x1 = _slid(box.x0 - padding, box.width + 2 * padding, picture[0])
    y0, y1 = _slid(box.y0 - padding, box.height + 2 * padding, picture[1])
    return PixelBox(x0, y0, x1, y1)


def _slid(start: int, length: int, limit: int) -> tuple[int, int]:
    """Start and end of a span moved inside ``0..limit``; cut only if longer than that."""
    length = min(length, limit)
    start = min(max(start, 0), limit - length)
    return start, start + length


def _grown(padded: Size, size: Size) -> Size:
    """The smallest size with the ratio of ``size``, to a pixel, that holds ``padded``."""
    (width, height), (to_width, to_height) = padded, size
    if width * to_height >= height * to_width:
        return width, max(height, round(width * to_height / to_width))
    return max(width, round(height * to_width / to_height)), height


def _around(padded: PixelBox, grown: Size, picture: Size) -> PixelBox:
    """A box of size ``grown`` with ``padded`` in its middle, slid inside the picture."""
    x0, x1 = _slid(padded.x0 - (grown[0] - padded.width) // 2, grown[0], picture[0])
    y0, y1 = _slid(padded.y0 - (grown[1] - padded.height) // 2, grown[1], picture[1])
    return PixelBox(x0, y0, x1, y1)


def _content(context: Size, size: Size) -> PixelBox:
    """Where the context lies, in the middle of ``size``, when it is scaled to fit."""
    scale = min(size[0] / context[0], size[1] / context[1])
    width, height = (max(1, round(length * scale)) for length in context)
    x0, y0 = (size[0] - width) // 2, (size[1] - height) // 2
    return PixelBox(x0, y0, x0 + width, y0 + height)


def _resized(rgb: RGB, size: Size) -> RGB:
    """Resampled without aliasing.

    Pillow's Lanczos keeps a shrunk face a tenth sharper than OpenCV's area filter does. To enlarge
    one, OpenCV's bicubic looks the same as Lanczos and takes a tenth of its time.
    """
    if (rgb.shape[1], rgb.shape[0]) == size:
        return rgb.copy()
    if size[0] >= rgb.shape[1]:
        return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    image = Image.fromarray(np.ascontiguousarray(rgb))
    # Shrinking a lot, Pillow first averages whole pixels: the same to the eye, and faster.
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))


def _nearest(
    length: int, content: tuple[int, int], context: tuple[int, int]
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """For each of ``length`` pixels the picture's pixel nearest to its centre, edges repeated."""
    place = np.arange(length).clip(content[0], content[1] - 1) - content[0]
    # (place + 1/2) * scale, in integers: a half must not fall either way by rounding.
    return context[0] + (2 * place + 1) * (context[1] - context[0]) // (
        2 * (content[1] - content[0])
    )
