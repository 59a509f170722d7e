"""OpenTelemetry traces: a span for each request, one for its work, one for each stage of it.

Where they go to, OpenTelemetry's own variables say (``OTEL_EXPORTER_OTLP_ENDPOINT`` and the like).
Nothing of a prompt or a picture is in them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afterdetail.config import Settings
from afterdetail.errors import InvalidInput
from afterdetail.results import DetailResult
from afterdetail.server.middleware import QUIET

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span


class Traces:
    """Makes the spans. Those of a request belong to the client's trace, if it names one."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("afterdetail")

    def close(self) -> None:
        """Send what is not sent yet."""
        self._provider.shutdown()

    @contextmanager
    def request(self, scope: Scope) -> Iterator[Span]:
        """The span of a request. What is begun inside belongs to it, in other tasks too."""
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        with self._tracer.start_as_current_span(
            scope["method"],
            context=extract(dict(Headers(scope=scope))),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": scope["method"]},
            record_exception=False,
        ) as span:
            yield span

    def saw_result(self, result: DetailResult, began: int) -> None:
        """A picture is done.

        Stages are shown one after the other, though one may have run in several pieces.

        Args:
            began: nanoseconds, as ``time.time_ns``.
        """
        from opentelemetry import trace

        work = self._tracer.start_span(
            "detail",
            start_time=began,
            attributes={
                "afterdetail.objects_detected": result.num_objects_detected,
                "afterdetail.objects_inpainted": result.num_objects_inpainted,
            },
        )
        inside = trace.set_span_in_context(work)
        for stage, seconds in result.timings.items():
            ended = began + int(seconds * 1e9)
            self._tracer.start_span(stage, context=inside, start_time=began).end(ended)
            began = ended
        work.end(max(began, time.time_ns()))


class Traced:
    """Has a span around each request but those that machines ask every few seconds."""

    def __init__(self, app: ASGIApp, traces: Traces) -> None:
        self.app = app
        self.traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(QUIET):
            await self.app(scope, receive, send)
            return
        status = 0

        async def send_and_look(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        with self.traces.request(scope) as span:
            try:
                await self.app(scope, receive, send_and_look)
            finally:
                _describe(span, scope, status)


def _describe(span: Span, scope: Scope, status: int) -> None:
    """By OpenTelemetry's conventions for HTTP spans: named by the route, not by the path."""
    from opentelemetry.trace import StatusCode

    state = scope.get("state", {})
    route = getattr(scope.get("route"), "path", "")
    span.update_name(f"{scope['method']} {route}".rstrip())
    span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    span.set_attribute("afterdetail.request_id", state.get("request_id", ""))
    span.set_attribute("afterdetail.outcome", state.get("outcome", ""))
    if status >= 500:
        span.set_status(StatusCode.ERROR)


def make_traces(settings: Settings) -> Traces | None:
    """Traces to the collector that OpenTelemetry's variables name; None where they are off.

    Raises:
        InvalidInput: they are on, and the extra is not installed.
    """
    if not settings.traces:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        text = "AFTERDETAIL_TRACES needs OpenTelemetry: pip install 'afterdetail[otel]'"
        raise InvalidInput("settings_invalid", text, field="traces") from None
    name = os.environ.get("OTEL_SERVICE_NAME", "afterdetail")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traces(provider)
