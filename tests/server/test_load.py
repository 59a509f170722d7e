"""More than there is room for, and clients that leave: over real sockets, in this process."""

from __future__ import annotations

import base64
import io
import json
import math
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image

from afterdetail.config import Settings, parse_tokens
from afterdetail.server.app import create_app
from afterdetail.types import RGB

if TYPE_CHECKING:
    from afterdetail.pipeline import Detailer
    from afterdetail.server.service import Service

Body = dict[str, object]

SLOW: Body = {"steps": 200, "strength": 1, "sampler": "DDPM"}


@dataclass(frozen=True)
class Running:
    port: int
    service: Service
    client: httpx.Client

    def post(self, body: Body, **headers: str) -> httpx.Response:
        return self.client.post("/adetailer", json=body, headers=headers)

    def health(self) -> float:
        """Seconds until `/health/live` has answered."""
        began = time.perf_counter()
        assert self.client.get("/health/live").status_code == 200
        return time.perf_counter() - began

    def send(self, body: Body) -> socket.socket:
        """A request whose client does not read the answer."""
        content = json.dumps(body).encode()
        connection = socket.create_connection(("127.0.0.1", self.port))
        head = "POST /adetailer HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        return connection

    @property
    def empty(self) -> bool:
        """Whether nothing of any request is left."""
        service = self.service
        engine = service.loaded().engine.stats
        return not (service.admission.requests or service.tasks or engine.jobs)


