"""The engine on a thread of its own: any number of callers add jobs and wait for their results."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Self

from afterdetail.engine.engine import Engine, Finished
from afterdetail.engine.job import Job, Progress
from afterdetail.engine.stats import EngineStats
from afterdetail.errors import Aborted, DeviceLost, EngineStopped, Loading
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.types import RGB, Size

log = logging.getLogger(__name__)


class Ticket:
    """A job in the engine: its picture to come, its progress, and the way out."""

    def __init__(self, service: EngineService, job: Job) -> None:
        self.job = job
        self.progress = Progress()
        self._service = service
        self._future: Future[RGB] = Future()

    def result(self) -> RGB:
        """Wait for the repainted picture, uint8 ``(H, W, 3)``, the size of the job's.

        Raises:
            AfterdetailError: the job failed, was aborted or ran out of time.
        """
        return self._future.result()

    @property
    def done(self) -> bool:
        return self._future.done()

    def wait(self, seconds: float) -> bool:
        """Wait so long at most; whether it is done then."""
        return bool(wait({self._future}, seconds).done)

    def on_done(self, action: Callable[[], None]) -> None:
        """Have ``action`` run when it is done, in the engine's thread; at once if it is."""
        self._future.add_done_callback(lambda _: action())

    def abort(self) -> None:
        """Stop at the next step; :meth:`result` then raises ``Aborted``."""
        self._service.abort(self)

    def settle(self, outcome: RGB | Exception) -> None:
        """For the service: the first outcome stands."""
        if self._future.done():
            return
        if isinstance(outcome, Exception):
            self._future.set_exception(outcome)
        else:
            self._future.set_result(outcome)


class EngineService:
    """Runs an engine's ticks while it has jobs and sleeps while it has none.

    Thread-safe. ``add`` and ``abort`` return at once and take effect at the next tick.
    """

    def __init__(self, engine: Engine | None = None) -> None:
        self._engine = engine or Engine()
        self._tickets: dict[int, Ticket] = {}
        self._posted: set[Ticket] = set()
        self._inbox: list[Callable[[], None]] = []
        self._wake = threading.Condition()
        self._closing = False
        self._last_tick = time.monotonic()
        self._busy_seconds = 0.0
        self._done = 0
        self._failed = 0
        self._failure: EngineStopped | None = None
        self._thread = threading.Thread(target=self._run, name="afterdetail-engine", daemon=True)
        self._thread.start()

    def prepare(self, model: DiffusionModel, sizes: Sequence[Size]) -> None:
        """Compile what there is to compile for these sizes, in the caller's thread.

        Without it the first job of a size does so, while all others wait. Quick when done before.
        """
        self._engine.prepare(model, sizes)

    def add(self, job: Job) -> Ticket:
        """Hand a job to the engine.

        Raises:
            Loading: the service is closing.
        """
        ticket = Ticket(self, job)
        with self._wake:
            self._check_open()
            self._posted.add(ticket)
            self._post(lambda: self._admit(ticket))
        return ticket

    def abort(self, ticket: Ticket) -> None:
        """Stop a job at the next step. Never raises: a thread that has ended has settled it."""
        if not ticket.done:
            self._post(lambda: self._withdraw(ticket))

    def close(self) -> None:
        """Finish the jobs in flight, then end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def failure(self) -> EngineStopped | None:
        """Why the thread ended, if not by :meth:`close`."""
        return self._failure

    @property
    def seconds_since_tick(self) -> float:
        """How long the tick at hand has been running; 0 while there is nothing to do."""
        return time.monotonic() - self._last_tick if self._tickets else 0.0

    @property
    def stats(self) -> EngineStats:
        """From any thread; its numbers may be one tick apart."""
        tickets = list(self._tickets.values())
        return EngineStats(
            forwards=self._engine.forwards,
            rows=self._engine.rows,
            capacity=self._engine.capacity,
            busy_seconds=self._busy_seconds,
            jobs_done=self._done,
            jobs_failed=self._failed,
            jobs=len(tickets),
            backlog=sum(_remaining(ticket) for ticket in tickets),
        )

    def _check_open(self) -> None:
        if self._failure:
            raise self._failure.with_traceback(None)  # or each raise would add to it
        if self._closing or not self._thread.is_alive():
            raise Loading("the engine is shutting down; send the request again later")

    def _post(self, command: Callable[[], None]) -> None:
        with self._wake:
            self._inbox.append(command)
            self._wake.notify()

    def _run(self) -> None:
        try:
            while self._collect():
                self._tick()
        except BaseException as error:
            log.critical("the engine's thread ended", exc_info=error)
            told = EngineStopped("the engine stopped; the log has the cause")
            self._failure = error if isinstance(error, DeviceLost) else told
        finally:
            self._abandon()

    def _collect(self) -> bool:
        """Wait for something to do and take in what was posted; false when it is time to end."""
        with self._wake:
            self._wake.wait_for(lambda: self._inbox or self._closing or not self._engine.idle)
            commands, self._inbox = self._inbox, []
        self._last_tick = time.monotonic()
        for command in commands:
            command()
        return not (self._closing and self._engine.idle)

    def _tick(self) -> None:
        self._last_tick = time.monotonic()
        for finished in self._engine.step():
            self._resolve(finished)
        for number, ticket in self._tickets.items():
            ticket.progress = self._engine.progress(number)
        self._busy_seconds += time.monotonic() - self._last_tick

    def _admit(self, ticket: Ticket) -> None:
        self._tickets[self._engine.add(ticket.job)] = ticket
        self._posted.remove(ticket)

    def _withdraw(self, ticket: Ticket) -> None:
        for number, held in list(self._tickets.items()):
            if held is ticket:
                self._engine.abort(number)
                del self._tickets[number]
        ticket.settle(Aborted("the job was aborted"))

    def _resolve(self, finished: Finished) -> None:
        failed = isinstance(finished.outcome, Exception)
        self._failed += failed
        self._done += not failed
        self._tickets.pop(finished.number).settle(finished.outcome)

    def _abandon(self) -> None:
        """Nobody will run these any more: say so rather than let their callers wait for ever."""
        with self._wake:
            self._closing = True
        stopped = self._failure or EngineStopped("the engine stopped")
        for ticket in (*self._tickets.values(), *self._posted):
            ticket.settle(stopped)
        self._tickets.clear()
        self._posted.clear()


def _remaining(ticket: Ticket) -> int:
    return max(0, ticket.job.row_steps - ticket.job.rows * ticket.progress.step)
