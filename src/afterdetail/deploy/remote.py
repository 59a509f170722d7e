"""A studio whose engines are elsewhere: sends orders, follows them, and sends them once more if the
engine that had them is lost. How they are sent is not its business: nothing of Ray here."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine, Sequence
from concurrent.futures import Future, wait
from contextlib import aclosing
from typing import Any

import torch

from afterdetail.deploy.fleet import Fleet
from afterdetail.deploy.wire import Call, News
from afterdetail.engine.job import Progress
from afterdetail.engine.stats import EngineStats
from afterdetail.errors import Aborted, AfterdetailError, DeadlineExceeded, EngineStopped
from afterdetail.lifetime import Lifetime
from afterdetail.models.catalogue import Catalogue
from afterdetail.models.choose import Choice
from afterdetail.models.stats import PoolStats
from afterdetail.studio import Order
from afterdetail.types import RGB

log = logging.getLogger("afterdetail.server")

GRACE = 2.0
"""Seconds after its deadline for which a call's engine may still say so itself."""
MOST_BEGUN = 3
"""Engines that may be lost with one call: a call that takes engines down must not take them all."""
MOST_SENT = 6
"""Times that a call is sent, counting engines that were lost before they had begun it."""
SILENCE = 20.0
"""Seconds without news after which an engine that has begun is given up. It tells some every
second, unless it is busy with a model's files."""
PAUSE = 0.2
"""Seconds before a call is sent again: who routes it learns meanwhile what is lost."""

Send = Callable[[Call, bool], AsyncGenerator[News, None]]
"""Sends a call to an engine, and yields what it tells. True asks for another engine than the one
with the weights. Raises :class:`EngineLost`."""


class EngineLost(Exception):
    """The engine that had the call is gone, and with it the work."""


