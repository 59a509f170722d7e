"""Putting a repainted region back."""

from __future__ import annotations

import cv2
import numpy as np

from afterdetail.types import RGB, Mask, PixelBox, Region

_BAND = 64
"""Rows blended at a time: the 16-bit products stay in the processor's cache."""

_COARSE = 8
"""Blurs to a mask's shorter side: what is larger is colour and light, what is smaller a feature."""

_FINEST = 3.0
"""Pixels: a wide blur is taken in a picture that is shrunk until its sigma is this."""


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


def match_color(patch: RGB, canvas: RGB, mask: Mask, region: Region) -> RGB:
    """``patch`` with its low frequencies taken from the picture that it is to cover.

    Removes what a model adds to colour and light: a shift through its autoencoder, a face that is
    brighter than its neck. What the prompt asks for in colour is removed with it.

    Args:
        patch: uint8 ``(h, w, 3)`` at the size of the region's context.
        canvas: uint8 ``(H, W, 3)``, not changed.
        mask: its box says how large the repainted object is.
        region: where the patch belongs.
    """
    sigma = max(1.0, min(mask.box.size) / _COARSE)
    below = canvas[region.context.slices]
    moved = cv2.subtract(below, patch, dtype=cv2.CV_32F)
    shrunk = max(1.0, sigma / _FINEST)
    height, width = patch.shape[:2]
    small = (max(1, round(width / shrunk)), max(1, round(height / shrunk)))
    coarse = cv2.resize(moved, small, interpolation=cv2.INTER_AREA)
    coarse = cv2.GaussianBlur(coarse, (0, 0), sigma / shrunk, borderType=cv2.BORDER_REPLICATE)
    shift = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.clip(np.rint(patch + shift), 0, 255), np.uint8)
