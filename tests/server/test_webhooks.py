"""Messages about completed jobs, to a real web server on loopback."""

from __future__ import annotations

import base64
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient

from afterdetail.config import Settings, load_settings
from afterdetail.errors import InvalidInput
from afterdetail.server import later, webhooks
from afterdetail.server.app import create_app
from afterdetail.server.responses import MOST_CLAIMED, Answer, Responses
from afterdetail.server.tables import StoreUnavailable
from afterdetail.server.webhooks import signed

if TYPE_CHECKING:
    from afterdetail.pipeline import Detailer

Body = dict[str, object]

KEY = bytes(range(24))


@dataclass
class Receiver:
    """A client's web server, which answers with ``statuses`` in turn, then 204."""

    port: int = 0
    statuses: list[int] = field(default_factory=list)
    seen: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/told"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    here = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            here.seen.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(here.statuses.pop(0) if here.statuses else 204)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    here.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield here
    server.shutdown()
    server.server_close()


@pytest.fixture
def settings(tmp_path: Path, receiver: Receiver) -> Settings:
    return Settings(
        state_dir=tmp_path,
        webhook_secret=KEY,
        url_ports=(receiver.port,),
        allow_private_urls=True,
    )


def accepted(client: TestClient, body: Body, url: str) -> str:
    response = client.post("/adetailer", json=body, headers={"X-Afterdetail-Webhook": url})
    assert response.status_code == 200, response.text
    return str(response.json()["response_id"])


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_the_signature_is_that_of_standard_webhooks() -> None:
    headers = signed(KEY, "msg_1", b'{"a": 1}', now=1674087231.9)
    mac = hmac.new(KEY, b'msg_1.1674087231.{"a": 1}', sha256).digest()
    assert headers == {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1674087231",
        "webhook-signature": "v1," + base64.b64encode(mac).decode(),
    }


def test_a_completed_job_is_told_of_once(
    detailer: Detailer, body: Body, settings: Settings, receiver: Receiver
) -> None:
    with TestClient(create_app(detailer, settings)) as client:
        number = accepted(client, body, receiver.url)
        wait_until(lambda: bool(receiver.seen))
        poll = client.get(f"/adetailer/responses/{number}").json()
    ((headers, message),) = receiver.seen
    assert json.loads(message) == {"response_id": number, "status": "completed"}
    assert poll["status"] == "completed"
    stamp = float(headers["webhook-timestamp"])
    assert abs(time.time() - stamp) < 60
    assert headers.items() >= signed(KEY, number, message, stamp).items()
    with TestClient(create_app(detailer, settings)):
        time.sleep(0.2)
    assert len(receiver.seen) == 1


def test_a_failed_job_is_completed_too(
    detailer: Detailer, body: Body, settings: Settings, receiver: Receiver
) -> None:
    with TestClient(create_app(detailer, settings)) as client:
        accepted(client, body | {"checkpoint": "nosuch"}, receiver.url)
        wait_until(lambda: bool(receiver.seen))


@pytest.mark.parametrize("statuses", [[500, 404], [302, 302]])
def test_it_is_sent_again_until_it_is_taken(
    detailer: Detailer,
    body: Body,
    settings: Settings,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    statuses: list[int],
) -> None:
    monkeypatch.setattr(webhooks, "WAITS", (0.0, 0.01, 0.01, 0.01))
    receiver.statuses = list(statuses)
    with TestClient(create_app(detailer, settings)) as client:
        accepted(client, body, receiver.url)
        wait_until(lambda: len(receiver.seen) == 3)
        time.sleep(0.1)
    assert len(receiver.seen) == 3
    assert len({headers["webhook-id"] for headers, _ in receiver.seen}) == 1


def test_it_is_given_up_in_the_end(
    detailer: Detailer,
    body: Body,
    settings: Settings,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhooks, "WAITS", (0.0, 0.01))
    receiver.statuses = [500] * 9
    with TestClient(create_app(detailer, settings)) as client:
        accepted(client, body, receiver.url)
        wait_until(lambda: len(receiver.seen) == 2)
        time.sleep(0.1)
    assert len(receiver.seen) == 2


