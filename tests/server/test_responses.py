"""What is kept, for whom, and for how long."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from afterdetail.errors import QueueFull
from afterdetail.server.files import Files
from afterdetail.server.responses import (
    LEASE,
    REMEMBERED,
    Answer,
    NoSuchResponse,
    ResponseExpired,
    Responses,
    State,
    Unfinished,
)
from afterdetail.server.tables import StoreUnavailable

DONE = Answer(200, {"content-type": "application/json"}, b"{}")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


Open = Callable[[], Responses]


def opened(folder: Path, clock: Clock, url: str = "") -> Responses:
    return Responses(folder, max_bytes=1000, seconds=100, clock=clock, url=url)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres"))


@pytest.fixture
def open_store(tmp_path: Path, clock: Clock, url: str) -> Iterator[Open]:
    """Servers of one store, in SQLite one after the other."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(opened(tmp_path / "state", clock, url)))


@pytest.fixture
def store(open_store: Open) -> Responses:
    return open_store()


def fails(*_: object) -> None:
    raise OSError(28, "No space left on device")


def files(folder: Path) -> set[str]:
    return {path.suffix for path in folder.iterdir()} & {".request", ".result"}


def test_an_empty_store_has_nothing(store: Responses) -> None:
    assert store.claim() == []
    assert store.claim_undelivered() == []
    with pytest.raises(NoSuchResponse):
        store.state("x", "anna")


def test_a_life(store: Responses, tmp_path: Path) -> None:
    number = store.add("anna", b"body")
    assert store.state(number, "anna") is State.PENDING
    assert store.claim() == []  # it is at work on it itself
    store.start(number)
    assert store.state(number, "anna") is State.RUNNING
    with pytest.raises(NoSuchResponse):
        store.answer(number, "anna")
    store.finish(number, DONE)
    assert store.state(number, "anna") is State.COMPLETED
    assert store.answer(number, "anna") == DONE
    store.finish(number, Answer(500, {}, b"too late"))
    assert store.answer(number, "anna") == DONE
    assert store.claim() == []
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


def test_it_outlives_its_process(open_store: Open, url: str, tmp_path: Path) -> None:
    first = open_store()
    done, running = first.add("anna", b"1"), first.add("bert", b"2")
    first.finish(done, DONE)
    first.start(running)
    first.close()
    stray = tmp_path / "state" / "stray.request"
    stray.write_bytes(b"cut off")
    second = open_store()
    assert second.answer(done, "anna") == DONE
    assert second.claim() == [Unfinished(running, "bert", b"2")]
    assert second.claim() == []
    assert stray.exists() == bool(url)  # on a shared store it may be of a job that is just coming


def test_a_webhook_outlives_its_process(open_store: Open) -> None:
    first = open_store()
    told = first.add("anna", b"1", "https://example.org/1")
    pending = first.add("anna", b"2", "https://example.org/2")
    first.finish(told, DONE)
    first.close()
    second = open_store()
    assert second.claim_undelivered() == [told]
    assert [job.id for job in second.claim()] == [pending]
    second.delivered(told)
    assert second.webhook(told) is None
    second.close()
    assert open_store().claim_undelivered() == []


def test_what_is_let_go_is_free_from_the_next_renewal_on(open_store: Open, clock: Clock) -> None:
    store = open_store()
    failed, told = store.add("anna", b"1"), store.add("anna", b"2", "https://example.org/")
    store.add("anna", b"at work on it")
    store.finish(told, DONE)
    store.let_go(failed)
    store.let_go(told)
    assert store.claim() == []
    clock.now += LEASE * 0.9
    store.renew()
    clock.now += LEASE * 0.9
    assert store.claim() == [Unfinished(failed, "anna", b"1")]
    assert store.claim_undelivered() == [told]
    store.renew()
    assert store.claim() == []


