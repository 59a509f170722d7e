from __future__ import annotations

from dataclasses import replace

import pytest

from afterdetail.deploy.fleet import FRESH, Fleet
from afterdetail.deploy.wire import Report
from afterdetail.engine.stats import EngineStats
from afterdetail.models.stats import PoolStats


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def report(engine: str, rows: int, busy: float, backlog: int = 0, models: int = 1) -> Report:
    stats = EngineStats(rows=rows, busy_seconds=busy, backlog=backlog, jobs=backlog and 1)
    return Report(engine, stats, PoolStats(loads=models, models=models))


def test_nothing_heard_is_nothing_done() -> None:
    assert Fleet().stats == EngineStats()
    assert Fleet().model_stats == PoolStats()


def test_the_speed_is_that_of_all_engines_together() -> None:
    """Two engines with 10 rows a second each have 20."""
    fleet = Fleet()
    for second in range(1, 6):
        fleet.hear(report("a", 10 * second, second))
        fleet.hear(report("b", 10 * second, second))
    stats = fleet.stats
    assert stats.rows / stats.busy_seconds == pytest.approx(20)


def test_what_was_done_before_is_not_counted() -> None:
    fleet = Fleet()
    fleet.hear(report("a", 5000, 900))
    assert (fleet.stats.rows, fleet.stats.busy_seconds) == (0, 0)


def test_work_of_an_engine_that_went_stays_done() -> None:
    clock = Clock()
    fleet = Fleet(clock)
    fleet.hear(report("a", 0, 0, backlog=7))
    fleet.hear(report("a", 30, 1, backlog=4))
    fleet.hear(report("b", 0, 0, backlog=2))
    assert (fleet.stats.backlog, fleet.stats.jobs, fleet.model_stats.models) == (6, 2, 2)
    clock.now = FRESH + 1
    assert replace(fleet.stats, busy_seconds=0) == EngineStats(rows=30)
    assert fleet.model_stats.models == 0


def test_what_was_done_in_silence_is_counted_later() -> None:
    clock = Clock()
    fleet = Fleet(clock)
    fleet.hear(report("a", 10, 1))
    clock.now = FRESH + 1
    fleet.hear(report("a", 40, 4))
    assert (fleet.stats.rows, fleet.stats.busy_seconds) == (30, 3)
