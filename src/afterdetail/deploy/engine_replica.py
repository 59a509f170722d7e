"""One engine of a cluster: a studio of its own, which all calls that reach it share."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from afterdetail.config import Settings, load_settings
from afterdetail.deploy.options import ClusterOptions
from afterdetail.deploy.wire import Call, News, Report
from afterdetail.engine.job import Progress
from afterdetail.engine.service import Ticket
from afterdetail.errors import AfterdetailError
from afterdetail.lifetime import Lifetime
from afterdetail.models.catalogue import load_catalogue
from afterdetail.server import logs
from afterdetail.server.run import SWITCH_SECONDS
from afterdetail.studio import LocalStudio, make_studio
from afterdetail.types import RGB

log = logging.getLogger("afterdetail.server")

LOOK = 0.1
"""Seconds between two looks at the progress of a call."""
BEAT = 1.0
"""Seconds after which there is news even if nothing has changed."""
WATCH = 1.0
"""Seconds between two looks of the watchdog."""

MakeStudio = Callable[[ClusterOptions, Settings], LocalStudio]


def studio_of(options: ClusterOptions, settings: Settings) -> LocalStudio:
    """What an engine paints with."""
    return make_studio(
        options.device,
        deterministic=settings.deterministic,
        backend=settings.backend,
        memory=settings.memory,
        downloads=False,
    )


class EngineReplica:
    """Takes calls and tells how they go; ends its process when its engine is dead or hangs.

    A process that has ended is seen at once, by whoever waits for it and by whoever replaces it; a
    hung one only after many failed health checks.

    Args:
        make: what makes its studio.
    """

    def __init__(self, options: ClusterOptions, make: MakeStudio = studio_of) -> None:
        settings = load_settings()
        sys.setswitchinterval(SWITCH_SECONDS)  # calls come and go beside the engine's thread
        logs.configure(settings.log_format)
        catalogue = load_catalogue(options.models)
        self._name = uuid.uuid4().hex
        self._studio = make(options, settings)
        self._studio.load(catalogue)
        self._hold = holder(options.models_per_engine)
        self._unannounced = [spec.name for spec in catalogue.bases().values()]
        patience = settings.hung_after_on(self._studio.device.type)
        watching = partial(watch, self._studio, patience)
        threading.Thread(target=watching, name="watchdog", daemon=True).start()

    async def check_health(self) -> None:
        """Asked by Ray every few seconds. The first time, what was loaded at the start is noted."""
        while self._unannounced:
            await self._hold(self._unannounced.pop())
        if not self._studio.alive:
            raise RuntimeError("the engine has died")

    async def paint(self, call: Call) -> AsyncIterator[News]:
        """Work on a call until all its orders have an outcome, or until it is cancelled."""
        if call.checkpoint:
            await self._hold(call.checkpoint)
        deadline = None if call.seconds is None else time.monotonic() + call.seconds
        beginning = asyncio.create_task(
            asyncio.to_thread(self._begin, call, Lifetime(deadline))  # models may be loaded first
        )
        try:
            yield News(self._report())  # the call has arrived
            while not (await asyncio.wait({beginning}, timeout=BEAT))[0]:
                yield News(self._report())
            async for progress, outcomes in follow(await beginning):
                yield News(self._report(), progress, outcomes)
        except AfterdetailError as error:
            yield News(self._report(), outcomes=dict.fromkeys(range(len(call.orders)), error))
        finally:
            beginning.add_done_callback(abort_all)

    def _begin(self, call: Call, lifetime: Lifetime) -> list[Ticket]:
        sitting = self._studio.open({order.choice for order in call.orders}, lifetime)
        return list(sitting.begin(call.orders))

    def _report(self) -> Report:
        return Report(self._name, self._studio.stats, self._studio.model_stats)


def holder(models: int) -> Callable[[str], Awaitable[str]]:
    """Notes a checkpoint as resident in this process, the least recently used of them out first.

    Ray Serve sends calls for a checkpoint where it was noted. What is really in memory the studio's
    own pool decides, by bytes.
    """
    from ray import serve

    async def hold(name: str) -> str:
        return name

    noted: Any = serve.multiplexed(hold, max_num_models_per_replica=models)
    return noted  # type: ignore[no-any-return]


async def follow(
    tickets: list[Ticket],
) -> AsyncIterator[tuple[dict[int, Progress], dict[int, RGB | AfterdetailError]]]:
    """Progress and outcomes of tickets as they come, both by index; nothing new after ``BEAT``."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        loop.call_soon_threadsafe(changed.set)

    for ticket in tickets:
        ticket.on_done(wake)
    seen = dict.fromkeys(range(len(tickets)), Progress())
    waiting, told = set(seen), time.monotonic()
    while waiting:
        with suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), LOOK)
        changed.clear()
        done = {index for index in waiting if tickets[index].done}
        now = {index: tickets[index].progress for index in waiting - done}
        progress = {index: one for index, one in now.items() if one != seen[index]}
        seen |= progress
        waiting -= done
        if progress or done or time.monotonic() - told >= BEAT:
            told = time.monotonic()
            yield progress, {index: outcome_of(tickets[index]) for index in done}


def abort_all(begun: asyncio.Task[list[Ticket]]) -> None:
    """Nobody waits for a call's tickets any more."""
    if not begun.cancelled() and begun.exception() is None:
        for ticket in begun.result():
            ticket.abort()


def outcome_of(ticket: Ticket) -> RGB | AfterdetailError:
    try:
        return ticket.result()
    except AfterdetailError as error:
        return error


def watch(studio: LocalStudio, patience: float) -> None:
    """End the process once the studio's engine has died, or one step of it takes too long.

    A studio that was closed is watched no more.
    """
    while studio.alive and studio.seconds_since_tick <= patience:
        time.sleep(WATCH)
    if not studio.alive and studio.failure is None:
        return
    log.critical("the engine %s: this process ends", "hangs" if studio.alive else "has died")
    os._exit(1)
