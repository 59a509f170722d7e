"""Where the asynchronous form keeps its jobs: rows of a database, and a file for each large thing.

One server alone has a folder for itself, with SQLite. Several share a database and a place for
files: each job is leased to the server that accepted it, which renews the lease while it lives;
when it does not, another takes the job over. A server that fails at a job lets it go.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, delete, func, insert, or_, select, true, update
from sqlalchemy.exc import SQLAlchemyError

from afterdetail.errors import AfterdetailError, QueueFull
from afterdetail.server.files import Files
from afterdetail.server.tables import (
    StoreUnavailable,
    leases,
    open_database,
    open_folder,
    responses,
    unavailable,
    webhooks,
)

log = logging.getLogger("afterdetail.server")

REMEMBERED = 30 * 86400
"""Seconds for which an expired id is answered 410; then nothing is known of it."""
FULL_FOR = 60
"""Seconds after which a full store is worth another try: it empties as results expire."""
LEASE = 30.0
"""Seconds without a sign of life after which a server's jobs go to another. Their clocks may differ
by a few."""
MOST_CLAIMED = 32
"""Jobs taken over at a time: their bodies are in memory."""
MOST_FREED = 1000
"""Jobs let go in one statement."""
NOBODY = ""
"""The server of a job that has been let go."""


class State(StrEnum):
    """What the client is told of a job."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"


