"""Telling a client's own server that a job of the asynchronous form is completed.

Messages and signatures are those of Standard Webhooks 1.0 (standardwebhooks.com), for which there
are libraries in most languages: HMAC-SHA256 over ``id.timestamp.body``. Each is sent until it is
answered with 2xx, six times at most, across restarts too; so it may come more than once.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import ssl
import time
from hashlib import sha256

import httpx

from afterdetail.errors import AfterdetailError, InvalidInput, SourceFailed
from afterdetail.schema.response import FieldProblem
from afterdetail.schema.translate import RequestInvalid
from afterdetail.server.outbound import Outbound
from afterdetail.server.responses import Responses, Webhook

log = logging.getLogger("afterdetail.server")

HEADER = "x-afterdetail-webhook"
WAITS = (0.0, 10.0, 60.0, 600.0, 3600.0, 6 * 3600.0)
"""Seconds before each attempt."""
AT_ONCE = 8
"""Messages on their way at a time."""


class Webhooks:
    """Sends what the store says is due. For one event loop.

    Args:
        key: with which messages are signed.
    """

    def __init__(self, store: Responses, outbound: Outbound, key: bytes) -> None:
        self._store = store
        self._outbound = outbound
        self._key = key
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, number: str) -> None:
        """Send the message of a completed job, if it has one, in the background."""
        task = asyncio.create_task(self._deliver(number))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def resume(self) -> None:
        """Go on with what a process that is gone, or this one, did not get rid of."""
        numbers = await asyncio.to_thread(self._store.claim_undelivered)
        while numbers:
            for number in numbers:
                self.begin(number)
            # Others may take the rest of what is shared.
            shared = self._store.shared
            numbers = [] if shared else await asyncio.to_thread(self._store.claim_undelivered)

    async def close(self) -> None:
        """Leave what is not delivered to the next process."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _deliver(self, number: str) -> None:
        try:
            await self._attempts(number)
        except AfterdetailError as error:  # the store: when it is well, the message is claimed
            log.error("webhook of %s: %s", number, error)
            self._store.let_go(number)

    async def _attempts(self, number: str) -> None:
        async with self._turn:  # of thousands after a restart, most wait here
            webhook = await asyncio.to_thread(self._store.webhook, number)
        if webhook is None:
            return
        for attempt in range(webhook.attempts, len(WAITS)):
            await asyncio.sleep(WAITS[attempt])
            async with self._turn:
                problem = await self._send(number, webhook)
            if not problem:
                break
            await asyncio.to_thread(self._store.attempted, number)
            log.warning("webhook of %s, attempt %d: %s", number, attempt + 1, problem)
        await asyncio.to_thread(self._store.delivered, number)

    async def _send(self, number: str, webhook: Webhook) -> str:
        """Empty if the message was taken, else what went wrong."""
        body = json.dumps({"response_id": number, "status": "completed"}).encode()
        headers = {"Content-Type": "application/json"} | signed(self._key, number, body)
        try:
            async with (
                asyncio.timeout(self._outbound.policy.timeout),
                self._outbound.request("POST", webhook.url, headers, body) as response,
            ):
                return "" if response.is_success else f"answered {response.status_code}"
        except (TimeoutError, httpx.TimeoutException):
            return "too slow"
        except (InvalidInput, SourceFailed) as error:
            return str(error)
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError):
            return "the connection failed"
        except Exception:
            log.exception("webhook of %s: unforeseen", number)
            return "unforeseen"


def signed(key: bytes, number: str, body: bytes, now: float | None = None) -> dict[str, str]:
    """The headers that say who sent a message, and when."""
    stamp = str(int(time.time() if now is None else now))
    mac = hmac.digest(key, f"{number}.{stamp}.".encode() + body, sha256)
    signature = "v1," + base64.b64encode(mac).decode("ascii")
    return {"webhook-id": number, "webhook-timestamp": stamp, "webhook-signature": signature}


def check_header(url: str, outbound: Outbound, *, enabled: bool) -> None:
    """Refuse a webhook that will never be sent.

    Raises:
        RequestInvalid: there are none here, or the URL is none that may be asked. Its host is
            looked up only when the message is sent.
    """
    if not enabled:
        text = "this server sends no webhooks; ask after the job at its poll_url"
        raise _refused("webhook_disabled", text)
    try:
        outbound.policy.check_url(url)
    except InvalidInput as error:
        raise _refused(error.code, error.public) from None


def _refused(code: str, text: str) -> RequestInvalid:
    return RequestInvalid([FieldProblem(loc=["header", HEADER], msg=text, type=code)])
