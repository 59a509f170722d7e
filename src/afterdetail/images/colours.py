"""Any image of Pillow's to 8-bit RGB, upright, with the alpha and profile that belong to it."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from afterdetail.errors import InvalidInput
from afterdetail.images.files import DAMAGED, invalid
from afterdetail.types import Picture

_ORIENTATION = 0x0112
_UPRIGHT: dict[int, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
"""What each EXIF orientation does to the stored rows and columns to show them upright."""


def to_picture(image: Image.Image) -> Picture:
    """A loaded image as a picture.

    16-bit grey is scaled. A profile that describes RGB is kept; one of CMYK or grey would not fit
    the result: the colours are converted to sRGB by it.

    Raises:
        InvalidInput: ``image_type`` for a mode without a known way to RGB.
    """
    upright = _UPRIGHT.get(_orientation(image), _UPRIGHT[1])
    profile: bytes = image.info.get("icc_profile") or b""
    image = _eight_bit(image)
    alpha = None
    if image.has_transparency_data:
        with_alpha = _converted(image, "RGBA")
        alpha = np.ascontiguousarray(upright(np.asarray(with_alpha.getchannel("A"))))
        image = image if image.mode == "LA" else with_alpha
    is_rgb = profile[16:20] == b"RGB "
    rgb = np.asarray(_converted(image if is_rgb else _managed(image, profile), "RGB"))
    return Picture(np.ascontiguousarray(upright(rgb)), alpha, profile if is_rgb else None)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except DAMAGED:
        return 1  # broken EXIF is no reason to refuse a picture


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == mode:
        return image
    try:
        return image.convert(mode)
    except ValueError:
        raise _unknown(image.mode) from None


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bit, its transparent value made alpha; other images as they are."""
    if image.mode == "F":
        raise _unknown("F")  # which of its values is white?
    if not image.mode.startswith("I"):
        return image
    deep = np.asarray(image).clip(0, 65535).astype(np.uint32)
    gray = Image.fromarray(((deep + 128) // 257).astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is not None:
        gray.putalpha(Image.fromarray(np.where(deep == transparent, 0, 255).astype(np.uint8)))
    return gray


def _managed(image: Image.Image, profile: bytes) -> Image.Image:
    """The image in sRGB by its CMYK or grey profile; as it is if the profile does not fit it."""
    if image.mode == "LA":
        image = image.convert("L")
    if (profile[16:20], image.mode) not in {(b"CMYK", "CMYK"), (b"GRAY", "L")}:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        managed = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image  # a broken profile says nothing about the colours
    return managed or image


def _unknown(mode: str) -> InvalidInput:
    return invalid("image_type", f"no way from PIL's mode {mode} to RGB; convert it before")
