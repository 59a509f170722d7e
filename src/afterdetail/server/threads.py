"""Blocking work beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from afterdetail.lifetime import Lifetime

T = TypeVar("T")


async def in_thread(
    pool: ThreadPoolExecutor, work: Callable[[], T], lifetime: Lifetime | None = None
) -> T:
    """Run blocking work. If this is cancelled, wait until the thread has noticed.

    Args:
        lifetime: of the work; it ends if this is cancelled.
    """
    future = asyncio.get_running_loop().run_in_executor(pool, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if lifetime:
            lifetime.end()
        await asyncio.wait({future})
        if not future.cancelled():
            future.exception()
        raise
