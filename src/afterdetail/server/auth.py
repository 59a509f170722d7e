"""Who may use the server."""

from __future__ import annotations

import ipaddress
from base64 import b64decode
from hashlib import sha256
from hmac import compare_digest

from afterdetail.config import Settings, Token
from afterdetail.errors import InvalidInput


def client_of(authorization: str, tokens: tuple[Token, ...]) -> str | None:
    """The name that belongs to an ``Authorization`` header, None if it is no valid one.

    Either ``Bearer token``, or ``Basic`` with the token's name and the token, as clients of A1111's
    API send it. Every token is compared, in constant time, so that an answer's time tells nothing
    about them.
    """
    scheme, _, secret = authorization.partition(" ")
    user = None
    if scheme.lower() == "basic":
        user, _, secret = _decoded(secret).partition(":")
    elif scheme.lower() != "bearer":
        return None
    digest = sha256(secret.strip().encode("latin-1", "replace")).digest()
    names = [token.name for token in tokens if compare_digest(token.digest, digest)]
    return names[0] if names and user in (None, names[0]) else None


def _decoded(credentials: str) -> str:
    """Of RFC 7617; empty where it is not written so."""
    try:
        return b64decode(credentials.strip(), validate=True).decode("utf-8")
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether listening on ``host`` can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name: who knows where it leads
        return False


def check_exposure(host: str, settings: Settings) -> None:
    """Refuse to serve other machines without tokens, unless that is asked for.

    Raises:
        InvalidInput: as ``tokens_missing``.
    """
    if is_loopback(host) or settings.all_tokens() or settings.allow_anonymous:
        return
    raise InvalidInput(
        "tokens_missing",
        f"listening on {host} would serve anyone: set AFTERDETAIL_TOKENS=name:token, "
        "or AFTERDETAIL_ALLOW_ANONYMOUS=true",
        field="host",
    )
