from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from afterdetail.engine.backend import EAGER_ROWS_CPU, EagerBackend
from afterdetail.engine.engine import Engine, Finished
from afterdetail.engine.job import Job
from afterdetail.engine.placement import Resident
from afterdetail.engine.service import EngineService
from afterdetail.engine.stats import EngineStats
from afterdetail.errors import (
    Aborted,
    DeadlineExceeded,
    DeviceLost,
    EngineStopped,
    InpaintFailed,
    Loading,
)
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.types import RGB, Gray, Size


@pytest.fixture(scope="module")
def job(tiny: DiffusionModel, face: RGB, oval: Gray) -> Job:
    return Job(tiny, face, oval, prompt="a woman", steps=4, strength=0.6, seed=5)


@pytest.fixture
def service() -> Iterator[EngineService]:
    with EngineService() as running:
        yield running


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def test_a_service_without_jobs_sleeps_and_closes() -> None:
    service = EngineService()
    assert service.alive
    assert service.seconds_since_tick == 0.0
    service.close()
    assert not service.alive


def test_many_threads_get_their_own_pictures(service: EngineService, job: Job) -> None:
    def painted(seed: int) -> RGB:
        return service.add(replace(job, seed=seed)).result()

    with ThreadPoolExecutor(8) as pool:
        first = list(pool.map(painted, range(1, 9)))
        again = list(pool.map(painted, range(8, 0, -1)))[::-1]
    assert len({picture.tobytes() for picture in first}) == 8
    for one, other in zip(first, again, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1


def test_the_numbers_of_its_work(service: EngineService, job: Job) -> None:
    assert service.stats == EngineStats()
    service.add(job).result()
    failing = service.add(replace(job, deadline=0.0))
    with pytest.raises(DeadlineExceeded):
        failing.result()
    stats = service.stats
    assert (stats.rows, stats.forwards, stats.capacity) == (
        job.row_steps,
        2,
        2 * EAGER_ROWS_CPU,
    )
    assert (stats.jobs_done, stats.jobs_failed, stats.jobs, stats.backlog) == (1, 1, 0, 0)
    assert stats.busy_seconds > 0


def test_the_backlog_shrinks_step_by_step(service: EngineService, job: Job) -> None:
    long = replace(job, steps=200, strength=1.0)
    ticket = service.add(long)
    wait_for(lambda: ticket.progress.step > 2)
    assert 0 < service.stats.backlog < long.row_steps == 400
    ticket.abort()
    wait_for(lambda: service.stats.backlog == 0)


def test_progress_is_seen_from_outside(service: EngineService, job: Job) -> None:
    ticket = service.add(replace(job, steps=200, strength=1.0))
    wait_for(lambda: ticket.progress.step > 2)
    assert ticket.progress.steps == 200
    ticket.abort()


def test_an_aborted_job_stops_and_says_so(service: EngineService, job: Job) -> None:
    ticket = service.add(replace(job, steps=200, strength=1.0))
    wait_for(lambda: ticket.progress.step > 0)
    ticket.abort()
    with pytest.raises(Aborted):
        ticket.result()
    ticket.abort()  # a second time is fine
    assert service.add(job).result().shape == job.image.shape


def test_closing_finishes_what_is_in_flight_and_takes_nothing_new(job: Job) -> None:
    service = EngineService()
    ticket = service.add(job)
    service.close()
    assert ticket.result().shape == job.image.shape
    with pytest.raises(Loading):
        service.add(job)


class DyingEngine(Engine):
    """An engine with a bug outside every batch."""

    def step(self) -> list[Finished]:
        raise RuntimeError("a bug")


def test_nobody_waits_for_ever_for_an_engine_that_died(job: Job) -> None:
    service = EngineService(DyingEngine())
    ticket = service.add(job)
    with pytest.raises(EngineStopped):
        ticket.result()
    wait_for(lambda: not service.alive)
    with pytest.raises(EngineStopped):
        service.add(job)


class PickyEngine(Engine):
    """An engine that loses its device as soon as it is given a job."""

    def add(self, job: Job) -> int:
        raise DeviceLost(f"the device failed on {job.seed}")


def test_nobody_waits_for_ever_for_an_engine_that_died_of_a_new_job(job: Job) -> None:
    service = EngineService(PickyEngine())
    tickets = []
    with suppress(DeviceLost):  # the second may come when all is over
        tickets += [service.add(job), service.add(job)]
    for ticket in tickets:
        with pytest.raises(DeviceLost):
            ticket.result()
        ticket.abort()
    assert tickets


def test_a_job_that_cannot_be_placed_fails_alone(job: Job) -> None:
    class Placing(Resident):
        def settled(self, model: DiffusionModel) -> DiffusionModel:
            if not spoilt:
                spoilt.append(model)
                raise RuntimeError("the upload failed")
            return model

    spoilt: list[DiffusionModel] = []
    with EngineService(Engine(placement=Placing())) as service:
        tickets = [service.add(job), service.add(job)]
        with pytest.raises(InpaintFailed):
            tickets[0].result()
        assert tickets[1].result().shape == job.image.shape


def test_what_is_in_flight_can_be_aborted_while_closing(job: Job) -> None:
    service = EngineService()
    ticket = service.add(replace(job, steps=900, strength=1.0))
    closing = threading.Thread(target=service.close)
    closing.start()
    ticket.abort()
    closing.join(60)
    assert not closing.is_alive()
    with pytest.raises(Aborted):
        ticket.result()


def test_a_service_prepares_its_backend_for_the_sizes_to_come(job: Job) -> None:
    class Recording(EagerBackend):
        def prepare(self, model: DiffusionModel, sizes: Iterable[Size]) -> None:
            prepared.append((model, *sizes))

    prepared: list[tuple[object, ...]] = []
    with EngineService(Engine(backend=Recording())) as service:
        service.prepare(job.model, [(32, 32), (64, 32)])
    assert prepared == [(job.model, (32, 32), (64, 32))]
