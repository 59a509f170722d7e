from __future__ import annotations

import asyncio

from starlette.types import Message

from afterdetail.engine.stats import EngineStats
from afterdetail.models.stats import PoolStats
from afterdetail.server.admission import Admission, Limits
from afterdetail.server.metrics import Metrics
from afterdetail.server.middleware import Accounts


def test_a_request_that_its_server_ends_is_counted_as_aborted() -> None:
    """As Ray Serve does when the client has gone."""
    admission = Admission(Limits(1, 1, 1), EngineStats, lambda: 0.0)
    metrics = Metrics(admission, PoolStats)

    async def app(*_: object) -> None:
        await asyncio.sleep(60)

    async def nothing() -> Message:
        return {"type": "http.request"}

    async def ignore(message: Message) -> None:
        raise AssertionError(message)

    async def run() -> None:
        scope = {"type": "http", "method": "POST", "path": "/adetailer"}
        task = asyncio.create_task(Accounts(app, metrics)(scope, nothing, ignore))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert b'afterdetail_requests_total{outcome="aborted"} 1.0' in metrics.page()
