"""Putting a repainted region back."""

from __future__ import annotations

import numpy as np

from afterdetail.types import RGB, Mask, PixelBox, Region

_BAND = 64
"""Rows blended at a time: the 16-bit products stay in the processor's cache."""


def composite(canvas: RGB, patch: RGB, mask: Mask, region: Region) -> None:
    """Blend ``patch`` into ``canvas``, in place, with the blurred mask as alpha.

    Each value is (patch * alpha + canvas * (255 - alpha)) / 255, rounded to the nearest: alpha 255
    gives the patch and alpha 0 leaves the pixel as it is, bit for bit.

    Args:
        canvas: uint8 ``(H, W, 3)``, the caller's own working copy of the picture.
        patch: uint8 ``(h, w, 3)`` at the size of the region's context.
        mask: the blurred mask; its box lies inside the context.
        region: where the patch belongs.
    """
    left, top = region.context.x0, region.context.y0
    x0, y0, x1, y1 = mask.box
    below = canvas[mask.box.slices]
    above = patch[PixelBox(x0 - left, y0 - top, x1 - left, y1 - top).slices]
    for row in range(0, mask.box.height, _BAND):
        band = slice(row, row + _BAND)
        alpha = mask.alpha[band, :, np.newaxis].astype(np.uint16)
        mixed = above[band] * alpha + below[band] * (255 - alpha)
        below[band] = (mixed + 127) // 255
