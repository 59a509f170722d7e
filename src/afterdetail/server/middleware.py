"""What every request passes: an id and a last net for errors (outside), then its token."""

from __future__ import annotations

import logging
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afterdetail.config import Token
from afterdetail.server.auth import client_of
from afterdetail.server.errors import internal_error, problem

log = logging.getLogger("afterdetail.server")

SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestIds:
    """Give each request an id, its own if it brings a sane one, and each response its header."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if SANE_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            log.exception("request %s: unforeseen", request_id)
            if started:
                raise
            await internal_error(scope)(scope, receive, send_with_id)


class BearerTokens:
    """Refuse who has no token. ``/health/*`` is open."""

    def __init__(self, app: ASGIApp, tokens: tuple[Token, ...]) -> None:
        self.app = app
        self.tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/health/"):
            await self.app(scope, receive, send)
            return
        client = client_of(Headers(scope=scope).get("authorization", ""), self.tokens)
        if client is None:
            refusal = problem(
                scope, 401, "unauthorized", "send a valid token as 'Authorization: Bearer TOKEN'",
                {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
            await refusal(scope, receive, send)
            return
        scope.setdefault("state", {})["client"] = client
        await self.app(scope, receive, send)
