"""What the server counts, for Prometheus."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from hmac import compare_digest

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from starlette.datastructures import Headers
from starlette.types import Scope

from afterdetail.models.stats import PoolStats
from afterdetail.results import DetailResult
from afterdetail.server.admission import Admission

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")


class Metrics:
    """One registry per application, so that two in a process do not add up."""

    def __init__(self, admission: Admission, models: Callable[[], PoolStats]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "afterdetail_requests",
            "Answered requests to detail a picture: ok, or the code of the error.",
            ["outcome"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "afterdetail_request_seconds",
            "From the first byte of a request to the last of its answer.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.stages = Histogram(
            "afterdetail_stage_seconds",
            "Time of one picture in each stage of the work.",
            ["stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.objects = Counter(
            "afterdetail_objects",
            "Objects found: inpainted, skipped, refused, failed.",
            ["outcome"],
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(House(admission, models))

    def saw_result(self, result: DetailResult) -> None:
        """A picture is done."""
        for item in result.objects:
            self.objects.labels(item.outcome.value).inc()
        self.saw_stages(result.timings)

    def saw_stages(self, timings: Mapping[str, float]) -> None:
        for stage, seconds in timings.items():
            self.stages.labels(stage).observe(seconds)

    def page(self) -> bytes:
        """In the text format of Prometheus."""
        return generate_latest(self.registry)


class House(Collector):
    """The queue, the engine and the models, read at the moment they are asked for."""

    def __init__(self, admission: Admission, models: Callable[[], PoolStats]) -> None:
        self._admission = admission
        self._models = models

    def collect(self) -> Iterator[Metric]:
        house, engine, pool = self._admission, self._admission.engine(), self._models()
        gauges: Iterable[tuple[str, str, float]] = (
            ("queue_requests", "Requests inside, waiting or at work.", house.requests),
            ("queue_work", "Row-steps a new request would wait for.", house.ahead),
            ("queue_bytes", "Bytes of all bodies inside.", house.size),
            ("engine_speed", "Row-steps a second while the engine works.", house.speed),
            ("engine_jobs", "Jobs in the engine.", engine.jobs),
            ("models", "Models in memory, those with LoRAs counted apart.", pool.models),
            ("model_bytes", "Bytes of their weights; what they share once.", pool.resident_bytes),
        )
        counters: Iterable[tuple[str, str, float]] = (
            ("engine_rows", "Rows of UNet forwards.", engine.rows),
            ("engine_capacity_rows", "Rows they could have had: rows / this is the fill.",
             engine.capacity),
            ("engine_forwards", "UNet forwards: busy seconds / this is the step time.",
             engine.forwards),
            ("engine_busy_seconds", "Time spent in ticks.", engine.busy_seconds),
            ("engine_jobs_done", "Jobs that gave a picture.", engine.jobs_done),
            ("engine_jobs_failed", "Jobs that failed or ran out of time.", engine.jobs_failed),
            ("model_loads", "Models read into memory, or given LoRAs.", pool.loads),
            ("model_load_seconds", "Time spent in that.", pool.load_seconds),
        )  # fmt: skip
        for name, text, value in gauges:
            yield GaugeMetricFamily(f"afterdetail_{name}", text, value)
        for name, text, value in counters:
            yield CounterMetricFamily(f"afterdetail_{name}", text, value)


def may_read(scope: Scope, token: str) -> bool:
    """Whether a request may see the metrics: from this machine itself, or with their token.

    A proxy on this machine speaks for others; it says so in its headers.
    """
    headers = Headers(scope=scope)
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if token and scheme.lower() == "bearer":
        return compare_digest(_digest(given.strip()), _digest(token))
    if any(name in headers for name in FORWARDED):
        return False
    try:
        return ipaddress.ip_address((scope.get("client") or ("",))[0]).is_loopback
    except ValueError:
        return False


def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "replace")).digest()
