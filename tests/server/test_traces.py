"""Spans as an exporter gets them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient

from afterdetail.config import Settings
from afterdetail.errors import InvalidInput
from afterdetail.server.app import create_app
from afterdetail.server.traces import Traces, make_traces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace import ReadableSpan

    from afterdetail.pipeline import Detailer

Body = dict[str, object]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


class Collected:
    """A server with traces, and what they come to."""

    def __init__(self, detailer: Detailer) -> None:
        pytest.importorskip("opentelemetry.sdk")
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.client = TestClient(create_app(detailer, Settings(), Traces(provider)))

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._exporter.get_finished_spans()}


@pytest.fixture
def collected(detailer: Detailer) -> Iterator[Collected]:
    collected = Collected(detailer)
    with collected.client:
        yield collected


def test_a_request_its_work_and_its_stages(collected: Collected, body: Body) -> None:
    answer = collected.client.post("/adetailer", json=body | {"prompt": "a secret"})
    assert answer.status_code == 200
    spans = collected.spans
    request, work = spans.pop("POST /adetailer"), spans.pop("detail")
    assert request.parent is None
    assert work.parent is not None
    assert work.parent.span_id == request.context.span_id
    assert spans.keys() >= {"detect", "mask", "inpaint", "composite"}
    for stage in spans.values():
        assert stage.parent is not None
        assert stage.parent.span_id == work.context.span_id
        times = (work.start_time, stage.start_time, stage.end_time, work.end_time)
        assert list(times) == sorted(time for time in times if time)
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["afterdetail.request_id"] == answer.headers["X-Request-ID"]
    assert "secret" not in "".join(span.to_json() for span in (request, work, *spans.values()))


def test_a_clients_trace_is_gone_on_with(collected: Collected, body: Body) -> None:
    collected.client.post("/adetailer", json=body, headers=PARENT)
    assert {f"{span.context.trace_id:032x}" for span in collected.spans.values()} == {TRACE}


@pytest.mark.parametrize(
    ("path", "name", "status", "outcome"),
    [
        ("/adetailer", "POST /adetailer", 422, "invalid"),
        ("/no/such/page", "POST", 404, "not_found"),
    ],
)
def test_refusals(collected: Collected, path: str, name: str, status: int, outcome: str) -> None:
    """A path that somebody made up is no span's name."""
    collected.client.post(path, json={})
    ((found, span),) = collected.spans.items()
    assert (found, span.attributes and span.attributes["http.response.status_code"]) == (
        name,
        status,
    )
    assert span.attributes
    assert span.attributes["afterdetail.outcome"] == outcome


def test_health_has_none(collected: Collected) -> None:
    collected.client.get("/health/live")
    assert collected.spans == {}


def test_they_are_off_unless_asked_for() -> None:
    assert make_traces(Settings()) is None


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(InvalidInput, match=r"pip install 'afterdetail\[otel\]'"):
        make_traces(Settings(traces=True))


def test_with_it_they_go_to_a_collector() -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    traces = make_traces(Settings(traces=True))
    assert traces is not None
    traces.close()
