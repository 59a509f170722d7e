"""What is kept, for whom, and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from afterdetail.errors import QueueFull
from afterdetail.server.responses import (
    REMEMBERED,
    Answer,
    NoSuchResponse,
    ResponseExpired,
    Responses,
    State,
    StoreUnavailable,
    Unfinished,
)

DONE = Answer(200, {"content-type": "application/json"}, b"{}")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(folder: Path, clock: Clock, max_bytes: int = 1000) -> Responses:
    return Responses(folder, max_bytes=max_bytes, seconds=100, clock=clock)


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Responses]:
    kept = opened(tmp_path / "state", clock)
    yield kept
    kept.close()


def files(folder: Path) -> set[str]:
    return {path.suffix for path in folder.iterdir()} & {".request", ".result"}


def test_an_empty_store_has_nothing(store: Responses) -> None:
    assert store.unfinished() == []
    with pytest.raises(NoSuchResponse):
        store.state("x", "anna")


def test_a_life(store: Responses, tmp_path: Path) -> None:
    number = store.add("anna", b"body")
    assert store.state(number, "anna") is State.PENDING
    assert store.unfinished() == [Unfinished(number, "anna", b"body")]
    store.start(number)
    assert store.state(number, "anna") is State.RUNNING
    with pytest.raises(NoSuchResponse):
        store.answer(number, "anna")
    store.finish(number, DONE)
    assert store.state(number, "anna") is State.COMPLETED
    assert store.answer(number, "anna") == DONE
    assert store.unfinished() == []
    assert files(tmp_path / "state") == {".result"}


def test_another_client_sees_nothing_of_it(store: Responses) -> None:
    number = store.add("anna", b"body")
    store.finish(number, DONE)
    for look in (store.state, store.answer):
        with pytest.raises(NoSuchResponse):
            look(number, "bert")


def test_it_expires_and_is_forgotten_later(store: Responses, clock: Clock, tmp_path: Path) -> None:
    number = store.add("anna", b"body")
    clock.now = 50
    store.finish(number, DONE)
    clock.now = 149
    assert store.answer(number, "anna") == DONE
    clock.now = 151
    for look in (store.state, store.answer):
        with pytest.raises(ResponseExpired):
            look(number, "anna")
    assert files(tmp_path / "state") == set()
    clock.now += REMEMBERED + 1
    with pytest.raises(NoSuchResponse):
        store.state(number, "anna")


def test_what_is_not_finished_does_not_expire(store: Responses, clock: Clock) -> None:
    number = store.add("anna", b"body")
    clock.now = 1e9
    assert store.state(number, "anna") is State.PENDING


def test_it_is_bounded_and_has_room_again(store: Responses, clock: Clock) -> None:
    first = store.add("anna", b"x" * 600)
    with pytest.raises(QueueFull):
        store.add("anna", b"x" * 600)
    store.finish(first, DONE)
    store.finish(store.add("anna", b"x" * 600), Answer(200, {}, b"y" * 900))
    with pytest.raises(QueueFull):
        store.add("anna", b"x" * 600)
    clock.now = 101
    store.add("anna", b"x" * 600)


def test_it_outlives_its_process(tmp_path: Path, clock: Clock) -> None:
    first = opened(tmp_path, clock)
    done, running = first.add("anna", b"1"), first.add("bert", b"2")
    first.finish(done, DONE)
    first.start(running)
    first.close()
    (tmp_path / "stray.request").write_bytes(b"cut off")
    second = opened(tmp_path, clock)
    assert second.answer(done, "anna") == DONE
    assert second.unfinished() == [Unfinished(running, "bert", b"2")]
    assert not (tmp_path / "stray.request").exists()
    second.close()


def test_a_folder_has_one_server(store: Responses, tmp_path: Path, clock: Clock) -> None:
    assert store.unfinished() == []
    with pytest.raises(StoreUnavailable, match="AFTERDETAIL_STATE_DIR"):
        opened(tmp_path / "state", clock)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="AFTERDETAIL_STATE_DIR"):
        opened(tmp_path / "file", clock)
