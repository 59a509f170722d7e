"""What happens to one request, from its body to its response."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from afterdetail.config import Settings
from afterdetail.engine.stats import EngineStats
from afterdetail.errors import (
    Aborted,
    DeadlineExceeded,
    DeviceLost,
    EngineStopped,
    Loading,
)
from afterdetail.lifetime import Lifetime
from afterdetail.models.stats import PoolStats
from afterdetail.results import Outcome
from afterdetail.schema.translate import Incoming, parse_request, resolve
from afterdetail.server.admission import Admission, Limits, Permit
from afterdetail.server.answers import header_list, to_response
from afterdetail.server.body import check_headers, read_body
from afterdetail.server.calls import Source, decode
from afterdetail.server.door import Door
from afterdetail.server.fetch import Fetcher
from afterdetail.server.metrics import Metrics
from afterdetail.server.outbound import UrlPolicy
from afterdetail.server.threads import in_thread
from afterdetail.server.traces import Traces
from afterdetail.server.turns import Turns
from afterdetail.types import Picture

if TYPE_CHECKING:
    from afterdetail.pipeline import Detailer
    from afterdetail.results import DetailResult

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """What answering requests takes.

    ``parser`` has one thread: parsing JSON and base64 holds Python's lock, and of ten large bodies
    parsed at once the event loop would wait for all. ``workers`` spend their time outside of it.
    """

    settings: Settings
    detailer: Future[Detailer]
    fetcher: Fetcher
    admission: Admission
    turns: Turns
    metrics: Metrics
    parser: ThreadPoolExecutor
    workers: ThreadPoolExecutor
    traces: Traces | None = None
    tasks: set[asyncio.Task[Response]] = field(default_factory=set)
    door: Door = field(default_factory=Door)

    @classmethod
    def of(
        cls, settings: Settings, detailer: Future[Detailer], traces: Traces | None = None
    ) -> Self:
        limits = Limits(
            work=settings.queue_work,
            seconds=settings.queue_seconds,
            size=settings.queue_bytes,
            fair=len(settings.all_tokens()) > 1,
            per_minute=settings.requests_per_minute,
        )
        admission = Admission(limits, partial(engine_stats, detailer), time.monotonic)
        return cls(
            settings=settings,
            detailer=detailer,
            fetcher=Fetcher(UrlPolicy.of(settings)),
            admission=admission,
            metrics=Metrics(admission, partial(model_stats, detailer)),
            turns=Turns(settings.threads),
            parser=ThreadPoolExecutor(1, thread_name_prefix="parse"),
            workers=ThreadPoolExecutor(settings.threads, thread_name_prefix="request"),
            traces=traces,
        )

    def close(self) -> None:
        """Wait for nothing: what is under way sees its end by itself."""
        self.parser.shutdown(wait=False, cancel_futures=True)
        self.workers.shutdown(wait=False, cancel_futures=True)

    def check_ready(self) -> None:
        """
        Raises:
            Loading: no new requests are taken now.
        """
        if self.door.closing:
            raise Loading("the server is shutting down; send the request again to another")
        self.loaded()

    def check_live(self) -> None:
        """
        Raises:
            EngineStopped: the engine's thread has died, or one step of it takes too long.
        """
        if not self.detailer.done() or self.detailer.exception() is not None:
            return
        engine = self.detailer.result().engine
        if not engine.alive:
            failure = engine.failure or EngineStopped("the engine has stopped")
            raise failure.with_traceback(None)  # or each raise would add to it
        if engine.seconds_since_tick > self.settings.hung_after_on(self.loaded().device.type):
            raise EngineStopped("the engine hangs")

    @property
    def device_lost(self) -> bool:
        """Whether only a new process can compute again."""
        if not self.detailer.done() or self.detailer.exception() is not None:
            return False
        return isinstance(self.detailer.result().engine.failure, DeviceLost)

    def loaded(self) -> Detailer:
        """
        Raises:
            Loading: the models are not there yet, or could not be loaded.
        """
        if not self.detailer.done() or self.detailer.exception() is not None:
            raise Loading("the models are being loaded; try again soon")
        return self.detailer.result()

    def lifetime(self) -> Lifetime:
        """That of a request which begins now."""
        return Lifetime(time.monotonic() + self.settings.request_timeout)

    async def answer(self, request: Request) -> Response:
        """The whole way of one request."""
        lifetime = self.lifetime()
        with self.door.inside():
            incoming, permit = await self.let_in(request, self.parse)
            self.admission.know(permit, incoming.request)
            work = self.start(incoming, permit, lifetime)
            return await self.while_connected(request, work, lifetime)

    async def receive(self, request: Request) -> tuple[Incoming, bytes, Permit]:
        """Let a request of the contract in, to be kept: what it says, its body, its permit."""
        (incoming, body), permit = await self.let_in(request, lambda body: (self.parse(body), body))
        self.admission.know(permit, incoming.request)
        return incoming, body, permit

    async def let_in(
        self,
        request: Request,
        parse: Callable[[bytes], T],
        others: Collection[str] = frozenset(),
    ) -> tuple[T, Permit]:
        """Let a request in and read it: what ``parse`` makes of its body, and its permit.

        Args:
            others: media types that are taken beside JSON.

        Raises:
            AfterdetailError: it is not let in, or not what it should be. The permit is given back.
        """
        self.check_ready()
        settings = self.settings
        size = check_headers(request, max_bytes=settings.max_body_bytes, others=others)
        permit = self.admission.admit(client_of(request), size)
        try:
            chunks = await read_body(
                request, max_bytes=settings.max_body_bytes, seconds=settings.upload_timeout
            )
            permit.size = sum(map(len, chunks))
            body = await in_thread(self.parser, partial(b"".join, chunks))
            return await in_thread(self.parser, partial(parse, body)), permit
        except BaseException:
            self.admission.release(permit)
            raise

    def parse(self, body: bytes) -> Incoming:
        """A body of ``POST /adetailer``; with the server's settings for what it may name."""
        return parse_request(body, any_detector=self.settings.detectors == "any")

    def start(
        self,
        incoming: Incoming,
        permit: Permit,
        lifetime: Lifetime,
        begun: Callable[[], Awaitable[None]] | None = None,
    ) -> asyncio.Task[Response]:
        """Begin the work of a request that was let in. The permit is given back at its end.

        Args:
            lifetime: without a deadline it is given one when the work's turn has come.
            begun: awaited at that moment.
        """
        return self.begin(self._work(incoming, permit, lifetime, begun), permit)

    def begin(
        self, work: Coroutine[object, object, Response], permit: Permit
    ) -> asyncio.Task[Response]:
        """Begin work of any kind for a request that was let in; its permit ends with it."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(lambda _: self.admission.release(permit))
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Response]) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen: where nobody waits any more, nobody needs to hear of it

    async def while_connected(
        self, request: Request, work: asyncio.Task[Response], lifetime: Lifetime
    ) -> Response:
        """The work's response; if the client leaves or the time is over, the work ends too."""
        gone = asyncio.create_task(_disconnected(request))
        left = (lifetime.deadline or 0.0) - time.monotonic()
        try:
            await asyncio.wait({work, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            if gone.done():
                raise Aborted("the client went away")
            limit = self.settings.request_timeout
            raise DeadlineExceeded(f"not done within {limit:g} seconds")
        finally:
            gone.cancel()
            if not work.done():
                lifetime.end()
                work.cancel()

    async def _work(
        self,
        incoming: Incoming,
        permit: Permit,
        lifetime: Lifetime,
        begun: Callable[[], Awaitable[None]] | None,
    ) -> Response:
        work = partial(self._detail, incoming, lifetime)
        result, response = await self.work_on(incoming, permit, lifetime, work, begun)
        self.learn(result, permit)
        return response

    async def work_on(
        self,
        source: Source,
        permit: Permit,
        lifetime: Lifetime,
        work: Callable[[Picture], T],
        begun: Callable[[], Awaitable[None]] | None = None,
    ) -> T:
        """Fetch the picture, wait for a turn, decode and work in a thread.

        Args:
            lifetime, begun: as for :meth:`take_turn`.
        """
        data = await self._picture(source, permit)

        def in_a_thread() -> T:
            lifetime.check()
            return work(decode(data, self.settings.max_pixels, field=source.image_field))

        return await self.take_turn(permit, lifetime, in_a_thread, begun)

    async def _picture(self, source: Source, permit: Permit) -> bytes:
        """What is fetched takes room as a body does: all that it may be until it is there."""
        if source.picture is not None:
            return source.picture
        permit.size += self.settings.max_url_bytes
        data = await self.fetcher.fetch(source.address or "")
        permit.size += len(data) - self.settings.max_url_bytes
        return data

    async def take_turn(
        self,
        permit: Permit,
        lifetime: Lifetime,
        work: Callable[[], T],
        begun: Callable[[], Awaitable[None]] | None = None,
    ) -> T:
        """Wait for a place, then work in a thread. Cancelled, it ends when its thread has ended.

        Args:
            lifetime: without a deadline it is given one when the turn has come.
            begun: awaited at that moment.
        """
        async with self.turns.turn(permit.client):
            permit.began = time.time_ns()
            if begun:
                await begun()
            if lifetime.deadline is None:
                lifetime.deadline = self.lifetime().deadline
            return await in_thread(self.workers, work, lifetime)

    def learn(self, result: DetailResult, permit: Permit) -> None:
        """A picture is done: what that tells admission, metrics and traces."""
        worked_on = [item for item in result.objects if item.outcome is not Outcome.SKIPPED]
        stages = 1 + max((item.stage for item in result.objects), default=0)
        self.admission.learn(len(worked_on) / stages)
        self.metrics.saw_result(result)
        if self.traces:
            self.traces.saw_result(result, permit.began)

    def _detail(
        self, incoming: Incoming, lifetime: Lifetime, picture: Picture
    ) -> tuple[DetailResult, Response]:
        """The part that blocks: detail, encode."""
        request, detailer = incoming.request, self.loaded()
        options = resolve(
            request,
            picture.size,
            detailer.catalogue,
            any_size=self.settings.resolutions == "any",
        )
        result = detailer.run(picture, options, lifetime)
        response = to_response(result, request.image_encoding)
        if incoming.ignored:
            response.headers["X-Ignored-Fields"] = header_list(incoming.ignored)
        return result, response


async def _disconnected(request: Request) -> None:
    """Returns when the client is gone. Only after the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def client_of(request: Request) -> str:
    """The name of the token that the request came with; empty where there are none."""
    return str(request.scope.get("state", {}).get("client", ""))


def engine_stats(detailer: Future[Detailer]) -> EngineStats:
    """The engine's numbers; zeros while there is none."""
    if not detailer.done() or detailer.exception() is not None:
        return EngineStats()
    return detailer.result().engine.stats


def model_stats(detailer: Future[Detailer]) -> PoolStats:
    """What the models take; zeros while there are none."""
    if not detailer.done() or detailer.exception() is not None:
        return PoolStats()
    return detailer.result().model_stats
