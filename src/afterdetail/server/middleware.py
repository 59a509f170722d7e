"""What every request passes: an id and a last net for errors (outside), then its token."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afterdetail.config import Token
from afterdetail.errors import Aborted
from afterdetail.server.auth import client_of
from afterdetail.server.errors import internal_error, unauthorized
from afterdetail.server.logs import FIELDS
from afterdetail.server.metrics import Metrics

log = logging.getLogger("afterdetail.server")

access = logging.getLogger("afterdetail.access")

QUIET = ("/health/", "/metrics")
"""Asked every few seconds by machines."""
COUNTED = ("/adetailer", "/v1/detail", "/sdapi/v1/img2img")
"""Every way to have a picture repainted."""
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


class Accounts:
    """Count and log each request when it is over. Outermost: it sees what clients see."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(QUIET):
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0

        async def send_and_look(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, send_and_look)
        except asyncio.CancelledError:  # some servers end the task of a client that has gone
            if not status:
                status = Aborted.status
                scope.setdefault("state", {})["outcome"] = Aborted.code
            raise
        finally:
            self._tell(scope, status, time.perf_counter() - began)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        state = scope.get("state", {})
        outcome = state.get("outcome") or ("ok" if 200 <= status < 300 else f"status_{status}")
        if scope["method"] == "POST" and scope["path"] in COUNTED:
            self.metrics.requests.labels(outcome).inc()
            self.metrics.seconds.observe(seconds)
        fields = {
            "request_id": state.get("request_id", "-"),
            "client": state.get("client", ""),
            "method": scope["method"],
            "path": scope["path"][:200],
            "status": status,
            "outcome": outcome,
            "seconds": round(seconds, 4),
        }
        access.info("request", extra={FIELDS: fields})


class BearerTokens:
    """Refuse who has no token. ``/health/*`` is open, ``/metrics`` has a token of its own; what is
    at ``own_login`` and below asks for itself.
    """

    def __init__(
        self, app: ASGIApp, tokens: tuple[Token, ...], own_login: str | None = None
    ) -> None:
        self.app = app
        self.tokens = tokens
        self.own_login = own_login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        at_home = self.own_login and f"{path}/".startswith(f"{self.own_login}/")
        if scope["type"] != "http" or path.startswith(QUIET) or at_home:
            await self.app(scope, receive, send)
            return
        client = client_of(Headers(scope=scope).get("authorization", ""), self.tokens)
        if client is None:
            refusal = unauthorized(scope)
            await refusal(scope, receive, send)
            return
        scope.setdefault("state", {})["client"] = client
        await self.app(scope, receive, send)
