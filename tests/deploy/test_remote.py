"""What is seen through when engines answer, refuse, fall silent and are lost. No engine runs."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from afterdetail.deploy import remote
from afterdetail.deploy.remote import MOST_BEGUN, MOST_SENT, EngineLost, RemoteStudio
from afterdetail.deploy.wire import Call, News, Report
from afterdetail.engine.job import Progress
from afterdetail.engine.stats import EngineStats
from afterdetail.errors import (
    Aborted,
    AfterdetailError,
    DeadlineExceeded,
    EngineStopped,
    InvalidInput,
    QueueFull,
    UnknownName,
)
from afterdetail.lifetime import Lifetime
from afterdetail.models.stats import PoolStats
from afterdetail.studio import Order
from afterdetail.types import RGB

REPORT = Report("one", EngineStats(), PoolStats())
BEGUN = News(REPORT)

Act = Callable[[Call], AsyncGenerator[News, None]]


def painted(order: Order) -> RGB:
    return 255 - order.image


async def paints(call: Call) -> AsyncGenerator[News, None]:
    yield BEGUN
    yield News(REPORT, {index: Progress(1, 2) for index in range(len(call.orders))})
    yield News(REPORT, outcomes={i: painted(order) for i, order in enumerate(call.orders)})


async def is_lost(_: Call) -> AsyncGenerator[News, None]:
    yield BEGUN
    raise EngineLost("killed")


async def is_lost_before_it_begins(call: Call) -> AsyncGenerator[News, None]:
    if call.orders:
        raise EngineLost("killed")
    yield BEGUN


async def paints_one_and_is_lost(call: Call) -> AsyncGenerator[News, None]:
    yield BEGUN
    yield News(REPORT, outcomes={0: painted(call.orders[0])})
    raise EngineLost("killed")


async def has_a_dead_engine(call: Call) -> AsyncGenerator[News, None]:
    yield BEGUN
    stopped = EngineStopped("the engine stopped")
    yield News(REPORT, outcomes=dict.fromkeys(range(len(call.orders)), stopped))


async def ends_too_early(_: Call) -> AsyncGenerator[News, None]:
    yield BEGUN


async def is_silent(_: Call) -> AsyncGenerator[News, None]:
    yield BEGUN
    await asyncio.sleep(60)


async def refuses(call: Call) -> AsyncGenerator[News, None]:
    wrong = InvalidInput("adapter_incompatible", "no such layer")
    yield News(REPORT, outcomes=dict.fromkeys(range(len(call.orders)), wrong))


async def is_full(call: Call) -> AsyncGenerator[News, None]:
    if call.orders:
        raise QueueFull("all engines are busy")
    yield BEGUN


class Engines:
    """Those that get a call, one after the other; the last one gets all that follow."""

    def __init__(self) -> None:
        self.acts: list[Act] = [paints]
        self.calls: list[Call] = []
        self.elsewhere: list[bool] = []
        self.left = 0

    async def send(self, call: Call, elsewhere: bool) -> AsyncGenerator[News, None]:
        act = self.acts[min(len(self.calls), len(self.acts) - 1)]
        self.calls.append(call)
        self.elsewhere.append(elsewhere)
        try:
            async for news in act(call):
                yield news
        finally:
            self.left += 1


@pytest.fixture
def engines() -> Engines:
    return Engines()


@pytest.fixture
def studio(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteStudio]:
    monkeypatch.setattr(remote, "PAUSE", 0.001)
    monkeypatch.setattr(remote, "GRACE", 0.1)
    running = RemoteStudio(engines.send)
    yield running
    running.close()


def begun(
    studio: RemoteStudio, orders: Sequence[Order], lifetime: Lifetime | None = None
) -> Sequence[remote.RemoteCommission]:
    sitting = studio.open({order.choice for order in orders}, lifetime or Lifetime())
    return sitting.begin(orders)


def test_no_orders_are_no_calls(studio: RemoteStudio, engines: Engines) -> None:
    assert list(begun(studio, [])) == []
    assert engines.calls == []


def test_patches_come_back_in_the_order_of_orders(studio: RemoteStudio, order: Order) -> None:
    orders = [replace(order, image=np.full_like(order.image, value)) for value in (1, 2, 3)]
    commissions = begun(studio, orders)
    assert [int(one.result()[0, 0, 0]) for one in commissions] == [254, 253, 252]
    assert all(one.progress == Progress(1, 2) for one in commissions)


def test_orders_of_one_checkpoint_travel_together(
    studio: RemoteStudio, engines: Engines, order: Order
) -> None:
    spec = replace(order.choice.model, name="other")
    other = replace(order, choice=replace(order.choice, model=spec))
    for commission in begun(studio, [order, other, order]):
        commission.result()
    assert sorted((call.checkpoint, len(call.orders)) for call in engines.calls) == [
        ("other", 1),
        ("tiny", 2),
    ]
    assert not any(engines.elsewhere)


@pytest.mark.parametrize("act", [is_lost, has_a_dead_engine, ends_too_early])
def test_a_lost_engine_is_no_error(
    studio: RemoteStudio, engines: Engines, order: Order, act: Act
) -> None:
    engines.acts = [act, paints]
    (commission,) = begun(studio, [order])
    np.testing.assert_array_equal(commission.result(), painted(order))
    assert engines.elsewhere == [False, True]


def test_a_silent_engine_is_lost(
    studio: RemoteStudio, engines: Engines, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "SILENCE", 0.05)
    engines.acts = [is_silent, paints]
    (commission,) = begun(studio, [order])
    np.testing.assert_array_equal(commission.result(), painted(order))


def test_only_what_is_not_painted_is_sent_again(
    studio: RemoteStudio, engines: Engines, order: Order
) -> None:
    engines.acts = [paints_one_and_is_lost, paints]
    for commission in begun(studio, [order, order]):
        commission.result()
    assert [len(call.orders) for call in engines.calls] == [2, 1]


@pytest.mark.parametrize(
    ("act", "sent"), [(is_lost, MOST_BEGUN), (is_lost_before_it_begins, MOST_SENT)]
)
def test_a_call_does_not_take_all_engines_with_it(
    studio: RemoteStudio, engines: Engines, order: Order, act: Act, sent: int
) -> None:
    engines.acts = [act]
    (commission,) = begun(studio, [order])
    with pytest.raises(EngineStopped):
        commission.result()
    assert len(engines.calls) == sent


@pytest.mark.parametrize(("act", "error"), [(refuses, InvalidInput), (is_full, QueueFull)])
def test_what_is_refused_is_not_tried_elsewhere(
    studio: RemoteStudio, engines: Engines, order: Order, act: Act, error: type[AfterdetailError]
) -> None:
    engines.acts = [act]
    (commission,) = begun(studio, [order])
    with pytest.raises(error):
        commission.result()
    assert len(engines.calls) == 1


def test_the_engine_is_told_when_nobody_waits_for_any(
    studio: RemoteStudio, engines: Engines, order: Order
) -> None:
    engines.acts = [is_silent]
    first, second = begun(studio, [order, order])
    first.abort()
    with pytest.raises(Aborted):
        first.result()
    assert not second.wait(0.05)
    assert engines.left == 0
    second.abort()
    until = time.monotonic() + 10
    while not engines.left and time.monotonic() < until:
        time.sleep(0.01)
    assert engines.left == 1


def test_a_deadline_crosses_as_seconds_and_holds_here_too(
    studio: RemoteStudio, engines: Engines, order: Order
) -> None:
    engines.acts = [is_silent]
    (commission,) = begun(studio, [order], Lifetime(time.monotonic() + 0.2))
    with pytest.raises(DeadlineExceeded):
        commission.result()
    (call,) = engines.calls
    assert call.seconds is not None
    assert 0 < call.seconds <= 0.2


def test_closing_tells_whoever_waits(engines: Engines, order: Order) -> None:
    engines.acts = [is_silent]
    studio = RemoteStudio(engines.send)
    (commission,) = begun(studio, [order])
    studio.close()
    with pytest.raises(Aborted):
        commission.result()
    assert not studio.alive


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput("code", "text", field="loras"),
        UnknownName("LoRA", "x", ["y"], field="loras"),
        QueueFull("full", retry_after=7),
        DeadlineExceeded("too late", public="late"),
    ],
)
def test_errors_cross(error: AfterdetailError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert (str(back), back.code, vars(back)) == (str(error), error.code, vars(error))
