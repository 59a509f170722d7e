"""The numbers of many engines as if they were one: for admission and for the metrics."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from afterdetail.deploy.wire import Report
from afterdetail.engine.stats import EngineStats
from afterdetail.models.stats import PoolStats

FRESH = 3.0
"""Seconds after which an engine that nothing was heard of is left out of what is under way. It
tells something every second while it works for this process."""

REMEMBERED = 600.0
"""Seconds for which the totals of an engine are remembered, so that only what is added counts."""


@dataclass(frozen=True, slots=True)
class Heard:
    report: Report
    at: float


class Fleet:
    """Adds up what engines report. Thread-safe.

    Totals never shrink, also when engines go. Engines that work at the same time share the busy
    seconds: rows by busy seconds is then the speed of all of them together.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, Heard] = {}
        self._totals = EngineStats()
        self._loads = PoolStats()
        self._lock = threading.Lock()

    def hear(self, report: Report) -> None:
        """An engine has told its numbers."""
        with self._lock:
            now = self._clock()
            last = self._heard.get(report.engine)
            self._heard[report.engine] = Heard(report, now)
            old = [name for name, heard in self._heard.items() if now - heard.at > REMEMBERED]
            for name in old:
                del self._heard[name]
            if last:  # what an engine did before it was first heard of is not counted here
                self._add(last.report, report)

    def _add(self, last: Report, report: Report) -> None:
        then, now, totals = last.stats, report.stats, self._totals
        busy = max(0.0, now.busy_seconds - then.busy_seconds) / max(1, len(self._fresh()))
        self._totals = replace(
            totals,
            forwards=totals.forwards + max(0, now.forwards - then.forwards),
            rows=totals.rows + max(0, now.rows - then.rows),
            capacity=totals.capacity + max(0, now.capacity - then.capacity),
            busy_seconds=totals.busy_seconds + busy,
            jobs_done=totals.jobs_done + max(0, now.jobs_done - then.jobs_done),
            jobs_failed=totals.jobs_failed + max(0, now.jobs_failed - then.jobs_failed),
        )
        self._loads = PoolStats(
            self._loads.loads + max(0, report.models.loads - last.models.loads),
            self._loads.load_seconds
            + max(0.0, report.models.load_seconds - last.models.load_seconds),
        )

    def _fresh(self) -> list[Report]:
        """What engines have told lately."""
        now = self._clock()
        return [heard.report for heard in self._heard.values() if now - heard.at <= FRESH]

    @property
    def stats(self) -> EngineStats:
        """Totals since this process began to listen; jobs and backlog of the engines heard of."""
        with self._lock:
            heard = [report.stats for report in self._fresh()]
            return replace(
                self._totals,
                jobs=sum(stats.jobs for stats in heard),
                backlog=sum(stats.backlog for stats in heard),
            )

    @property
    def model_stats(self) -> PoolStats:
        """Likewise of the models, each counted in every engine that holds it."""
        with self._lock:
            heard = [report.models for report in self._fresh()]
            return replace(
                self._loads,
                models=sum(stats.models for stats in heard),
                resident_bytes=sum(stats.resident_bytes for stats in heard),
            )