class NoSuchResponse(AfterdetailError):
    """Never made, or by another client, or not completed yet."""

    status, code = 404, "not_found"


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
    """A job of a server that is gone, to run again."""

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
        folder: of a server alone; made if it is missing.
        max_bytes: of all files; a job beyond it is refused.
        seconds: how long a result is kept.
        url: of a database that several servers share, as SQLAlchemy writes it; empty: SQLite in
            the folder.
        files: where files lie, as fsspec writes it; empty: in the folder.

    Raises:
        StoreUnavailable: another server uses the folder, or folder or database cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        seconds: float,
        clock: Callable[[], float] = time.time,
        url: str = "",
        files: str = "",
    ) -> None:
        self.shared = bool(url)
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._clock = clock
        self._server = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._given_up: set[str] = set()
        self._closed = False
        self._database = open_database(url) if url else open_folder(folder)
        self._files = Files(files or str(folder.absolute()))
        if not self.shared:
            self._remove_strays()

    def close(self) -> None:
        """Leave what is unfinished to whoever comes next."""
        with suppress(StoreUnavailable), self._begin() as database:
            mine = leases.c.server == self._server
            database.execute(update(leases).where(mine).values(until=0.0))
        with self._lock:
            self._closed = True
            self._database.dispose()

    def add(self, client: str, body: bytes, webhook: str = "") -> str:
        """Keep a request; returns the id of its response.

        Args:
            webhook: the URL to tell when it is completed; empty for none.

        Raises:
            QueueFull: no room for it.
        """
        number, now = uuid.uuid4().hex, self._clock()
        with self._begin() as database:
            self._expire(database)
            if self._used(database) + len(body) > self._max_bytes:
                raise QueueFull("the store of results is full", retry_after=FULL_FOR)
            self._files.write(f"{number}.request", body)
            lease = {"server": self._server, "until": now + LEASE, "accepted": now}
            row = {"id": number, "client": client, "state": State.PENDING, "size": len(body)}
            database.execute(insert(responses).values(row))
            database.execute(insert(leases).values(id=number, **lease))
            if webhook:
                database.execute(insert(webhooks).values(id=number, url=webhook, attempts=0))
        return number

    def state(self, number: str, client: str) -> State:
        """How far a job is.

        Raises:
            NoSuchResponse, ResponseExpired: it is not there for this client.
        """
        with self._begin() as database:
            self._expire(database)
            return State(_visible(database, number, client)["state"])

    def answer(self, number: str, client: str) -> Answer:
        """What a completed job came to.

        Raises:
            NoSuchResponse, ResponseExpired: it is not there for this client, or not yet.
        """
        with self._begin() as database:
            self._expire(database)
            row = _visible(database, number, client)
            if row["state"] != State.COMPLETED:
                raise NoSuchResponse("this response is not completed yet")
            body = self._files.read(f"{number}.result")
        return Answer(row["status"], json.loads(row["headers"]), body)

    def start(self, number: str) -> None:
        with self._begin() as database:
            pending = and_(responses.c.id == number, responses.c.state == State.PENDING)
            database.execute(update(responses).where(pending).values(state=State.RUNNING))

    def finish(self, number: str, answer: Answer) -> None:
        """Keep what a job came to. The first answer stands."""
        with self._begin() as database:
            row = {
                "state": State.COMPLETED,
                "size": len(answer.body),
                "finished": self._clock(),
                "status": answer.status,
                "headers": json.dumps(dict(answer.headers)),
            }
            still_open = and_(responses.c.id == number, responses.c.state != State.COMPLETED)
            done = database.execute(update(responses).where(still_open).values(row))
            if done.rowcount:  # before the row can be seen by others
                self._files.write(f"{number}.result", answer.body)
            untold = select(webhooks.c.id).where(webhooks.c.id == number)
            if database.execute(untold).first() is None:
                database.execute(delete(leases).where(leases.c.id == number))
        try:
            self._files.remove(f"{number}.request")
        except OSError as error:  # nobody reads it any more
            log.warning("%s.request stays in the store: %s", number, error)

    def let_go(self, number: str) -> None:
        """This server has failed at a job or its webhook: from the next :meth:`renew` on, whoever
        claims it may try, this server too. Needs no database now."""
        self._given_up.add(number)

    def renew(self) -> None:
        """Say that this server lives, and is at work on all that it has not let go."""
        freed = list(self._given_up)[:MOST_FREED]
        with self._begin() as database:
            mine = leases.c.server == self._server
            given_up = update(leases).where(mine, leases.c.id.in_(freed))
            database.execute(given_up.values(server=NOBODY, until=0.0))
            database.execute(update(leases).where(mine).values(until=self._clock() + LEASE))
        self._given_up.difference_update(freed)

    def claim(self) -> list[Unfinished]:
        """Take over jobs that have no answer and whose server is gone, the oldest first."""
        with self._begin() as database:
            rows = self._taken_over(database, responses.c.state != State.COMPLETED)
        return [job for row in rows if (job := self._unfinished(row))]

    def claim_undelivered(self) -> list[str]:
        """Take over completed jobs of which somebody is still to be told."""
        with self._begin() as database:
            told = responses.c.id.in_(select(webhooks.c.id))
            rows = self._taken_over(database, and_(responses.c.state == State.COMPLETED, told))
        return [str(row["id"]) for row in rows]

    def webhook(self, number: str) -> Webhook | None:
        """Whom to tell of a job; None if nobody is to be told, or all is said."""
        with self._begin() as database:
            query = select(webhooks.c.url, webhooks.c.attempts).where(webhooks.c.id == number)
            row = database.execute(query).first()
        return row and Webhook(row.url, row.attempts)

    def attempted(self, number: str) -> None:
        """Telling it has failed once more."""
        with self._begin() as database:
            more = webhooks.c.attempts + 1
            database.execute(update(webhooks).where(webhooks.c.id == number).values(attempts=more))

    def delivered(self, number: str) -> None:
        """It is told, or given up."""
        with self._begin() as database:
            database.execute(delete(webhooks).where(webhooks.c.id == number))
            database.execute(delete(leases).where(leases.c.id == number))

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        """A transaction; one at a time in this process."""
        with self._lock:
            if self._closed:
                raise unavailable("the store is closed")
            try:
                with self._database.begin() as database:
                    yield database
            except (SQLAlchemyError, OSError) as error:
                raise unavailable(f"the store of results: {error}") from error

    def _taken_over(self, database: Connection, which: Any) -> list[RowMapping]:
        """Jobs whose lease is over; in a folder of one's own, all that this process has not
        accepted itself. Of two servers that see one at the same time, one gets it."""
        free = leases.c.until <= self._clock() if self.shared else true()
        nobodys = or_(leases.c.id.is_(None), and_(leases.c.server != self._server, free))
        rows = database.execute(
            select(responses.c.id, responses.c.client, leases.c.server, leases.c.until)
            .join_from(responses, leases, responses.c.id == leases.c.id, isouter=True)
            .where(which, nobodys)
            .order_by(leases.c.accepted)
            .limit(MOST_CLAIMED)
        ).mappings()
        return [row for row in rows.all() if self._lease(database, row)]

    def _unfinished(self, row: RowMapping) -> Unfinished | None:
        """A job with its request; let go where that cannot be read now."""
        try:
            body = self._files.find(f"{row['id']}.request")
        except Exception as error:  # whatever keeps the files has exceptions of its own
            log.error("%s.request cannot be read: %s", row["id"], error)
            self.let_go(row["id"])
            return None
        return Unfinished(row["id"], row["client"], body or b"")

    def _lease(self, database: Connection, row: RowMapping) -> bool:
        until = self._clock() + LEASE
        if row["server"] is None:  # of a version that knew no leases, in a folder of one's own
            new = {"id": row["id"], "server": self._server, "until": until, "accepted": 0.0}
            database.execute(insert(leases).values(new))
            return True
        seen = and_(leases.c.server == row["server"], leases.c.until == row["until"])
        taken = update(leases).where(leases.c.id == row["id"], seen)
        return bool(database.execute(taken.values(server=self._server, until=until)).rowcount)

    def _expire(self, database: Connection) -> None:
        """Remove what is too old: first the file, much later the memory of it."""
        oldest = self._clock() - self._seconds
        old = and_(responses.c.finished < oldest, responses.c.status.is_not(None))
        for number in database.scalars(select(responses.c.id).where(old)).all():
            self._files.remove(f"{number}.result")
        database.execute(update(responses).where(old).values(status=None, size=0))
        database.execute(delete(responses).where(responses.c.finished < oldest - REMEMBERED))

    def _used(self, database: Connection) -> int:
        return int(database.scalar(select(func.coalesce(func.sum(responses.c.size), 0))) or 0)

    def _remove_strays(self) -> None:
        """Files of jobs that were cut off before their row was written."""
        with self._begin() as database:
            known = set(database.scalars(select(responses.c.id)))
        for name in self._files.names():
            if name.endswith((".request", ".result")) and name.split(".")[0] not in known:
                self._files.remove(name)


def _visible(database: Connection, number: str, client: str) -> RowMapping:
    """The row of a job, for the client that made it."""
    mine = and_(responses.c.id == number, responses.c.client == client)
    row = database.execute(select(responses).where(mine)).mappings().first()
    if row is None:
        raise NoSuchResponse("there is no such response")
    if row["state"] == State.COMPLETED and row["status"] is None:
        raise ResponseExpired("this response has expired")
    return row
