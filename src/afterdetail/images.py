"""Bytes to pictures and back: PNG, JPEG and WebP in, PNG and JPEG out.

Nothing is decoded before its first bytes, its header and, in a PNG, its chunks are found to be in
order; no other decoder than the three is ever opened.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from afterdetail.errors import InvalidInput
from afterdetail.types import RGB, Gray, Picture, Size

Encoding = Literal["jpeg", "png"]

MAX_PIXELS = 50_000_000
"""Pixels of the largest picture decoded, unless the caller says otherwise."""
MIN_SIDE = 16
"""Pixels of the shorter side: less is two latent pixels, in which no model can draw anything."""
MAX_ASPECT = 32
"""Longer side to shorter: beyond it a detector that scales the whole picture down sees a line."""
MAX_METADATA = 16_000_000
"""Bytes that the compressed text and colour profile of one PNG may unpack to."""
MAX_SCANS = 100
"""Passes of one progressive JPEG. Encoders write about ten; each of thousands, a few bytes long,
makes the decoder go over all pixels again."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_IHDR_END = 33
_JPEG_SIDE = 65_500
_NEEDED_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND"}
# What Pillow's three decoders are known to raise on damaged data (SyntaxError is Pillow's own use
# of it: not a file of this kind).
_DAMAGED = (OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, struct.error)

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
"""What each EXIF orientation does to stored rows and columns to show them upright."""


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """The picture in a PNG, JPEG or WebP file: upright, 8 bit, RGB.

    16 bits are scaled to 8, grey and palettes expanded, CMYK converted; alpha is kept. The ICC
    profile is kept where it describes RGB; colours under a CMYK or grey profile, which would not
    fit the result, are converted to sRGB by it.

    Raises:
        InvalidInput: ``image_empty``, ``image_unsupported``, ``image_corrupt``,
            ``image_too_large``, ``image_dimensions`` or ``image_animated``.
    """
    if not data:
        raise _invalid("image_empty", "the picture is empty; send a PNG, JPEG or WebP file")
    if data.startswith(_PNG):
        image = _open_png(data, max_pixels)
    elif data.startswith(_JPEG):
        image = _open_jpeg(data, max_pixels)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        image = _open_webp(data, max_pixels)
    else:
        raise _invalid(
            "image_unsupported", "the picture is none of PNG, JPEG, WebP; convert it to one"
        )
    try:
        image.load()
    except _DAMAGED:
        raise _corrupt() from None
    return _picture(image)


def encode(picture: Picture, encoding: Encoding) -> bytes:
    """A picture as a file, with its ICC profile and, in PNG, its alpha.

    JPEG: quality 95, colours at full resolution (4:4:4), without alpha.
    """
    return _encode_png(picture) if encoding == "png" else _encode_jpeg(picture)


def from_any(image: Image.Image | npt.NDArray[np.uint8] | str | Path) -> Picture:
    """A picture from what callers of the library have in hand.

    Args:
        image: a PIL image of any mode (of several frames, the current one); an array, uint8
            ``(H, W)`` grey, ``(H, W, 3)`` RGB or ``(H, W, 4)`` RGBA; or the path of a file.

    Raises:
        InvalidInput: as :func:`decode`; ``image_type`` for anything else; ``image_missing`` for a
            path that cannot be read.
    """
    if isinstance(image, Image.Image):
        _check_dimensions(image.size)
        try:
            return _picture(image)
        except ValueError:
            raise _invalid(
                "image_type", f"a PIL image of mode {image.mode} has no RGB; convert it first"
            ) from None
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, (str, Path)):
        return decode(_read(Path(image)))
    raise _invalid(
        "image_type", f"a PIL image, an array or a path is needed, not {type(image).__name__}"
    )


def to_pil(picture: Picture) -> Image.Image:
    """The picture as a PIL image, RGB or, with alpha, RGBA; its ICC profile in ``info``."""
    image = Image.fromarray(picture.rgb)
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    if picture.icc_profile:
        image.info["icc_profile"] = picture.icc_profile
    return image


def _invalid(code: str, message: str, public: str | None = None) -> InvalidInput:
    return InvalidInput(code, message, field="init_image", public=public)


