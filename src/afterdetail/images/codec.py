"""Pictures from files and from what library callers have in hand, and back."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from afterdetail.images.colours import to_picture
from afterdetail.images.files import (
    DAMAGED,
    MAX_PIXELS,
    PNG_SIGNATURE,
    check_dimensions,
    corrupt,
    invalid,
    open_image,
)
from afterdetail.types import Picture

Encoding = Literal["jpeg", "png"]

_RGB, _RGBA, _UP = 2, 6, 2  # colour types and a filter: PNG 3rd edition, 11.2.1 and 9.2
_JPEG_SIDE = 65_500
"""Pixels of the longest side libjpeg writes."""


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """The picture in a PNG, JPEG or WebP file: upright, 8 bit, RGB.

    16 bits are scaled to 8, grey and palettes expanded, CMYK converted; alpha is kept. The ICC
    profile is kept where it describes RGB; colours under a CMYK or grey profile, which would not
    fit the result, are converted to sRGB by it.

    Raises:
        InvalidInput: ``image_empty``, ``image_unsupported``, ``image_corrupt``,
            ``image_too_large``, ``image_dimensions`` or ``image_animated``.
    """
    image = open_image(data, max_pixels)
    try:
        image.load()
    except DAMAGED:
        raise corrupt() from None
    return to_picture(image)


def encode(picture: Picture, encoding: Encoding) -> bytes:
    """A picture as a file, with its ICC profile and, in PNG, its alpha.

    JPEG: quality 95, colours at full resolution (4:4:4), without alpha.

    Raises:
        InvalidInput: ``image_dimensions`` for a picture longer than a JPEG can be.
    """
    return _encode_png(picture) if encoding == "png" else _encode_jpeg(picture)


def from_any(image: Image.Image | npt.NDArray[np.uint8] | str | Path) -> Picture:
    """A picture from what callers of the library have in hand.

    Args:
        image: a PIL image (of several frames, the current one); an array, uint8 ``(H, W)`` grey,
            ``(H, W, 3)`` RGB or ``(H, W, 4)`` RGBA; or the path of a file.

    Raises:
        InvalidInput: as :func:`decode`; ``image_type`` for anything else; ``image_missing`` for a
            path that cannot be read.
    """
    if isinstance(image, Image.Image):
        check_dimensions(image.size)
        return to_picture(image)
    if isinstance(image, np.ndarray):
        return _from_array(image)
    return decode(_read(image))


def to_pil(picture: Picture) -> Image.Image:
    """The picture as a PIL image, RGB or, with alpha, RGBA; its ICC profile in ``info``."""
    image = Image.fromarray(picture.rgb)
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    if picture.icc_profile:
        image.info["icc_profile"] = picture.icc_profile
    return image


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except TypeError:
        kind = type(path).__name__
        message = f"a PIL image, an array or a path is needed, not {kind}"
        raise invalid("image_type", message) from None
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise invalid("image_missing", message, public="the picture cannot be read") from None


def _from_array(array: npt.NDArray[Any]) -> Picture:
    channels = array.shape[2] if array.ndim == 3 else 0
    if array.dtype != np.uint8 or array.ndim not in {2, 3} or channels not in {0, 3, 4}:
        raise invalid(
            "image_type",
            "an array needs dtype uint8 and shape (H, W), (H, W, 3) or (H, W, 4), "
            f"not {array.dtype} {array.shape}",
        )
    check_dimensions((array.shape[1], array.shape[0]))
    if array.ndim == 2:
        return Picture(np.repeat(array[..., np.newaxis], 3, axis=2))
    alpha = np.ascontiguousarray(array[..., 3]) if channels == 4 else None
    return Picture(np.ascontiguousarray(array[..., :3]), alpha)


def _encode_png(picture: Picture) -> bytes:
    """Each row as its difference to the row above, packed by run lengths and Huffman codes.

    For a photograph half the time of Pillow's fastest level at its size, and OpenCV's time at 8 %
    less, which could not write the profile (benchmarks/results/picture_path.md).
    """
    pixels, colour = picture.rgb, _RGB
    if picture.alpha is not None:
        pixels, colour = np.dstack([picture.rgb, picture.alpha]), _RGBA
    packer = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    packed = packer.compress(_filtered(pixels).data) + packer.flush()
    chunks = [png_chunk(b"IHDR", struct.pack(">IIBBBBB", *picture.size, 8, colour, 0, 0, 0))]
    if picture.icc_profile:
        chunks.append(png_chunk(b"iCCP", b"ICC\0\0" + zlib.compress(picture.icc_profile)))
    return b"".join([PNG_SIGNATURE, *chunks, png_chunk(b"IDAT", packed), png_chunk(b"IEND", b"")])


def _filtered(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The rows under PNG's filter "up": its number, then the difference to the row above."""
    rows = pixels.reshape(len(pixels), -1)
    filtered = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    return filtered


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a PNG (PNG 3rd edition, 5.3)."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _encode_jpeg(picture: Picture) -> bytes:
    if max(picture.size) > _JPEG_SIDE:
        raise invalid("image_dimensions", f"a JPEG side ends at {_JPEG_SIDE} pixels; ask for png")
    out = io.BytesIO()
    Image.fromarray(picture.rgb).save(
        out, "JPEG", quality=95, subsampling="4:4:4", icc_profile=picture.icc_profile
    )
    return out.getvalue()
