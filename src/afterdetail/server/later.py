"""The asynchronous form: a job is accepted at once, asked after, and its result fetched later.

As the hosted service had it (``X-OctoAI-Async: 1``): a failed job is ``completed`` too, and its
``response_url`` answers the status and body that the synchronous form would have had.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from contextlib import suppress
from functools import cached_property, partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from afterdetail.config import Settings
from afterdetail.errors import Aborted, AfterdetailError
from afterdetail.lifetime import Lifetime
from afterdetail.schema.translate import Incoming
from afterdetail.server import errors
from afterdetail.server.admission import Permit
from afterdetail.server.responses import LEASE, Answer, Responses, State, Unfinished
from afterdetail.server.service import Service, client_of
from afterdetail.server.tables import StoreUnavailable
from afterdetail.server.webhooks import HEADER, Webhooks, check_header

log = logging.getLogger("afterdetail.server")

SYNCHRONOUS = frozenset({"", "0", "false"})
KEPT_HEADERS = ("content-type", "retry-after", "x-ignored-fields", "x-objects-failed")
PATIENCE = 10
"""Seconds for the jobs at hand to notice that the server ends: one step of the engine."""
PAUSES = (1.0, 5.0, 25.0)
"""Seconds after each try to keep a result."""
PREFIX = "/adetailer/responses"


def wants_later(request: Request) -> bool:
    """Whether the client asks for the asynchronous form. A webhook asks for it too."""
    asked = request.headers.get("x-octoai-async", "").lower() not in SYNCHRONOUS
    return asked or HEADER in request.headers


class Later:
    """Runs accepted jobs through the service and keeps their results."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._running: dict[asyncio.Task[None], Lifetime] = {}
        self._store: Responses | None = None
        self._opening = threading.Lock()
        self._closing = asyncio.Event()

    @property
    def store(self) -> Responses:
        """Opened when first needed: a server that is never asked leaves no files."""
        settings = self.service.settings
        with self._opening:
            if self._store is None:
                self._store = Responses(
                    settings.state_dir,
                    max_bytes=settings.async_bytes,
                    seconds=settings.async_hours * 3600,
                    url=settings.state_url,
                    files=settings.state_files,
                )
            return self._store

    @cached_property
    def webhooks(self) -> Webhooks:
        key = self.service.settings.webhook_secret
        return Webhooks(self.store, self.service.fetcher.outbound, key)

    async def accept(self, request: Request) -> Response:
        """Keep a request that is in order, begin its work, and tell where to ask after it."""
        webhook = request.headers.get(HEADER, "")
        if HEADER in request.headers:
            enabled = bool(self.service.settings.webhook_secret)
            check_header(webhook, self.service.fetcher.outbound, enabled=enabled)
        incoming, body, permit = await self.service.receive(request)
        try:
            client = client_of(request)
            number = await asyncio.to_thread(lambda: self.store.add(client, body, webhook))
        except BaseException:
            self.service.admission.release(permit)
            raise
        self._start(number, incoming, permit)
        poll_url = f"{_base(request, self.service.settings)}{PREFIX}/{number}"
        return JSONResponse({"response_id": number, "poll_url": poll_url})

    async def state(self, request: Request, number: str) -> Response:
        """How far a job is, and where its result is once it has one."""
        state = await asyncio.to_thread(lambda: self.store.state(number, client_of(request)))
        url = f"{_base(request, self.service.settings)}{PREFIX}/{number}"
        told = {"response_id": number, "status": state.value, "poll_url": url}
        if state is State.COMPLETED:
            told["response_url"] = f"{url}/result"
        return JSONResponse(told)

    async def result(self, request: Request, number: str) -> Response:
        """What the synchronous form would have answered."""
        answer = await asyncio.to_thread(lambda: self.store.answer(number, client_of(request)))
        return Response(answer.body, answer.status, dict(answer.headers))

    async def resume(self) -> None:
        """Once the models are there, begin again what an earlier process did not finish; then what
        this one has let go and, on a shared store, what other servers leave behind."""
        await asyncio.wait({asyncio.wrap_future(self.service.detailer)})
        if self.service.detailer.exception():
            return  # without models every job would fail
        while True:
            if self._in_use():
                await self._look_after()
            await asyncio.sleep(LEASE / 3)

    def _in_use(self) -> bool:
        settings = self.service.settings
        if self._store or settings.state_url:
            return True
        return (settings.state_dir / "responses.sqlite").exists()

    async def _look_after(self) -> None:
        """Keep hold of our jobs, and take over those that nobody has hold of."""
        try:
            store = await asyncio.to_thread(lambda: self.store)
            await asyncio.to_thread(store.renew)
            jobs = await asyncio.to_thread(store.claim)
            while jobs:
                for job in jobs:
                    await self._again(job)
                # Others may take the rest of what is shared.
                jobs = [] if store.shared else await asyncio.to_thread(store.claim)
            if self.service.settings.webhook_secret:
                await self.webhooks.resume()
        except AfterdetailError as error:
            log.error("the asynchronous form is off: %s", error)
        except Exception:  # of whatever keeps the files
            log.exception("the asynchronous form is off")

    async def _again(self, job: Unfinished) -> None:
        permit = self.service.admission.readmit(job.client, len(job.body))
        try:
            incoming = await asyncio.to_thread(partial(self.service.parse, job.body))
        except Exception as error:  # it was in order before an upgrade
            self.service.admission.release(permit)
            self._begin(self._finish(job.id, _failure(job.id, error)), Lifetime())
        else:
            self._start(job.id, incoming, permit)

    async def close(self) -> None:
        """Stop what is running; it is unfinished then, and for the next process to run."""
        self._closing.set()
        for lifetime in self._running.values():
            lifetime.end()
        if self._running:
            await asyncio.wait(set(self._running), timeout=PATIENCE)
        if "webhooks" in self.__dict__:
            await self.webhooks.close()
        if self._store:
            await asyncio.to_thread(self._store.close)

    def _start(self, number: str, incoming: Incoming, permit: Permit) -> None:
        lifetime = Lifetime()  # its time begins with its turn
        self._begin(self._run(number, incoming, permit, lifetime), lifetime)

    def _begin(self, work: Coroutine[object, object, None], lifetime: Lifetime) -> None:
        task = asyncio.create_task(work)
        self._running[task] = lifetime
        task.add_done_callback(self._running.pop)

    async def _run(
        self, number: str, incoming: Incoming, permit: Permit, lifetime: Lifetime
    ) -> None:
        work = self.service.start(incoming, permit, lifetime, begun=partial(self._note, number))
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.call_soon_threadsafe(work.cancel)

        lifetime.on_end(stop)
        try:
            response = await work
        except (Aborted, asyncio.CancelledError):
            self.store.let_go(number)
            return
        except Exception as error:
            response = _failure(number, error)
        await self._finish(number, response)

    async def _note(self, number: str) -> None:
        """That a job has begun: nothing but what a poll tells hangs on it."""
        try:
            await asyncio.to_thread(self.store.start, number)
        except StoreUnavailable as error:
            log.error("request %s: %s", number, error)

    async def _finish(self, number: str, response: Response) -> None:
        """Keep what a job came to, or that it could not be kept; else let it go, to run again once
        the store is well."""
        for pause in PAUSES:
            if await self._keep(number, response):
                return
            if await self._closes_within(pause):
                return  # the next process runs it
        lost = StoreUnavailable(
            f"the result of {number} could not be kept",
            public="the result could not be kept; send the request again",
        )
        if not await self._keep(number, errors.answer(_scope(number), lost)):
            self.store.let_go(number)

    async def _keep(self, number: str, response: Response) -> bool:
        """Whether a job is completed now."""
        try:
            await asyncio.to_thread(self.store.finish, number, _answer(response))
        except Exception as error:  # whatever keeps the files has exceptions of its own
            log.error("request %s: its result cannot be kept: %s", number, error)
            return False
        if self.service.settings.webhook_secret:
            self.webhooks.begin(number)
        return True

    async def _closes_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)
        return self._closing.is_set()


def _scope(number: str) -> Scope:
    """Errors of a job are told under its own id."""
    return {"type": "http", "state": {"request_id": number}}


def _failure(number: str, error: Exception) -> Response:
    if isinstance(error, AfterdetailError):
        return errors.answer(_scope(number), error)
    log.error("request %s: unforeseen", number, exc_info=error)
    return errors.internal_error(_scope(number))


def _answer(response: Response) -> Answer:
    headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
    return Answer(response.status_code, headers, bytes(response.body))


def _base(request: Request, settings: Settings) -> str:
    return (settings.public_url or str(request.base_url)).rstrip("/")
