"""What travels in a picture's file beside its pixels: EXIF and texts, read, and written again."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import ExifTags, Image, PngImagePlugin

from afterdetail.images.codec import Encoding, png_chunk

PARAMETERS = "parameters"
"""The text that image generators of A1111's family write and read."""
JPEG_TEXTS = "afterdetail"
"""The one other text that a JPEG can carry here: as its comment."""

_IN_PNG_END = 33
"""Bytes of a PNG's signature and IHDR, which come first (PNG 3rd edition, 5.6)."""
_SEGMENT_ROOM = 65_533
_UNICODE = b"UNICODE\0"
"""How EXIF's UserComment says that UTF-16 follows (EXIF 2.32, 4.6.6)."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """``exif`` is a TIFF block without orientation and thumbnail, which no longer hold; ``texts``
    are a PNG's text chunks, and a JPEG's comment of A1111's kind as ``parameters``.
    """

    exif: bytes = b""
    texts: Mapping[str, str] = field(default_factory=dict)


def read_metadata(data: bytes) -> Metadata:
    """The metadata of a file that :func:`afterdetail.images.decode` has accepted.

    Metadata that cannot be read is none: the pixels are what was asked for.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
            exif = image.getexif()
            texts = {
                str(key): str(value) for key, value in getattr(image, "text", {}).items()
            } or _texts_of_jpeg(image, exif)
            return Metadata(_without_view(exif), texts)
    except (OSError, ValueError, SyntaxError, KeyError, struct.error):
        return Metadata()


def write_metadata(data: bytes, encoding: Encoding, metadata: Metadata) -> bytes:
    """A file that :func:`afterdetail.images.encode` has made, with metadata in it.

    A JPEG takes ``parameters`` and ``afterdetail`` of the texts. What is too long for its place in
    a JPEG (64 KB) is left out.
    """
    if encoding == "png":
        added = _png_chunks(metadata)
        return data[:_IN_PNG_END] + added + data[_IN_PNG_END:]
    begin = 2 + (2 + int.from_bytes(data[4:6], "big") if data[2:4] == b"\xff\xe0" else 0)
    return data[:begin] + _jpeg_segments(metadata) + data[begin:]


def _texts_of_jpeg(image: Image.Image, exif: Image.Exif) -> dict[str, str]:
    texts = {}
    comment = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment, b"")
    if isinstance(comment, bytes) and comment.startswith(_UNICODE):
        body = comment[len(_UNICODE) :]
        order = "utf-16-le" if body[1:2] == b"\0" else "utf-16-be"
        texts[PARAMETERS] = body.decode(order, "replace").rstrip("\0")
    told = image.info.get("comment", b"")
    prefix = f"{JPEG_TEXTS}:".encode()
    if isinstance(told, bytes) and told.startswith(prefix):
        texts[JPEG_TEXTS] = told.removeprefix(prefix).decode("utf-8", "replace")
    return texts


def _without_view(exif: Image.Exif) -> bytes:
    """EXIF of a picture that has been turned upright; Pillow leaves the thumbnail out itself."""
    exif.pop(ExifTags.Base.Orientation, None)
    return bytes(exif.tobytes()).removeprefix(b"Exif\0\0") if len(exif) else b""


def _png_chunks(metadata: Metadata) -> bytes:
    info = PngImagePlugin.PngInfo()
    for key, value in metadata.texts.items():
        info.add_text(key[:79], value)
    if metadata.exif:
        info.add(b"eXIf", metadata.exif)
    return b"".join(png_chunk(kind, body) for kind, body, *_ in info.chunks)


def _jpeg_segments(metadata: Metadata) -> bytes:
    exif = Image.Exif()
    if metadata.exif:
        exif.load(b"Exif\0\0" + metadata.exif)
    if PARAMETERS in metadata.texts:
        text = metadata.texts[PARAMETERS].encode("utf-16-be", "replace")
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = _UNICODE + text
    packed = bytes(exif.tobytes()) if len(exif) or PARAMETERS in metadata.texts else b""
    if packed and not packed.startswith(b"Exif\0\0"):
        packed = b"Exif\0\0" + packed
    told = metadata.texts.get(JPEG_TEXTS)
    comment = f"{JPEG_TEXTS}:{told}".encode() if told else b""
    return _segment(b"\xff\xe1", packed) + _segment(b"\xff\xfe", comment)


def _segment(marker: bytes, body: bytes) -> bytes:
    if not body or len(body) > _SEGMENT_ROOM:
        return b""
    return marker + struct.pack(">H", len(body) + 2) + body
