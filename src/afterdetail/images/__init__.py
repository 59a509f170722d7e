"""Bytes to pictures and back: PNG, JPEG and WebP in, PNG and JPEG out."""

from afterdetail.images.codec import Encoding, decode, encode, from_any, to_pil
from afterdetail.images.files import MAX_PIXELS

__all__ = ["MAX_PIXELS", "Encoding", "decode", "encode", "from_any", "to_pil"]
