"""Places at the workbench: so many requests are worked on at once, and clients take turns."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from afterdetail.server.admission import next_client


class Turns:
    """Hands out ``places``; a client with many requests does not keep the others from theirs."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._working: Counter[str] = Counter()
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()
        self._served: dict[str, int] = {}
        self._turns = 0

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Wait for a place and hold it."""
        await self._take(client)
        try:
            yield
        finally:
            self._give_back(client)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def _take(self, client: str) -> None:
        if self._free:
            self._free -= 1
            self._note(client)
            return
        mine = (client, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        try:
            await mine[1]
        except asyncio.CancelledError:
            if mine in self._waiting:
                self._waiting.remove(mine)
            else:  # it was given the place in the same moment
                self._give_back(client)
            raise

    def _give_back(self, client: str) -> None:
        self._working -= Counter({client: 1})  # keeps no zeros
        # One that was just cancelled stands in the queue until its task runs.
        waiting = [item for item in self._waiting if not item[1].done()]
        if not waiting:
            self._free += 1
            return
        names = [name for name, _ in waiting]
        chosen = next_client(names, self._working, self._served)
        following = next(item for item in waiting if item[0] == chosen)
        self._waiting.remove(following)
        self._note(chosen)
        following[1].set_result(None)

    def _note(self, client: str) -> None:
        self._turns += 1
        self._working[client] += 1
        self._served[client] = self._turns  # as many entries as there are tokens
