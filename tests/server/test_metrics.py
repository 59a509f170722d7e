"""What is counted, who may see it, and what the log says of a request."""

from __future__ import annotations

import json
import logging
from concurrent.futures import Future
from typing import Any

import pytest
from fastapi.testclient import TestClient

from afterdetail.config import Settings, parse_tokens
from afterdetail.server.app import create_app
from afterdetail.server.logs import JsonLines, TextLines
from afterdetail.server.metrics import may_read

HERE = ("127.0.0.1", 5)
ELSEWHERE = ("192.0.2.1", 5)


@pytest.mark.parametrize(
    ("client", "headers", "token", "allowed"),
    [
        (HERE, {}, "", True),
        (("::1", 5), {}, "", True),
        (ELSEWHERE, {}, "", False),
        (None, {}, "", False),
        (HERE, {"x-forwarded-for": "192.0.2.1"}, "", False),
        (HERE, {"forwarded": "for=192.0.2.1"}, "", False),
        (ELSEWHERE, {"authorization": "Bearer right"}, "right", True),
        (ELSEWHERE, {"authorization": "Bearer wrong"}, "right", False),
        (HERE, {"authorization": "Bearer wrong"}, "right", False),
        (ELSEWHERE, {"authorization": "Bearer "}, "", False),
    ],
)
def test_who_may_read_them(client: Any, headers: dict[str, str], token: str, allowed: bool) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert may_read({"type": "http", "client": client, "headers": raw}, token) is allowed


@pytest.fixture
def counted() -> TestClient:
    settings = Settings(metrics_token="for-prometheus", tokens=parse_tokens("anna:12345678"))
    return TestClient(create_app(Future(), settings))


def lines(client: TestClient) -> dict[str, float]:
    page = client.get("/metrics", headers={"Authorization": "Bearer for-prometheus"})
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/plain")
    pairs = (line.rpartition(" ") for line in page.text.splitlines() if line[0] != "#")
    return {name: float(value) for name, _, value in pairs}


def test_a_clients_token_is_none_for_them(counted: TestClient) -> None:
    for headers in ({}, {"Authorization": "Bearer 12345678"}):
        assert counted.get("/metrics", headers=headers).status_code == 401


def test_requests_are_counted_by_outcome(counted: TestClient) -> None:
    counted.post("/adetailer", content=b"{}")
    counted.post("/adetailer", content=b"{}", headers={"Authorization": "Bearer 12345678"})
    seen = lines(counted)
    assert seen['afterdetail_requests_total{outcome="unauthorized"}'] == 1
    assert seen['afterdetail_requests_total{outcome="loading"}'] == 1
    assert seen["afterdetail_request_seconds_count"] == 2
    assert seen["afterdetail_queue_requests"] == seen["afterdetail_engine_rows_total"] == 0


def test_the_log_of_a_request(counted: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "afterdetail.access"):
        headers = {"Authorization": "Bearer 12345678", "X-Request-ID": "mine"}
        counted.post("/adetailer", json={"prompt": "a secret"}, headers=headers)
        counted.get("/health/live")
    (record,) = (record for record in caplog.records if record.name == "afterdetail.access")
    line = json.loads(JsonLines().format(record))
    assert line["request_id"] == "mine"
    assert line["client"] == "anna"
    assert (line["status"], line["outcome"]) == (503, "loading")
    assert "secret" not in str(line)
    assert "12345678" not in str(line)
    text = TextLines().format(record)
    assert "request_id=mine" in text
    assert "\n" not in text