def test_a_request_that_cannot_be_read_now_is_let_go(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_store()
    number = first.add("anna", b"1")
    first.close()
    second = open_store()
    with monkeypatch.context() as patch:
        patch.setattr(Files, "read", fails)
        assert second.claim() == []
    second.renew()
    assert second.claim() == [Unfinished(number, "anna", b"1")]


def test_a_result_that_cannot_be_written_leaves_the_job_open(
    store: Responses, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = store.add("anna", b"1")
    with monkeypatch.context() as patch:
        patch.setattr(Files, "write", fails)
        with pytest.raises(StoreUnavailable, match="No space left"):
            store.finish(number, DONE)
    assert store.state(number, "anna") is State.PENDING
    store.finish(number, DONE)
    assert store.answer(number, "anna") == DONE


def test_a_request_that_cannot_be_removed_is_no_failure(
    store: Responses, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = store.add("anna", b"1")
    monkeypatch.setattr(Files, "remove", fails)
    store.finish(number, DONE)
    assert store.answer(number, "anna") == DONE


def test_a_folder_has_one_server(tmp_path: Path, clock: Clock) -> None:
    with closing(opened(tmp_path, clock)), pytest.raises(StoreUnavailable, match="STATE_DIR"):
        opened(tmp_path, clock)


def test_a_store_of_an_earlier_version_is_taken_over(tmp_path: Path, clock: Clock) -> None:
    """It knew no leases."""
    with closing(opened(tmp_path, clock)) as first:
        number = first.add("anna", b"1")
    with closing(sqlite3.connect(tmp_path / "responses.sqlite")) as database:
        database.execute("DROP TABLE leases")
    with closing(opened(tmp_path, clock)) as second:
        assert second.claim() == [Unfinished(number, "anna", b"1")]


class TestShared:
    """Two servers of one store, both alive."""

    @pytest.fixture
    def url(self, postgres: str) -> str:
        return postgres

    def test_both_answer_for_any_job(self, open_store: Open) -> None:
        one, other = open_store(), open_store()
        number = one.add("anna", b"1")
        assert other.state(number, "anna") is State.PENDING
        one.finish(number, DONE)
        assert other.answer(number, "anna") == DONE

    def test_a_job_of_one_that_lives_is_its_own(self, open_store: Open, clock: Clock) -> None:
        one, other = open_store(), open_store()
        one.add("anna", b"1")
        for _ in range(5):
            clock.now += LEASE * 0.9
            one.renew()
            assert other.claim() == []

    def test_a_job_of_one_that_is_gone_goes_to_one_other(
        self, open_store: Open, clock: Clock
    ) -> None:
        number = open_store().add("anna", b"1")
        others = [open_store() for _ in range(4)]
        clock.now += LEASE + 1
        with ThreadPoolExecutor(4) as pool:
            claimed = list(pool.map(Responses.claim, others))
        assert [job for jobs in claimed for job in jobs] == [Unfinished(number, "anna", b"1")]

    def test_one_that_comes_back_too_late_changes_nothing(
        self, open_store: Open, clock: Clock
    ) -> None:
        slow, other = open_store(), open_store()
        number = slow.add("anna", b"1")
        clock.now += LEASE + 1
        (job,) = other.claim()
        slow.renew()
        other.finish(job.id, DONE)
        slow.finish(number, Answer(500, {}, b"late"))
        assert slow.answer(number, "anna") == DONE

    def test_files_may_lie_elsewhere(self, postgres: str, tmp_path: Path, clock: Clock) -> None:
        store = Responses(
            tmp_path / "unused",
            max_bytes=100,
            seconds=100,
            clock=clock,
            url=postgres,
            files="memory://afterdetail-test",
        )
        with closing(store):
            number = store.add("anna", b"1")
            store.finish(number, DONE)
            assert store.answer(number, "anna") == DONE
        assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize(
    "url", ["nosuch://x", "not a url", "postgresql+pg8000://nobody:secret@127.0.0.1:1/x"]
)
def test_a_database_that_is_none_is_told_without_its_password(
    tmp_path: Path, clock: Clock, url: str
) -> None:
    with pytest.raises(StoreUnavailable, match="AFTERDETAIL_STATE_URL") as raised:
        opened(tmp_path, clock, url)
    assert "secret" not in str(raised.value)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="AFTERDETAIL_STATE_DIR"):
        opened(tmp_path / "file", clock)
