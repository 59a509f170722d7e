"""Where the asynchronous form keeps its jobs: an SQLite table, and a file for each large thing.

The table says what there is; a file without a row is nobody's and is removed at the next start. One
server has a folder for itself: SQLite's exclusive lock sees to that.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from afterdetail.errors import AfterdetailError, QueueFull

TABLES = """
CREATE TABLE IF NOT EXISTS webhooks (
    id TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    attempts INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY,
    client TEXT NOT NULL,
    state TEXT NOT NULL,
    size INTEGER NOT NULL,
    finished REAL,
    status INTEGER,
    headers TEXT
);
"""
REMEMBERED = 30 * 86400
"""Seconds for which an expired id is answered 410; then nothing is known of it."""
FULL_FOR = 60
"""Seconds after which a full store is worth another try: it empties as results expire."""


class State(StrEnum):
    """What the client is told of a job."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"


class NoSuchResponse(AfterdetailError):
    """Never made, or by another client, or not completed yet."""

    status, code = 404, "not_found"


class StoreUnavailable(AfterdetailError):
    """The folder cannot be used."""

    status, code = 503, "store_unavailable"


class ResponseExpired(AfterdetailError):
    status, code = 410, "expired"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the synchronous form would have answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A job to run again after a restart."""

    id: str
    client: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Webhook:
    """Whom to tell of a completed job, and how often that has failed."""

    url: str
    attempts: int


class Responses:
    """Jobs and results, on disk. Thread-safe; every call blocks for a moment.

    Args:
        folder: made if it is missing.
        max_bytes: of all files; a job beyond it is refused.
        seconds: how long a result is kept.

    Raises:
        StoreUnavailable: another server uses the folder, or it cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._table = _open(folder)
        self._remove_strays()

    def close(self) -> None:
        with self._lock:
            self._table.close()

    def add(self, client: str, body: bytes, webhook: str = "") -> str:
        """Keep a request; returns the id of its response.

        Args:
            webhook: the URL to tell when it is completed; empty for none.

        Raises:
            QueueFull: no room for it.
        """
        with self._lock:
            self._expire()
            if self._used() + len(body) > self._max_bytes:
                raise QueueFull("the store of results is full", retry_after=FULL_FOR)
            number = uuid.uuid4().hex
            self._request(number).write_bytes(body)
            self._table.execute(
                "INSERT INTO responses (id, client, state, size) VALUES (?, ?, ?, ?)",
                (number, client, State.PENDING, len(body)),
            )
            if webhook:
                self._table.execute("INSERT INTO webhooks VALUES (?, ?, 0)", (number, webhook))
            return number

    def state(self, number: str, client: str) -> State:
        """How far a job is.

        Raises:
            NoSuchResponse, ResponseExpired: it is not there for this client.
        """
        with self._lock:
            self._expire()
            row = self._table.execute(
                "SELECT state, status FROM responses WHERE id = ? AND client = ?", (number, client)
            ).fetchone()
        if row is None:
            raise NoSuchResponse("there is no such response")
        if row[0] == State.COMPLETED and row[1] is None:
            raise ResponseExpired("this response has expired")
        return State(row[0])

    def answer(self, number: str, client: str) -> Answer:
        """What a completed job came to.

        Raises:
            NoSuchResponse, ResponseExpired: it is not there for this client, or not yet.
        """
        if self.state(number, client) is not State.COMPLETED:
            raise NoSuchResponse("this response is not completed yet")
        with self._lock:
            status, headers = self._table.execute(
                "SELECT status, headers FROM responses WHERE id = ?", (number,)
            ).fetchone()
            return Answer(status, json.loads(headers), self._result(number).read_bytes())

    def start(self, number: str) -> None:
        with self._lock:
            self._table.execute(
                "UPDATE responses SET state = ? WHERE id = ?", (State.RUNNING, number)
            )

    def finish(self, number: str, answer: Answer) -> None:
        """Keep what a job came to. The first answer stands."""
        with self._lock:
            self._result(number).write_bytes(answer.body)
            self._table.execute(
                "UPDATE responses SET state = ?, size = ?, finished = ?, status = ?, headers = ? "
                "WHERE id = ? AND state != ?",
                (
                    *(State.COMPLETED, len(answer.body), self._clock(), answer.status),
                    *(json.dumps(dict(answer.headers)), number, State.COMPLETED),
                ),
            )
            self._request(number).unlink(missing_ok=True)

    def unfinished(self) -> list[Unfinished]:
        """The jobs that were accepted and have no answer, the oldest first."""
        with self._lock:
            rows = self._table.execute(
                "SELECT id, client FROM responses WHERE state != ? ORDER BY rowid",
                (State.COMPLETED,),
            ).fetchall()
            return [
                Unfinished(id_, client, self._request(id_).read_bytes()) for id_, client in rows
            ]

    def webhook(self, number: str) -> Webhook | None:
        """Whom to tell of a job; None if nobody is to be told, or all is said."""
        with self._lock:
            row = self._table.execute(
                "SELECT url, attempts FROM webhooks WHERE id = ?", (number,)
            ).fetchone()
        return row and Webhook(*row)

    def attempted(self, number: str) -> None:
        """Telling it has failed once more."""
        with self._lock:
            self._table.execute(
                "UPDATE webhooks SET attempts = attempts + 1 WHERE id = ?", (number,)
            )

    def delivered(self, number: str) -> None:
        """It is told, or given up."""
        with self._lock:
            self._table.execute("DELETE FROM webhooks WHERE id = ?", (number,))

    def undelivered(self) -> list[str]:
        """The completed jobs of which somebody is still to be told."""
        with self._lock:
            rows = self._table.execute(
                "SELECT id FROM webhooks JOIN responses USING (id) WHERE state = ?",
                (State.COMPLETED,),
            ).fetchall()
        return [number for (number,) in rows]

    def _expire(self) -> None:
        """Remove what is too old: first the file, much later the memory of it."""
        now = self._clock()
        old = self._table.execute(
            "SELECT id FROM responses WHERE finished < ? AND status IS NOT NULL",
            (now - self._seconds,),
        ).fetchall()
        for (number,) in old:
            self._result(number).unlink(missing_ok=True)
            self._table.execute(
                "UPDATE responses SET status = NULL, size = 0 WHERE id = ?", (number,)
            )
        self._table.execute(
            "DELETE FROM responses WHERE finished < ?", (now - self._seconds - REMEMBERED,)
        )

    def _used(self) -> int:
        return int(self._table.execute("SELECT TOTAL(size) FROM responses").fetchone()[0])

    def _remove_strays(self) -> None:
        """Files of jobs that were cut off before their row was written."""
        known = {row[0] for row in self._table.execute("SELECT id FROM responses")}
        for path in [*self._folder.glob("*.request"), *self._folder.glob("*.result")]:
            if path.stem not in known:
                path.unlink()

    def _request(self, number: str) -> Path:
        return self._folder / f"{number}.request"

    def _result(self, number: str) -> Path:
        return self._folder / f"{number}.result"


def _open(folder: Path) -> sqlite3.Connection:
    table = None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        table = sqlite3.connect(
            folder / "responses.sqlite",
            isolation_level=None,  # every statement is a transaction of its own
            check_same_thread=False,
            timeout=1,
        )
        table.execute("PRAGMA locking_mode = EXCLUSIVE")
        table.execute("PRAGMA journal_mode = WAL")
        table.executescript(TABLES)
        table.execute("UPDATE responses SET state = state")  # takes the lock now
    except (OSError, sqlite3.Error) as error:
        if table is not None:
            with suppress(sqlite3.Error):
                table.close()
        raise StoreUnavailable(
            f"AFTERDETAIL_STATE_DIR {folder}: {error}; give each server a folder of its own "
            "that it can write",
            public="the asynchronous form is not available here now",
        ) from None
    return table
