"""Progress as server-sent events (WHATWG HTML, 9.2), and the result as the last of them."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import asdict

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from afterdetail.errors import AfterdetailError, DeadlineExceeded
from afterdetail.lifetime import Lifetime
from afterdetail.results import Found, Progress, Settled, Step
from afterdetail.server import errors
from afterdetail.server.door import Door
from afterdetail.server.v1_answers import EVENTS

log = logging.getLogger("afterdetail.server")

QUIET_SECONDS = 15.0
"""After which a stream says that it is still there: proxies end silent ones."""
NAMES: dict[type[Progress], str] = {Found: "found", Step: "step", Settled: "settled"}


class EventStream(StreamingResponse):
    """Server-sent events of work under way. The work ends with the stream, however it ends."""

    def __init__(
        self,
        content: AsyncIterator[str],
        work: asyncio.Task[Response],
        lifetime: Lifetime,
        door: Door,
    ) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content, headers=headers, media_type=EVENTS)
        self.work, self.lifetime, self.door = work, lifetime, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self.door.inside():
                await super().__call__(scope, receive, send)
        finally:
            if not self.work.done():
                self.lifetime.end()
                self.work.cancel()


async def events(
    scope: Scope,
    work: asyncio.Task[Response],
    queue: asyncio.Queue[Progress | None],
    lifetime: Lifetime,
) -> AsyncIterator[str]:
    """Progress as it comes, then the result, or the error that the plain form would answer."""
    while not work.done() or not queue.empty():
        left = (lifetime.deadline or 0.0) - time.monotonic()
        try:
            progress = await asyncio.wait_for(queue.get(), min(QUIET_SECONDS, max(left, 0.0)))
        except TimeoutError:
            if left <= QUIET_SECONDS:
                break
            yield ": still at it\n\n"
            continue
        if progress is not None:
            yield _event(NAMES[type(progress)], json.dumps(asdict(progress)))
    yield _ending(scope, work)


def _ending(scope: Scope, work: asyncio.Task[Response]) -> str:
    try:
        if not work.done():
            raise DeadlineExceeded("not done within the time limit")
        return _event("result", bytes(work.result().body).decode())
    except AfterdetailError as error:
        response = errors.answer(scope, error)
    except Exception:
        log.exception("request %s: unforeseen", errors.request_id(scope))
        response = errors.internal_error(scope)
    told = {"status": response.status_code, **json.loads(bytes(response.body))}
    return _event("error", json.dumps(told))


def _event(name: str, data: str) -> str:
    return f"event: {name}\ndata: {data}\n\n"
