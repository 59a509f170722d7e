"""The picture sizes the hosted endpoint took, per base model (its API reference, `init_image`)."""

from __future__ import annotations

from afterdetail.options import Base
from afterdetail.types import Size


def _sizes(text: str) -> tuple[Size, ...]:
    pairs = (item.split("x") for item in text.split())
    return tuple((int(width), int(height)) for width, height in pairs)


RESOLUTIONS: dict[Base, tuple[Size, ...]] = {
    Base.SDXL: _sizes(
        "640x1536 768x1344 832x1216 896x1152 1024x1024 1152x896 1216x832 1344x768 1536x640 "
        "1664x2432 2048x2048 2432x1664"
    ),
    Base.SD15: _sizes(
        "384x704 448x576 512x512 512x704 512x768 512x832 576x448 576x768 576x1024 640x512 640x640 "
        "640x768 704x384 704x1216 768x512 768x576 768x1024 832x512 896x896 1024x576 1024x768 "
        "1024x1024 1024x1536 1216x704 1536x1024"
    ),
}
"""Width and height, in the order of the reference (which names 576x768 of sd15 twice)."""

NATIVE_AREA: dict[Base, int] = {Base.SDXL: 1024 * 1024, Base.SD15: 512 * 512}
"""Pixels of the pictures each base model was trained on."""


def listed(base: Base) -> str:
    """The sizes of ``base`` as people write them: ``512x512, 512x704``."""
    return ", ".join(f"{width}x{height}" for width, height in RESOLUTIONS[base])
