"""The policy of the queue, as tables."""

from __future__ import annotations

from collections import Counter

import pytest

from afterdetail.engine.stats import EngineStats
from afterdetail.errors import QueueFull, RateLimited
from afterdetail.options import DetailOptions
from afterdetail.server.admission import (
    FIRST_GUESS,
    Admission,
    Bucket,
    Limits,
    Speedometer,
    next_client,
)

IDLE = EngineStats()


def stats(rows: int = 0, busy_seconds: float = 0.0, backlog: int = 0) -> EngineStats:
    return EngineStats(rows=rows, busy_seconds=busy_seconds, backlog=backlog)


def admission(limits: Limits, engine: EngineStats = IDLE) -> Admission:
    return Admission(limits, lambda: engine, lambda: 0.0)


def admitted(house: Admission, client: str = "anna", size: int = 0, most: int = 1000) -> int:
    """How many requests get in before one is refused."""
    for number in range(most):
        try:
            house.admit(client, size)
        except QueueFull:
            return number
    return most


def test_an_empty_house_has_room_for_anything() -> None:
    tight = Limits(work=1, seconds=0.001, size=1)
    slow = stats(rows=1, busy_seconds=1000)
    admission(tight, slow).admit("anna", 10**9)


@pytest.mark.parametrize(
    ("limits", "engine", "size", "number"),
    [
        (Limits(work=360, seconds=1e9, size=1), IDLE, 0, 10),
        (Limits(work=361, seconds=1e9, size=1), IDLE, 0, 11),
        (Limits(work=1e9, seconds=10, size=1), stats(36, 1.0), 0, 10),
        (Limits(work=1e9, seconds=10, size=1), IDLE, 0, 1000),  # speed not known yet
        (Limits(work=1e9, seconds=1e9, size=100), IDLE, 25, 4),
        (Limits(work=360, seconds=1e9, size=1), stats(backlog=360), 0, 0),
    ],
)
def test_room_is_work_time_and_bytes(
    limits: Limits, engine: EngineStats, size: int, number: int
) -> None:
    assert admitted(admission(limits, engine), size=size) == number


@pytest.mark.parametrize(
    ("engine", "seconds"),
    [
        (IDLE, 1),
        (stats(rows=36, busy_seconds=1), 1),
        (stats(rows=36, busy_seconds=10), 10),
        (stats(rows=36, busy_seconds=10, backlog=72 + 360), 110),
    ],
)
def test_retry_after_is_the_time_until_one_more_fits(engine: EngineStats, seconds: int) -> None:
    house = admission(Limits(work=72, seconds=1e9, size=1), engine)
    with pytest.raises(QueueFull) as caught:
        for _ in range(3):
            house.admit("anna", 0)
    assert caught.value.retry_after == seconds


def test_who_leaves_makes_room() -> None:
    house = admission(Limits(work=36, seconds=1e9, size=1))
    permit = house.admit("anna", 0)
    assert admitted(house) == 0
    house.release(permit)
    house.release(permit)
    assert (house.requests, house.ahead) == (0, 0)
    assert admitted(house) == 1


@pytest.mark.parametrize(
    ("options", "work"),
    [
        (DetailOptions(), 36),
        (DetailOptions(cfg_scale=1), 18),
        (DetailOptions(steps=200, strength=1), 400),
        (DetailOptions(steps=1, strength=0.1), 2),
        (DetailOptions(union_masks=True), 36),
    ],
)
def test_the_work_of_a_request_is_that_of_its_options(options: DetailOptions, work: float) -> None:
    house = admission(Limits(work=1e9, seconds=1e9, size=1))
    permit = house.admit("anna", 0)
    assert permit.work == FIRST_GUESS
    house.know(permit, options)
    assert permit.work == house.ahead == work


def test_pictures_with_many_objects_are_expected_again() -> None:
    house = admission(Limits(work=1e9, seconds=1e9, size=1))
    for _ in range(100):
        house.learn(5)
    permit = house.admit("anna", 0)
    for options, objects in [
        (DetailOptions(), 5),
        (DetailOptions(max_num_detections=2), 2),
        (DetailOptions(union_masks=True), 1),
    ]:
        house.know(permit, options)
        assert permit.work == pytest.approx(36 * objects, rel=0.05)


def test_what_the_engine_has_counts_as_the_engine_counts_it() -> None:
    house = admission(Limits(work=1e9, seconds=1e9, size=1), stats(backlog=500))
    waits, works = house.admit("anna", 0), house.admit("anna", 0)
    works.began = 1
    assert house.ahead == waits.work + 500


@pytest.mark.parametrize(
    ("clients", "each"), [(["anna"], [5]), (["anna", "bert"], [5, 3]), (list("abcd"), [5, 3, 1, 1])]
)
def test_no_client_fills_the_whole_queue(clients: list[str], each: list[int]) -> None:
    """Ten requests fit; who comes late still finds room."""
    house = admission(Limits(work=360, seconds=1e9, size=1, fair=True))
    got = [admitted(house, client) for client in clients]
    assert got == each


@pytest.mark.parametrize(
    ("readings", "speed"),
    [
        ([IDLE], 0),
        ([stats(100, 1)], 100),
        ([stats(100, 1), stats(100, 1)], 100),
        ([stats(100, 1), stats(100, 5)], 100),  # a long tick under way is no slower speed
        ([stats(100, 1), stats(1100, 1001)], 1),
    ],
)
def test_speed(readings: list[EngineStats], speed: float) -> None:
    meter = Speedometer()
    read = [meter.read(reading) for reading in readings]
    assert read[-1] == pytest.approx(speed, rel=1e-3)


@pytest.mark.parametrize(
    ("times", "waits"),
    [
        ([0, 0], [0, 0]),
        ([0, 0, 0], [0, 0, 30]),
        ([0, 0, 30], [0, 0, 0]),
        ([0, 0, 15, 30], [0, 0, 15, 0]),
        ([0, 1000, 1000, 1000], [0, 0, 0, 30]),
    ],
)
def test_a_bucket_of_two_a_minute(times: list[float], waits: list[float]) -> None:
    bucket = Bucket(2, 0)
    assert [bucket.take(time) for time in times] == pytest.approx(waits)


def test_each_client_has_a_rate_of_its_own() -> None:
    house = admission(Limits(work=1e9, seconds=1e9, size=1, per_minute=1))
    house.admit("anna", 0)
    house.admit("bert", 0)
    with pytest.raises(RateLimited) as caught:
        house.admit("anna", 0)
    assert caught.value.retry_after == 60


@pytest.mark.parametrize(
    ("waiting", "working", "served", "chosen"),
    [
        ("a", "", {}, "a"),
        ("ab", "", {}, "a"),
        ("ab", "a", {}, "b"),
        ("aaab", "aab", {}, "b"),
        ("ba", "ab", {}, "b"),
        ("aab", "", {"a": 1}, "b"),
        ("aab", "", {"a": 1, "b": 2}, "a"),
        ("aab", "b", {"a": 2, "b": 1}, "a"),
    ],
)
def test_whose_turn_it_is(waiting: str, working: str, served: dict[str, int], chosen: str) -> None:
    assert next_client(waiting, Counter(working), served) == chosen