class RemoteStudio:
    """Engines of other processes, behind the face of :class:`~afterdetail.studio.Studio`.

    Args:
        send: runs on a thread of the studio's own.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._fleet = Fleet()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="orders", daemon=True)
        self._thread.start()

    @property
    def device(self) -> torch.device:
        """This process computes on its processor, whatever the engines do."""
        return torch.device("cpu")

    @property
    def stats(self) -> EngineStats:
        return self._fleet.stats

    @property
    def model_stats(self) -> PoolStats:
        return self._fleet.model_stats

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def failure(self) -> EngineStopped | None:
        """Engines that fail are replaced."""
        return None

    @property
    def seconds_since_tick(self) -> float:
        """Engines that hang end themselves."""
        return 0.0

    def load(self, _: Catalogue) -> None:
        """Wait until an engine answers: it loads what its own options say."""
        errand = Errand(Call(()), Lifetime(), [])
        self._start(self._run(errand)).result()

    def open(self, _: Collection[Choice], lifetime: Lifetime) -> RemoteSitting:
        """Nothing to make ready here: the engine that gets the orders does."""
        return RemoteSitting(self, lifetime)

    def close(self) -> None:
        """End the thread; whoever still waits is told."""
        self._start(self._cancel_all()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def begin(self, orders: Sequence[Order], lifetime: Lifetime) -> Errand:
        """Send orders that share a checkpoint."""
        errand = Errand(Call(tuple(orders)), lifetime, [RemoteCommission() for _ in orders])
        running = self._start(self._run(errand))
        for commission in errand.commissions:
            commission.errand, commission.running = errand, running
        return errand

    def _start(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, errand: Errand) -> None:
        """Send a call until every order of it has an outcome, and settle each."""
        try:
            left = errand.seconds_left()
            async with asyncio.timeout(None if left is None else left + GRACE):
                await self._see_through(errand)
        except AfterdetailError as error:
            errand.settle(error)
        except TimeoutError:
            errand.settle(DeadlineExceeded("the time limit has passed"))
        except asyncio.CancelledError:
            errand.settle(Aborted("the job was aborted"))
            raise
        except Exception:
            log.exception("an engine failed in a way that was not foreseen")
            errand.settle(EngineStopped("the engine failed; the log has the cause"))

    async def _see_through(self, errand: Errand) -> None:
        begun = 0
        for sent in range(MOST_SENT):
            if sent:
                await asyncio.sleep(PAUSE)
            errand.begun = False
            try:
                await self._follow(errand, elsewhere=sent > 0)
                return
            except EngineLost as lost:
                log.warning("an engine was lost, with %d orders: %s", errand.open, lost)
                begun += errand.begun
            if begun == MOST_BEGUN:
                break
        raise EngineStopped("the engines that had the picture are gone; send it again")

    async def _follow(self, errand: Errand, *, elsewhere: bool) -> None:
        """Send what has no outcome yet to one engine, and take in what it tells."""
        waiting = errand.waiting()
        call = Call(tuple(errand.call.orders[index] for index in waiting), errand.seconds_left())
        async with aclosing(self._send(call, elsewhere)) as letters:
            while news := await _next(letters, SILENCE if errand.begun else None):
                self._take_in(news, [errand.commissions[index] for index in waiting])
                errand.begun = True
        if errand.waiting():
            raise EngineLost("it ended before its orders")

    def _take_in(self, news: News, commissions: Sequence[RemoteCommission]) -> None:
        self._fleet.hear(news.report)
        for index, progress in news.progress.items():
            commissions[index].progress = progress
        for index, outcome in news.outcomes.items():
            if isinstance(outcome, EngineStopped):
                raise EngineLost(str(outcome))
            commissions[index].settle(outcome)


async def _next(letters: AsyncIterator[News], seconds: float | None) -> News | None:
    """What comes next, None at the end."""
    try:
        async with asyncio.timeout(seconds):
            return await anext(letters)
    except StopAsyncIteration:
        return None
    except TimeoutError:
        raise EngineLost("nothing was heard of it") from None


class Errand:
    """A call under way: its orders, and what is known of each."""

    def __init__(self, call: Call, lifetime: Lifetime, commissions: list[RemoteCommission]) -> None:
        self.call = call
        self.commissions = commissions
        self.begun = False
        self._deadline = lifetime.deadline

    @property
    def open(self) -> int:
        """Orders without an outcome."""
        return len(self.waiting())

    def waiting(self) -> list[int]:
        """The indexes of those orders."""
        return [index for index, one in enumerate(self.commissions) if not one.done]

    def seconds_left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def settle(self, error: AfterdetailError) -> None:
        """Give every order that has no outcome this one. With no orders to tell, raise it."""
        if not self.commissions:
            raise error
        for commission in self.commissions:
            commission.settle(error)


class RemoteCommission:
    """An order under way. See :class:`~afterdetail.studio.Commission`."""

    errand: Errand
    running: Future[None]

    def __init__(self) -> None:
        self.progress = Progress()
        self._future: Future[RGB] = Future()
        self._lock = threading.Lock()

    @property
    def done(self) -> bool:
        return self._future.done()

    def wait(self, seconds: float) -> bool:
        """See :class:`~afterdetail.studio.Commission`."""
        return bool(wait({self._future}, seconds).done)

    def result(self) -> RGB:
        """See :class:`~afterdetail.studio.Commission`."""
        return self._future.result()

    def abort(self) -> None:
        """Give up on this order; the engine is told once nobody waits for any of its call."""
        if self.done:
            return
        self.settle(Aborted("the job was aborted"))
        if not self.errand.open:
            self.running.cancel()

    def settle(self, outcome: RGB | AfterdetailError) -> None:
        """The first outcome stands."""
        with self._lock:
            if self._future.done():
                return
            if isinstance(outcome, AfterdetailError):
                self._future.set_exception(outcome)
            else:
                self._future.set_result(outcome)


class RemoteSitting:
    """See :class:`~afterdetail.studio.Sitting`."""

    def __init__(self, studio: RemoteStudio, lifetime: Lifetime) -> None:
        self._studio = studio
        self._lifetime = lifetime

    def begin(self, orders: Sequence[Order]) -> Sequence[RemoteCommission]:
        """Send them, those of each checkpoint together."""
        groups: dict[str, list[int]] = {}
        for index, order in enumerate(orders):
            groups.setdefault(order.choice.model.name, []).append(index)
        begun: dict[int, RemoteCommission] = {}
        for indexes in groups.values():
            errand = self._studio.begin([orders[index] for index in indexes], self._lifetime)
            begun |= zip(indexes, errand.commissions, strict=True)
        return [begun[index] for index in range(len(orders))]