def _corrupt() -> InvalidInput:
    return _invalid("image_corrupt", "the picture is damaged or cut short; send it again")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or "unreadable"
        raise _invalid(
            "image_missing", f"cannot read {path}: {reason}", "the picture cannot be read"
        ) from None


def _check_size(size: Size, max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise _invalid(
            "image_too_large",
            f"the picture has {width}x{height} = {width * height / 1e6:.1f} megapixels, allowed "
            f"are {max_pixels / 1e6:g}; scale it down",
        )
    _check_dimensions(size)


def _check_dimensions(size: Size) -> None:
    if min(size) < MIN_SIDE or max(size) > MAX_ASPECT * min(size):
        raise _invalid(
            "image_dimensions",
            f"the picture is {size[0]}x{size[1]} pixels; each side needs at least {MIN_SIDE}, "
            f"the longer at most {MAX_ASPECT} times the shorter",
        )


def _open_png(data: bytes, max_pixels: int) -> Image.Image:
    """A PNG opened from the chunks its pixels need: no text is ever unpacked."""
    if data[12:16] != b"IHDR" or len(data) < _IHDR_END:
        raise _corrupt()
    width, height = struct.unpack(">II", data[16:24])
    _check_size((width, height), max_pixels)
    needed, profile, room = [_PNG], None, MAX_METADATA
    for kind, chunk in _chunks(data):
        if kind == b"acTL":
            raise _invalid("image_animated", "the picture is an animated PNG; send one frame")
        if kind in _NEEDED_CHUNKS:
            needed.append(chunk)
        elif packed := _compressed(kind, chunk[8:-4]):
            unpacked = _unpack(packed, room)
            room -= len(unpacked)
            profile = unpacked if kind == b"iCCP" else profile
    image = _open(PngImagePlugin.PngImageFile, b"".join(needed))
    transparent = image.info.get("transparency")
    if data[24] == 16 and isinstance(transparent, tuple):  # Pillow scales the pixels, not the key
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    if profile:
        image.info["icc_profile"] = profile
    return image


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and bytes, length and checksum included, of each of a PNG's chunks up to the last."""
    place, kind = len(_PNG), b""
    while kind != b"IEND":
        length = int.from_bytes(data[place : place + 4], "big")
        chunk = data[place : place + 12 + length]
        if len(chunk) < 12 + length or zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            raise _corrupt()
        kind = chunk[4:8]
        yield kind, chunk
        place += len(chunk)


def _compressed(kind: bytes, body: bytes) -> bytes:
    """The zlib stream in a chunk of metadata, empty if it has none (PNG 3rd edition, 11.3)."""
    rest = body.partition(b"\0")[2]
    if kind in {b"iCCP", b"zTXt"}:
        return rest[1:]
    if kind == b"iTXt" and rest[:1] == b"\1":
        return rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    return b""


def _unpack(packed: bytes, room: int) -> bytes:
    try:
        unpacked = zlib.decompressobj().decompress(packed, room + 1)
    except zlib.error:
        return b""  # damaged metadata, which PNG readers pass over
    if len(unpacked) > room:
        raise _invalid(
            "image_too_large",
            f"the PNG's text and profile unpack to more than {MAX_METADATA // 1_000_000} MB; "
            "save it without metadata",
        )
    return unpacked


def _open_jpeg(data: bytes, max_pixels: int) -> Image.Image:
    # Inside compressed data 0xFF is always followed by 0: this finds nothing but starts of scans.
    if data.count(b"\xff\xda") > MAX_SCANS:
        raise _invalid(
            "image_too_large", f"the JPEG has over {MAX_SCANS} scans; save it as baseline"
        )
    image = _open(JpegImagePlugin.JpegImageFile, data)
    _check_size(image.size, max_pixels)
    return image


def _open_webp(data: bytes, max_pixels: int) -> Image.Image:
    """A WebP opened after its header is read here: Pillow allocates the canvas on opening."""
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        raise _corrupt()
    if kind == b"VP8X":
        if body[0] & 0x02:
            raise _invalid("image_animated", "the picture is an animated WebP; send one frame")
        width = int.from_bytes(body[4:7], "little") + 1
        height = int.from_bytes(body[7:10], "little") + 1
    elif kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width = int.from_bytes(body[6:8], "little") & 0x3FFF
        height = int.from_bytes(body[8:10], "little") & 0x3FFF
    _check_size((width, height), max_pixels)
    return _open(WebPImagePlugin.WebPImageFile, data)


def _open(plugin: Callable[[io.BytesIO], Image.Image], data: bytes) -> Image.Image:
    # The plugin itself, not Image.open: that would go on to other decoders.
    try:
        return plugin(io.BytesIO(data))
    except _DAMAGED:
        raise _corrupt() from None


def _picture(image: Image.Image) -> Picture:
    """Any loaded PIL image as a picture."""
    rgb, alpha, profile = _colours(image)
    turn = _UPRIGHT.get(_orientation(image), _UPRIGHT[1])
    rgb = np.ascontiguousarray(turn(rgb))
    return Picture(rgb, None if alpha is None else np.ascontiguousarray(turn(alpha)), profile)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except _DAMAGED:
        return 1  # broken EXIF is no reason to refuse a picture


def _colours(image: Image.Image) -> tuple[RGB, Gray | None, bytes | None]:
    """RGB, alpha if there is any, and the profile if it describes this RGB."""
    profile: bytes = image.info.get("icc_profile") or b""
    if image.mode == "F":
        raise ValueError("which float is white?")
    if image.mode.startswith("I"):
        image = _eight_bit(image)
    alpha = None
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha = np.asarray(rgba.getchannel("A"))
    if profile[16:20] != b"RGB ":
        return _managed(image, profile), alpha, None
    return np.asarray(image.convert("RGB")), alpha, profile


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bit; its transparent value becomes alpha."""
    deep = np.asarray(image).clip(0, 65535).astype(np.uint32)
    gray = Image.fromarray(((deep + 128) // 257).astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is not None:
        gray.putalpha(Image.fromarray(np.where(deep == transparent, 0, 255).astype(np.uint8)))
    return gray


def _managed(image: Image.Image, profile: bytes) -> RGB:
    """RGB of an image without a profile of RGB; by its CMYK or grey profile if that fits it."""
    space = profile[16:20]
    if image.mode == "LA":
        image = image.convert("L")
    if (space, image.mode) in {(b"CMYK", "CMYK"), (b"GRAY", "L")}:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            target = ImageCms.createProfile("sRGB")
            managed = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
            return np.asarray(managed)
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile says nothing about the colours
    return np.asarray(image.convert("RGB"))


def _from_array(array: npt.NDArray[Any]) -> Picture:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in {2, 3} or channels not in {1, 3, 4}:
        raise _invalid(
            "image_type",
            "an array needs dtype uint8 and shape (H, W), (H, W, 3) or (H, W, 4), "
            f"not {array.dtype} {array.shape}",
        )
    _check_dimensions((array.shape[1], array.shape[0]))
    if channels == 1:
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    alpha = np.ascontiguousarray(array[..., 3]) if channels == 4 else None
    return Picture(np.ascontiguousarray(array[..., :3]), alpha)


def _encode_png(picture: Picture) -> bytes:
    # OpenCV's fast filter and run-length strategy write the file of a photograph in half the time
    # of Pillow's fastest level, at the same size (benchmarks/results/picture_path.md).
    if picture.alpha is None:
        pixels = cv2.cvtColor(picture.rgb, cv2.COLOR_RGB2BGR)
    else:
        pixels = np.dstack([picture.rgb[..., ::-1], picture.alpha])
    data = cv2.imencode(".png", pixels)[1].tobytes()
    if not picture.icc_profile:
        return data
    body = b"iCCPICC\0\0" + zlib.compress(picture.icc_profile)
    size, checksum = struct.pack(">I", len(body) - 4), struct.pack(">I", zlib.crc32(body))
    return data[:_IHDR_END] + size + body + checksum + data[_IHDR_END:]


def _encode_jpeg(picture: Picture) -> bytes:
    if max(picture.size) > _JPEG_SIDE:
        raise _invalid("image_dimensions", f"JPEG ends at {_JPEG_SIDE} pixels a side; ask for PNG")
    out = io.BytesIO()
    Image.fromarray(picture.rgb).save(
        out, "JPEG", quality=95, subsampling="4:4:4", icc_profile=picture.icc_profile
    )
    return out.getvalue()
