"""The tables of the asynchronous form, in SQLite or PostgreSQL: what there is, and whose it is."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy import (
    Column,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    make_url,
    update,
)
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from afterdetail.errors import AfterdetailError

metadata = MetaData()

responses = Table(
    "responses",
    metadata,
    Column("id", String, primary_key=True),
    Column("client", String, nullable=False),
    Column("state", String, nullable=False),
    Column("size", Integer, nullable=False),
    Column("finished", Float(53)),
    Column("status", Integer),
    Column("headers", String),
)
webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String, primary_key=True),
    Column("url", String, nullable=False),
    Column("attempts", Integer, nullable=False),
)
leases = Table(
    "leases",
    metadata,
    Column("id", String, primary_key=True),
    Column("server", String, nullable=False),
    Column("until", Float(53), nullable=False),
    Column("accepted", Float(53), nullable=False),
)
"""Which server sees to a job, its webhook included, and until when nobody else may."""


class StoreUnavailable(AfterdetailError):
    """The folder or the database cannot be used."""

    status, code = 503, "store_unavailable"


def unavailable(message: str) -> StoreUnavailable:
    return StoreUnavailable(message, public="the asynchronous form is not available here now")


def open_folder(folder: Path) -> Engine:
    """The SQLite database of one server alone: its exclusive lock sees to that.

    Raises:
        StoreUnavailable: another server uses the folder, or it cannot be written.
    """
    engine = None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        engine = create_engine(
            f"sqlite:///{folder / 'responses.sqlite'}",
            poolclass=StaticPool,
            connect_args={"check_same_thread": False, "timeout": 1},
        )
        event.listen(engine, "connect", _exclusive)
        metadata.create_all(engine)
        with engine.begin() as database:
            database.execute(update(responses).values(state=responses.c.state))  # locks it now
    except (OSError, SQLAlchemyError) as error:
        if engine is not None:
            engine.dispose()
        problem = getattr(error, "orig", error)
        raise unavailable(
            f"AFTERDETAIL_STATE_DIR {folder}: {problem}; give each server a folder of its own "
            "that it can write"
        ) from None
    return engine


def _exclusive(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = WAL")


def open_database(url: str) -> Engine:
    """A database that several servers share.

    Raises:
        StoreUnavailable: it cannot be reached, or the URL is none that is understood.
    """
    try:
        engine = create_engine(make_url(url), pool_pre_ping=True)
        metadata.create_all(engine)
    except (ArgumentError, NoSuchModuleError, ImportError):
        raise unavailable(
            "AFTERDETAIL_STATE_URL is not understood; write it as "
            "postgresql+pg8000://user:password@host/database, and install afterdetail[postgres]"
        ) from None
    except SQLAlchemyError as error:
        raise unavailable(f"AFTERDETAIL_STATE_URL: {type(error).__name__}") from None
    return engine