def test_a_restart_does_not_lose_it(
    detailer: Detailer,
    body: Body,
    settings: Settings,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhooks, "WAITS", (0.0, 1000.0, 0.0))
    receiver.statuses = [500]
    with TestClient(create_app(detailer, settings)) as client:
        accepted(client, body, receiver.url)
        wait_until(lambda: len(receiver.seen) == 1)
        time.sleep(0.1)  # so that the failure is written down
    monkeypatch.setattr(webhooks, "WAITS", (1000.0, 0.0, 0.0))
    with TestClient(create_app(detailer, settings)):
        wait_until(lambda: len(receiver.seen) == 2)


def undelivered(settings: Settings, url: str, count: int) -> set[str]:
    """What a server leaves that ends before it has told of ``count`` completed jobs."""
    with closing(Responses(settings.state_dir, max_bytes=10**6, seconds=1000)) as store:
        numbers = {store.add("", b"1", url) for _ in range(count)}
        for number in numbers:
            store.finish(number, Answer(200, {}, b"{}"))
    return numbers


def test_a_restart_loses_none_of_many(
    detailer: Detailer, settings: Settings, receiver: Receiver
) -> None:
    numbers = undelivered(settings, receiver.url, 2 * MOST_CLAIMED + 1)
    with TestClient(create_app(detailer, settings)):
        wait_until(lambda: len(receiver.seen) == len(numbers))
    assert {headers["webhook-id"] for headers, _ in receiver.seen} == numbers


@pytest.mark.parametrize("step", ["webhook", "attempted", "delivered"])
def test_it_is_sent_though_the_store_fails_in_between(
    detailer: Detailer,
    settings: Settings,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    monkeypatch.setattr(later, "LEASE", 0.3)
    monkeypatch.setattr(webhooks, "WAITS", (0.0, 0.01, 0.01))
    delivered = Responses.delivered
    failures = [StoreUnavailable("the database is gone")]
    done: list[str] = []

    def fails_once(*given: object) -> object:
        if failures:
            raise failures.pop()
        return works(*given)

    def recorded(store: Responses, number: str) -> None:
        delivered(store, number)
        done.append(number)

    monkeypatch.setattr(Responses, "delivered", recorded)
    works = getattr(Responses, step)
    monkeypatch.setattr(Responses, step, fails_once)
    (number,) = undelivered(settings, receiver.url, 1)
    receiver.statuses = [500]
    with TestClient(create_app(detailer, settings)):
        wait_until(lambda: done == [number])
    assert not failures
    assert len(receiver.seen) >= 2


@pytest.mark.parametrize(
    ("changes", "url", "code"),
    [
        ({"webhook_secret": b""}, "https://example.org/", "webhook_disabled"),
        ({}, "", "url_invalid"),
        ({}, "ftp://example.org/", "url_invalid"),
        ({}, "http://user:password@example.org/", "url_invalid"),
        ({}, "http://example.org:22/", "url_blocked"),
    ],
)
def test_what_will_never_be_sent_is_refused(
    detailer: Detailer, body: Body, settings: Settings, changes: Body, url: str, code: str
) -> None:
    app = create_app(detailer, settings.model_copy(update=changes))
    with TestClient(app) as client:
        response = client.post("/adetailer", json=body, headers={"X-Afterdetail-Webhook": url})
    assert response.status_code == 422
    (problem,) = response.json()["detail"]
    assert (problem["loc"], problem["type"]) == (["header", "x-afterdetail-webhook"], code)


def test_addresses_that_are_not_public_get_no_packet(
    detailer: Detailer,
    body: Body,
    settings: Settings,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(webhooks, "WAITS", (0.0,))
    strict = settings.model_copy(update={"allow_private_urls": False})
    with TestClient(create_app(detailer, strict)) as client:
        accepted(client, body, receiver.url)
        wait_until(lambda: "public internet" in caplog.text)
    assert receiver.seen == []


@pytest.mark.parametrize("text", ["secret", "whsec_short", "whsec_" + "é" * 40, "AAAA" * 10])
def test_a_weak_secret_is_refused_and_not_repeated(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFTERDETAIL_WEBHOOK_SECRET", text)
    with pytest.raises(InvalidInput, match="AFTERDETAIL_WEBHOOK_SECRET") as caught:
        load_settings()
    assert text not in str(caught.value)


def test_the_secret_is_read_as_standard_webhooks_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "whsec_" + base64.b64encode(KEY).decode()
    monkeypatch.setenv("AFTERDETAIL_WEBHOOK_SECRET", text)
    settings = load_settings()
    assert settings.webhook_secret == KEY
    assert base64.b64encode(KEY).decode() not in repr(settings)
