"""The page's work, done by the server's service: its engine, its queue, its limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from afterdetail import images
from afterdetail.errors import DeadlineExceeded
from afterdetail.lifetime import Lifetime
from afterdetail.results import DetailResult, Listener
from afterdetail.server.calls import Effort
from afterdetail.server.service import Service
from afterdetail.server.threads import in_thread
from afterdetail.stages import Stage
from afterdetail.types import Picture
from afterdetail.ui.drawing import Sketch, sketch


@dataclass(frozen=True, slots=True, eq=False)
class Desk:
    """Where the page's requests are worked on. ``client`` is the name of the visitor's token."""

    service: Service

    async def look(self, file: Path, stage: Stage, client: str) -> Sketch:
        """The dry run: what would be repainted. It waits for the models and for its turn, and takes
        no engine time.

        Raises:
            InvalidInput: the file is no picture, or an option is wrong.
            Loading, DeadlineExceeded: as for any request.
        """
        service, lifetime = self.service, self.service.lifetime()

        def work() -> Sketch:
            return sketch(service.loaded().look(self._read(file), [stage], lifetime))

        async with self._in_time(), service.turns.turn(client):
            await asyncio.wait({asyncio.wrap_future(service.detailer)})
            service.check_ready()
            return await in_thread(service.workers, work, lifetime)

    @property
    def loading(self) -> bool:
        """Whether the models are not there yet."""
        return not self.service.detailer.done()

    async def detail(
        self, file: Path, stage: Stage, client: str, listener: Listener
    ) -> DetailResult:
        """Repaint.

        Raises:
            QueueFull, RateLimited: as for ``POST /adetailer``.
            AfterdetailError: the picture could not be detailed.
        """
        service, lifetime = self.service, self.service.lifetime()
        service.check_ready()
        permit = service.admission.admit(client, file.stat().st_size)
        try:
            service.admission.know(permit, Effort.of((stage,)))
            work = partial(self._detail, file, stage, lifetime, listener)
            async with self._in_time():
                result = await service.take_turn(permit, lifetime, work)
        finally:
            service.admission.release(permit)
        service.learn(result, permit)
        return result

    def _detail(
        self, file: Path, stage: Stage, lifetime: Lifetime, listener: Listener
    ) -> DetailResult:
        return self.service.loaded().run(self._read(file), [stage], lifetime, listener)

    def _read(self, file: Path) -> Picture:
        return images.decode(file.read_bytes(), max_pixels=self.service.settings.max_pixels)

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Inside the server, which does not end before, and no longer than a request may take.

        Raises:
            DeadlineExceeded: the time is over, waiting included.
        """
        limit = self.service.settings.request_timeout
        try:
            with self.service.door.inside():
                async with asyncio.timeout(limit):
                    yield
        except TimeoutError:
            raise DeadlineExceeded(f"not done within {limit:g} seconds") from None