@contextmanager
def running(detailer: Detailer, settings: Settings) -> Iterator[Running]:
    app = create_app(detailer, settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield Running(port, app.state.service, client)
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def slow(body: Body) -> Body:
    return body | SLOW


def test_row_23_a_full_queue_is_told_at_once(detailer: Detailer, body: Body, slow: Body) -> None:
    with running(detailer, Settings(queue_work=1)) as server:
        held = server.send(slow)
        wait_until(lambda: detailer.engine.stats.jobs > 0)
        times: list[float] = []
        for _ in range(5):
            began = time.perf_counter()
            answer = server.post(body)
            times.append(time.perf_counter() - began)
            assert answer.status_code == 429
            assert answer.json()["code"] == "queue_full"
            assert int(answer.headers["Retry-After"]) >= 1
        assert min(times) < 0.1
        held.close()
        wait_until(lambda: server.empty)
        assert server.post(body).status_code == 200


def test_row_25_a_client_that_leaves_takes_its_jobs_along(detailer: Detailer, slow: Body) -> None:
    with running(detailer, Settings()) as server:
        connection = server.send(slow)
        wait_until(lambda: detailer.engine.stats.jobs > 0)
        before = detailer.engine.stats.rows
        connection.close()
        wait_until(lambda: server.empty, seconds=5)
        assert detailer.engine.stats.rows - before < 200


def test_row_25_nothing_is_left_after_many_of_them(
    detailer: Detailer, body: Body, slow: Body
) -> None:
    draw = random.Random(1)
    with running(detailer, Settings(threads=2)) as server:
        for _ in range(60):
            connection = server.send(slow)
            time.sleep(draw.uniform(0, 0.05))
            connection.close()
        wait_until(lambda: server.empty)
        assert server.service.turns.waiting == 0
        assert server.post(body).status_code == 200


def test_row_24_the_jobs_of_a_late_request_stop(detailer: Detailer, slow: Body) -> None:
    with running(detailer, Settings(request_timeout=0.3)) as server:
        answer = server.post(slow)
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
        wait_until(lambda: server.empty, seconds=5)


def test_one_clients_many_requests_do_not_keep_another_waiting(
    detailer: Detailer, body: Body, slow: Body
) -> None:
    tokens = parse_tokens("anna:12345678,bert:abcdefgh")
    with running(detailer, Settings(tokens=tokens, threads=1, queue_seconds=1e6)) as server:
        finished: list[str] = []

        def ask(client: str, secret: str, asked: Body) -> None:
            assert server.post(asked, Authorization=f"Bearer {secret}").status_code == 200
            finished.append(client)

        with ThreadPoolExecutor(5) as pool:
            pool.submit(ask, "anna", "12345678", slow | {"steps": 30})
            wait_until(lambda: detailer.engine.stats.jobs > 0)
            for _ in range(3):
                pool.submit(ask, "anna", "12345678", body)
            wait_until(lambda: server.service.turns.waiting == 3)
            pool.submit(ask, "bert", "abcdefgh", body)
        assert finished == ["anna", "bert", "anna", "anna", "anna"]


def test_row_21_many_objects_do_not_keep_another_waiting(
    detailer: Detailer, astronaut: bytes, body: Body, slow: Body
) -> None:
    """Three faces and one, which came after them and is done before."""
    tile = np.asarray(Image.open(io.BytesIO(astronaut)).convert("RGB"))
    out = io.BytesIO()
    Image.fromarray(np.tile(tile, (2, 2, 1))).save(out, "JPEG")
    crowd = slow | {"init_image": base64.b64encode(out.getvalue()).decode()}
    crowd |= {"max_num_detections": 3}
    with running(detailer, Settings(queue_seconds=1e6)) as server:
        held = server.send(crowd)
        wait_until(lambda: detailer.engine.stats.jobs == 3)
        assert server.post(body).status_code == 200
        assert detailer.engine.stats.jobs == 3
        held.close()
        wait_until(lambda: server.empty)


@pytest.mark.parametrize(("deterministic", "most"), [(False, 1), (True, 0)])
def test_row_36_a_request_gives_the_same_alone_and_among_20_others(
    body: Body, deterministic: bool, most: int
) -> None:
    from afterdetail.pipeline import Detailer

    others = [
        body | {"seed": 100 + n, "steps": 2 + n % 3, "cfg_scale": 1 + n % 2} for n in range(20)
    ]
    with (
        Detailer("tiny", deterministic=deterministic) as own,
        running(own, Settings(queue_seconds=1e6)) as server,
        ThreadPoolExecutor(21) as pool,
    ):
        alone = pixels(server.post(body))
        crowd = [pool.submit(server.post, each) for each in [*others[:10], body, *others[10:]]]
        among = pixels(crowd[10].result())
        assert all(each.result().status_code == 200 for each in crowd)
    assert np.abs(alone.astype(int) - among).max() <= most


def pixels(response: httpx.Response) -> RGB:
    assert response.status_code == 200, response.text
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(response.json()["image_b64"]))))


def test_a_token_has_a_rate(detailer: Detailer, body: Body) -> None:
    tokens = parse_tokens("anna:12345678")
    with running(detailer, Settings(tokens=tokens, requests_per_minute=1)) as server:
        first, second = (server.post(body, Authorization="Bearer 12345678") for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 429)
    assert second.json()["code"] == "rate_limited"
    assert 1 <= int(second.headers["Retry-After"]) <= 60


def test_health_answers_while_large_requests_arrive(detailer: Detailer, body: Body) -> None:
    """Ten of 20 MB, each a picture that is none: parsed and decoded, then refused."""
    large = body | {"init_image": base64.b64encode(b"x" * 15_000_000).decode()}
    content = json.dumps(large).encode()
    settings = Settings(queue_seconds=1e6)
    with running(detailer, settings) as server, ThreadPoolExecutor(10) as pool:
        headers = {"Content-Type": "application/json"}
        posts = [
            pool.submit(server.client.post, "/adetailer", content=content, headers=headers)
            for _ in range(10)
        ]
        times: list[float] = []
        while not all(post.done() for post in posts):
            times.append(server.health())
        assert {post.result().status_code for post in posts} == {422}
    times.sort()
    assert times[math.ceil(len(times) * 0.99) - 1] < 1  # measured alone: see the benchmark
