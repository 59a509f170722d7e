"""A source of pictures on loopback, and the server around a real detailer."""

from __future__ import annotations

import base64
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from afterdetail.config import Settings
from afterdetail.server.app import create_app
from afterdetail.server.tables import metadata

if TYPE_CHECKING:
    from afterdetail.pipeline import Detailer

PHOTOS = Path(__file__).parents[1] / "data" / "photos"

Open = Callable[[Settings], TestClient]


@pytest.fixture(scope="session")
def astronaut() -> bytes:
    """A PNG of 512x512 with one face."""
    return (PHOTOS / "skimage_astronaut.png").read_bytes()


@pytest.fixture(scope="session")
def body(astronaut: bytes) -> dict[str, object]:
    """A request that succeeds, quickly."""
    return {
        "init_image": base64.b64encode(astronaut).decode("ascii"),
        "image_encoding": "png",
        "detector": "face_full_mediapipe",
        "steps": 2,
        "seed": 1,
    }


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    """The URL of a database of this session's own on the PostgreSQL server that
    ``TEST_POSTGRES_URL`` names; ``scripts/postgres`` starts one."""
    server = os.environ.get("TEST_POSTGRES_URL")
    if not server:
        pytest.skip("no PostgreSQL: run scripts/postgres start, and set TEST_POSTGRES_URL")
    name = f"afterdetail_{secrets.token_hex(6)}"
    admin = create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def postgres(database: str) -> str:
    """The URL of an empty database."""
    engine = create_engine(database, poolclass=NullPool)
    metadata.drop_all(engine)
    return database


@pytest.fixture(scope="session")
def detailer() -> Iterator[Detailer]:
    from afterdetail.pipeline import Detailer

    with Detailer("tiny") as real:
        real.load()
        yield real


@pytest.fixture(scope="session")
def open_client(detailer: Detailer) -> Iterator[Open]:
    """A client of an application with settings of the test's own."""
    with ExitStack() as stack:
        yield lambda settings: stack.enter_context(TestClient(create_app(detailer, settings)))


@pytest.fixture(scope="session")
def client(open_client: Open) -> TestClient:
    return open_client(Settings())


@dataclass
class Source:
    """A web server on loopback that answers by path and counts what reaches it."""

    picture: bytes
    port: int = 0
    seen: list[str] = field(default_factory=list)
    hosts: list[str | None] = field(default_factory=list)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


@pytest.fixture
def source(astronaut: bytes) -> Iterator[Source]:
    here = Source(astronaut)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            here.seen.append(self.path)
            here.hosts.append(self.headers["Host"])
            with suppress(ConnectionError):  # the fetcher had enough
                respond(self, here)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    here.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield here
    server.shutdown()
    server.server_close()


def respond(handler: BaseHTTPRequestHandler, source: Source) -> None:
    """What each path of the source does."""
    path, _, query = handler.path.partition("?")
    answers: dict[str, Callable[[], None]] = {
        "/picture": lambda: send(handler, 200, source.picture),
        "/redirect": lambda: send(handler, 302, b"", {"Location": query}),
        "/loop": lambda: send(handler, 302, b"", {"Location": "/loop"}),
        "/compressed": lambda: send(handler, 200, b"\x1f\x8b", {"Content-Encoding": "gzip"}),
        "/empty": lambda: send(handler, 200, b""),
        "/text": lambda: send(handler, 200, b"<html></html>"),
        "/cut": lambda: send(handler, 200, b"half", {"Content-Length": "8"}),
        "/declared": lambda: send(handler, 200, b"", {"Content-Length": "999999999"}),
        "/endless": lambda: endless(handler, b"x" * 65536, pause=0),
        "/drip": lambda: endless(handler, b"x", pause=0.05),
        "/hang": lambda: time.sleep(3),
    }
    if path in answers:
        answers[path]()
    else:
        send(handler, int(path[1:]), b"")


def send(
    handler: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict[str, str] | None = None
) -> None:
    handler.send_response(status)
    for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)


def endless(handler: BaseHTTPRequestHandler, chunk: bytes, pause: float) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(chunk)
        time.sleep(pause)
