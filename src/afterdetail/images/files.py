"""Image files opened with care: only PNG, JPEG and WebP, their pixels not decoded yet.

What a file can ask of a decoder (pixels, unpacked metadata, passes, segments) is read from its
headers and bounded here, before one is opened; no other decoder than the three ever is.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator

from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from afterdetail.errors import InvalidInput
from afterdetail.types import Size

MAX_PIXELS = 50_000_000
"""Pixels of the largest picture, unless the caller says otherwise."""
MIN_SIDE = 16
"""Pixels of the shorter side: less is two latent pixels, in which no model can draw anything."""
MAX_ASPECT = 32
"""Longer side to shorter: beyond it a detector that scales the whole picture down sees a line."""
MAX_METADATA = 16_000_000
"""Bytes that the compressed texts and colour profile of one PNG may unpack to."""
MAX_PARTS = 20_000
"""Chunks of a PNG, segments of a JPEG. Photographs have a few thousand at most."""
MAX_SCANS = 100
"""Passes of a progressive JPEG. Encoders write about ten; thousands, of a few bytes each, would
make the decoder go over all pixels as often."""

# What Pillow's three decoders raise on damaged data. SyntaxError is its word for "not such a file".
DAMAGED = (OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, struct.error)

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NEEDED_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND"})
_JPEG = b"\xff\xd8\xff"
# Compressed data escapes 0xFF by a 0 and is resumed by 0xD0..0xD7; all else starts a segment.
_SEGMENT = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])", re.DOTALL)
_SCAN, _END = b"\xda", b"\xd9"


def open_image(data: bytes, max_pixels: int) -> Image.Image:
    """The image in a file, its size and metadata checked, its pixels not decoded yet.

    Raises:
        InvalidInput: as :func:`afterdetail.images.decode`.
    """
    if not data:
        raise invalid("image_empty", "the picture is empty; send a PNG, JPEG or WebP file")
    if data.startswith(PNG_SIGNATURE):
        return _open_png(data, max_pixels)
    if data.startswith(_JPEG):
        return _open_jpeg(data, max_pixels)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _open_webp(data, max_pixels)
    raise invalid("image_unsupported", "the picture is none of PNG, JPEG, WebP; convert it to one")


def invalid(code: str, message: str, *, public: str | None = None) -> InvalidInput:
    return InvalidInput(code, message, field="init_image", public=public)


def corrupt() -> InvalidInput:
    return invalid("image_corrupt", "the picture is damaged or cut short; send it again")


def check_dimensions(size: Size) -> None:
    """Refuse a picture too thin to work on."""
    if min(size) < MIN_SIDE or max(size) > MAX_ASPECT * min(size):
        raise invalid(
            "image_dimensions",
            f"the picture is {size[0]}x{size[1]} pixels; each side needs at least {MIN_SIDE}, "
            f"the longer at most {MAX_ASPECT} times the shorter",
        )


def check_size(size: Size, max_pixels: int) -> None:
    """Refuse a picture that is too large, or too thin."""
    width, height = size
    if width * height > max_pixels:
        raise invalid(
            "image_too_large",
            f"the picture has {width}x{height} = {width * height / 1e6:.1f} megapixels, allowed "
            f"are {max_pixels / 1e6:g}; scale it down",
        )
    check_dimensions(size)


def _open_png(data: bytes, max_pixels: int) -> Image.Image:
    """A PNG opened from the chunks its pixels need: Pillow never sees, or unpacks, the others."""
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise corrupt()
    width, height, depth = struct.unpack(">IIB", data[16:25])
    check_size((width, height), max_pixels)
    needed, profile, room = [PNG_SIGNATURE], b"", MAX_METADATA
    for kind, chunk in _chunks(data):
        if kind == b"acTL":
            raise invalid("image_animated", "the picture is an animated PNG; send one frame")
        if kind in _NEEDED_CHUNKS:
            needed.append(chunk)
        elif packed := _packed(kind, chunk[8:-4]):
            unpacked = _unpack(packed, room)
            room -= len(unpacked)
            profile = unpacked if kind == b"iCCP" else profile
    image = _open(PngImagePlugin.PngImageFile, b"".join(needed))
    if image.mode == "P" and image.palette is None:
        raise corrupt()
    image.info["icc_profile"] = profile
    transparent = image.info.get("transparency")
    if depth == 16 and isinstance(transparent, tuple):
        # Pillow keeps the upper 8 of 16 bits of coloured pixels, but all of their transparent one.
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    return image


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and bytes, length and checksum included, of each of a PNG's chunks up to the last."""
    place = len(PNG_SIGNATURE)
    for _ in range(MAX_PARTS):
        length = int.from_bytes(data[place : place + 4], "big")
        chunk = data[place : place + 12 + length]
        if len(chunk) < 12 + length or zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            raise corrupt()
        kind = chunk[4:8]
        yield kind, chunk
        if kind == b"IEND":
            return
        place += len(chunk)
    raise _too_many(f"the PNG has over {MAX_PARTS} chunks")


def _packed(kind: bytes, body: bytes) -> bytes:
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
        raise _too_many(f"the PNG's metadata unpack to over {MAX_METADATA // 1_000_000} MB")
    return unpacked


def _open_jpeg(data: bytes, max_pixels: int) -> Image.Image:
    _check_segments(data)
    image = _open(JpegImagePlugin.JpegImageFile, data)
    check_size(image.size, max_pixels)
    return image


def _check_segments(data: bytes) -> None:
    place, scans = len(_JPEG) - 1, 0
    for _ in range(MAX_PARTS):
        segment = _SEGMENT.search(data, place)
        if segment is None or segment[1] == _END:
            return
        scans += segment[1] == _SCAN
        if scans > MAX_SCANS:
            raise _too_many(f"the JPEG has over {MAX_SCANS} scans")
        place = segment.end() + int.from_bytes(data[segment.end() : segment.end() + 2], "big")
    raise _too_many(f"the JPEG has over {MAX_PARTS} segments")


def _too_many(what: str) -> InvalidInput:
    return invalid("image_too_large", f"{what}; save it again without metadata, not progressive")


def _open_webp(data: bytes, max_pixels: int) -> Image.Image:
    """A WebP, its header read here first: Pillow makes room for all pixels on opening."""
    if len(data) < 30:
        raise corrupt()
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X" and body[0] & 0x02:
        raise invalid("image_animated", "the picture is an animated WebP; send one frame")
    check_size(_webp_size(kind, body), max_pixels)
    return _open(WebPImagePlugin.WebPImageFile, data)


def _webp_size(kind: bytes, body: bytes) -> Size:
    """Width and height by the start of the first chunk (RFC 9649)."""
    if kind == b"VP8X":
        width, height = int.from_bytes(body[4:7], "little"), int.from_bytes(body[7:10], "little")
        return width + 1, height + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", body[6:10])
    return width & 0x3FFF, height & 0x3FFF


def _open(plugin: Callable[[io.BytesIO], Image.Image], data: bytes) -> Image.Image:
    # The plugin itself, not Image.open, which would try other decoders too.
    try:
        return plugin(io.BytesIO(data))
    except DAMAGED:
        raise corrupt() from None
