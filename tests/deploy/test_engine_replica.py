"""An engine's own side, in this process and without Ray."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, replace
from queue import Queue

import numpy as np
import pytest

from afterdetail.deploy import engine_replica
from afterdetail.deploy.engine_replica import EngineReplica, watch
from afterdetail.deploy.options import ClusterOptions
from afterdetail.deploy.wire import Call, News
from afterdetail.engine.service import Ticket
from afterdetail.errors import Aborted, DeadlineExceeded, EngineStopped, ModelUnavailable
from afterdetail.lifetime import Lifetime
from afterdetail.models.catalogue import Source
from afterdetail.studio import LocalStudio, Order


@pytest.fixture
def replica(studio: LocalStudio, monkeypatch: pytest.MonkeyPatch) -> EngineReplica:
    async def hold(name: str) -> str:
        return name

    monkeypatch.setattr(engine_replica, "holder", lambda _: hold)
    return EngineReplica(ClusterOptions(models="tiny"), lambda *_: studio)


def told(replica: EngineReplica, call: Call) -> list[News]:
    async def collect() -> list[News]:
        return [news async for news in replica.paint(call)]

    return asyncio.run(collect())


def test_no_orders_are_a_sign_of_life(replica: EngineReplica) -> None:
    (news,) = told(replica, Call(()))
    assert news.report.models.models > 0
    assert news.outcomes == {}


def test_it_paints_what_the_studio_paints(
    replica: EngineReplica, studio: LocalStudio, order: Order
) -> None:
    slow = replace(order, steps=40, strength=1)
    news = told(replica, Call((order, slow), seconds=60))
    outcomes = {index: one for each in news for index, one in each.outcomes.items()}
    (ticket,) = studio.open({order.choice}, Lifetime()).begin([order])
    np.testing.assert_array_equal(outcomes[0], ticket.result())
    assert isinstance(outcomes[1], np.ndarray)
    steps = [each.progress[1].step for each in news if 1 in each.progress]
    assert steps == sorted(set(steps))
    assert len({each.report.engine for each in news}) == 1


def test_a_deadline_is_kept(replica: EngineReplica, order: Order) -> None:
    long = replace(order, steps=200, strength=1)
    *_, last = told(replica, Call((long,), seconds=0.05))
    assert isinstance(last.outcomes[0], DeadlineExceeded)


def test_what_cannot_be_loaded_is_told(replica: EngineReplica, order: Order) -> None:
    spec = replace(order.choice.model, name="gone", source=Source(path="/nowhere"))
    gone = replace(order, choice=replace(order.choice, model=spec))
    *_, last = told(replica, Call((gone,)))
    assert isinstance(last.outcomes[0], ModelUnavailable)


def test_whoever_leaves_takes_the_jobs_along(
    replica: EngineReplica, studio: LocalStudio, order: Order
) -> None:
    long = replace(order, steps=200, strength=1)

    async def leave() -> None:
        paper = replica.paint(Call((long,)))
        async for news in paper:
            if news.progress:
                break
        await paper.aclose()  # type: ignore[attr-defined]

    asyncio.run(leave())
    until = time.monotonic() + 20
    while studio.stats.jobs and time.monotonic() < until:
        time.sleep(0.01)
    assert studio.stats.jobs == 0


def test_jobs_begun_after_everyone_left_are_aborted(
    replica: EngineReplica, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, begin, begun = threading.Event(), replica._begin, Queue[Ticket]()

    def begin_late(call: Call, lifetime: Lifetime) -> list[Ticket]:
        assert left.wait(20)
        (ticket,) = begin(call, lifetime)
        begun.put(ticket)
        return [ticket]

    async def leave() -> None:
        paper = replica.paint(Call((replace(order, steps=200, strength=1),)))
        await anext(paper)
        await paper.aclose()  # type: ignore[attr-defined]
        left.set()
        ticket = await asyncio.to_thread(begun.get, timeout=20)
        with pytest.raises(Aborted):
            await asyncio.to_thread(ticket.result)

    monkeypatch.setattr(replica, "_begin", begin_late)
    asyncio.run(leave())


@dataclass
class Watched:
    alive: bool
    seconds_since_tick: float = 0.0
    failure: EngineStopped | None = None


@pytest.mark.parametrize(
    ("studio", "ends"),
    [
        (Watched(alive=False), False),  # it was closed
        (Watched(alive=False, failure=EngineStopped("a bug")), True),
        (Watched(alive=True, seconds_since_tick=9.0), True),
    ],
)
def test_the_watchdog_ends_a_process_that_does_nothing(
    studio: Watched, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    monkeypatch.setattr("os._exit", lambda _: ended.set())
    watch(studio, patience=8)  # type: ignore[arg-type]
    assert ended.is_set() == ends
