"""Reading a request's body: JSON only, so many bytes and no more, within so many seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from starlette.requests import ClientDisconnect, Request

from afterdetail.errors import Aborted, AfterdetailError, BodyTooLarge, UploadTooSlow


class NotJson(AfterdetailError):
    """The request does not say that its body is JSON, or says that it is compressed."""

    status, code = 415, "unsupported_media_type"


def media_type(request: Request) -> str:
    """What the request says that its body is, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def check_headers(
    request: Request, *, max_bytes: int, others: Collection[str] = frozenset()
) -> int:
    """The most bytes that the body can have, by what the headers say of it.

    Args:
        others: media types that are taken beside JSON.

    Raises:
        NotJson: it is of no such type, or compressed.
        BodyTooLarge: by its Content-Length.
    """
    given = media_type(request)
    if given != "application/json" and given not in others:
        also = f" (or {', '.join(sorted(others))})" if others else ""
        raise NotJson(f"send JSON, with Content-Type: application/json{also}")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise NotJson("send the body uncompressed, without Content-Encoding")
    if "transfer-encoding" in request.headers:
        return max_bytes
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared[:20]) > max_bytes:
        raise _too_large(max_bytes)
    return int(declared)


async def read_body(request: Request, *, max_bytes: int, seconds: float) -> list[bytes]:
    """The whole body in the pieces that it came in. What a refusal leaves unread stays unread.

    Raises:
        BodyTooLarge: once more than ``max_bytes`` have come.
        UploadTooSlow: it has not come in time.
        Aborted: the client went away.
    """
    chunks: list[bytes] = []
    received = 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                received += len(chunk)
                if received > max_bytes:
                    raise _too_large(max_bytes)
                chunks.append(chunk)
    except TimeoutError:
        raise UploadTooSlow(f"the body did not arrive within {seconds:g} seconds") from None
    except ClientDisconnect:
        raise Aborted("the client went away") from None
    return chunks


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than the limit of {max_bytes:,} bytes")
