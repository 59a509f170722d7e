"""The HTTP path: what it adds to the library, and how it bears too much. Loopback only.

A server with the embedded model in a process of its own, asked from this one. Figures of a shared
machine: the client's share of the processor is part of them.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import math
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

from afterdetail import Detailer, images
from afterdetail.options import DetailOptions

PHOTO = Path(__file__).parents[1] / "tests" / "data" / "photos" / "skimage_astronaut.png"
JSON = {"Content-Type": "application/json"}
BUDGET_MS = 15
ROUNDS = 21
CLIENTS = 32
SECONDS = 30
DISCONNECTS = 300


@dataclass(frozen=True)
class Server:
    port: int
    process: psutil.Process

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, JSON)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        _, page = self.ask("GET", "/metrics")
        lines = (line.rpartition(" ") for line in page.decode().splitlines())
        return next(float(value) for key, _, value in lines if key == name)

    @property
    def processor_seconds(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)

    @property
    def megabytes(self) -> float:
        return float(self.process.memory_info().rss / 1e6)


@contextmanager
def serving(**settings: str) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    variables = {f"AFTERDETAIL_{name}": value for name, value in settings.items()}
    variables["OMP_NUM_THREADS"] = "1"  # two threads on a busy machine wait for each other
    command = [sys.executable, "-m", "afterdetail", "serve", "--models", "tiny", "--device", "cpu"]
    process = subprocess.Popen(
        [*command, "--port", str(port)], env=os.environ | variables, stderr=subprocess.DEVNULL
    )
    try:
        server = Server(port, psutil.Process(process.pid))
        wait_until_ready(server)
        yield server
    finally:
        process.terminate()
        process.wait(60)


def wait_until_ready(server: Server) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end:
        try:
            if server.ask("GET", "/health/ready")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise TimeoutError("the server did not get ready")


def photograph(side: int) -> bytes:
    tile = np.asarray(Image.open(PHOTO).convert("RGB"))
    out = io.BytesIO()
    Image.fromarray(np.tile(tile, (side // 512, side // 512, 1))).save(out, "JPEG", quality=95)
    return out.getvalue()


def request(data: bytes, **fields: object) -> bytes:
    body = {"init_image": base64.b64encode(data).decode(), "detector": "face_full_mediapipe"}
    options: dict[str, object] = {"steps": 1, "seed": 1, "max_num_detections": 1}
    return json.dumps(body | options | fields).encode()


def overhead(server: Server) -> str:
    """One picture of 1024x1024, by the library in this process and by HTTP, in turn."""
    data = photograph(1024)
    body = request(data)
    options = DetailOptions(steps=1, seed=1, max_num_detections=1)
    library: list[float] = []
    over_http: list[float] = []
    library_work: list[float] = []
    server_work: list[float] = []
    torch.set_num_threads(1)
    with Detailer("tiny", "cpu") as detailer:
        for _ in range(ROUNDS):
            began, worked = time.perf_counter(), time.process_time()
            images.encode(detailer.run(images.decode(data), options).picture, "jpeg")
            library_work.append(time.process_time() - worked)
            between, worked = time.perf_counter(), server.processor_seconds
            assert server.ask("POST", "/adetailer", body)[0] == 200
            server_work.append(server.processor_seconds - worked)
            library.append(between - began)
            over_http.append(time.perf_counter() - between)
    ours, theirs = (statistics.median(times[1:]) * 1000 for times in (library, over_http))
    work = (statistics.mean(server_work[1:]) - statistics.mean(library_work[1:])) * 1000
    extra = statistics.median(b - a for a, b in zip(library[1:], over_http[1:], strict=True)) * 1000
    return (
        f"| library, ms | {ours:.1f} |\n| HTTP, ms | {theirs:.1f} |\n"
        f"| added (median of pairs; budget {BUDGET_MS}), ms | {extra:.1f} |\n"
        f"| added, fastest run, ms | {(min(over_http) - min(library)) * 1000:.1f} |\n"
        f"| added, processor time of the server, ms | {work:.1f} |\n"
    )


def health_under_large_bodies(server: Server) -> str:
    """Ten of 20 MB at once, with a picture that is none."""
    body = request(b"x" * 15_000_000)
    times: list[float] = []
    with ThreadPoolExecutor(10) as pool:
        posts = [pool.submit(server.ask, "POST", "/adetailer", body) for _ in range(10)]
        while not all(post.done() for post in posts):
            began = time.perf_counter()
            assert server.ask("GET", "/health/live")[0] == 200
            times.append((time.perf_counter() - began) * 1000)
            time.sleep(0.005)
    statuses = Counter(post.result()[0] for post in posts)
    return (
        f"| answers to the ten | {dict(statuses)} |\n"
        f"| `/health/live` asked | {len(times)} times |\n"
        f"| p50, ms | {quantile(times, 0.5):.1f} |\n| p99, ms | {quantile(times, 0.99):.1f} |\n"
        f"| slowest, ms | {max(times):.1f} |\n"
    )


def flood(server: Server, clients: int, seconds: float) -> list[tuple[int, float]]:
    """Status and seconds of every answer; a refused client comes again after a tenth."""
    body = request(photograph(512), steps=8)
    end = time.monotonic() + seconds

    def ask(_: int) -> list[tuple[int, float]]:
        answers: list[tuple[int, float]] = []
        while time.monotonic() < end:
            began = time.perf_counter()
            status, _body = server.ask("POST", "/adetailer", body)
            answers.append((status, time.perf_counter() - began))
            if status == 429:
                time.sleep(0.1)
        return answers

    with ThreadPoolExecutor(clients) as pool:
        return [answer for answers in pool.map(ask, range(clients)) for answer in answers]


def load(server: Server) -> str:
    """As many clients as fit, then many more."""
    flood(server, 2, 3)
    peak = sum(status == 200 for status, _ in flood(server, 4, SECONDS / 2)) / (SECONDS / 2)
    before = server.megabytes
    began = time.perf_counter()
    answers = flood(server, CLIENTS, SECONDS)
    passed = time.perf_counter() - began
    statuses = Counter(status for status, _ in answers)
    refusals = [seconds * 1000 for status, seconds in answers if status == 429] or [0.0]
    slow, slowest = quantile(refusals, 0.5), quantile(refusals, 0.99)
    goodput = statuses[200] / passed
    return (
        f"| pictures a second, 4 clients | {peak:.1f} |\n"
        f"| pictures a second, {CLIENTS} clients | {goodput:.1f} ({goodput / peak:.0%}) |\n"
        f"| answers | {dict(statuses)} |\n"
        f"| refusals, p50 / p99 ms | {slow:.1f} / {slowest:.1f} |\n"
        f"| resident MB before and after | {before:.0f}, {server.megabytes:.0f} |\n"
    )


def disconnects(server: Server) -> str:
    """Clients that leave at random moments, and what is left of them."""
    draw = random.Random(1)
    body = request(photograph(512), steps=50)
    head = b"POST /adetailer HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
    message = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    before = server.megabytes
    for _ in range(DISCONNECTS):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(message[: draw.choice([100, len(message) // 2, len(message)])])
            time.sleep(draw.uniform(0, 0.05))
    end = time.monotonic() + 60
    names = ("afterdetail_queue_requests", "afterdetail_engine_jobs", "afterdetail_queue_bytes")
    while any(server.metric(name) for name in names) and time.monotonic() < end:
        time.sleep(0.1)
    left = {name.removeprefix("afterdetail_"): int(server.metric(name)) for name in names}
    files = server.process.num_fds()
    return (
        f"| left after {DISCONNECTS} | {left}, {files} open files |\n"
        f"| resident MB before and after | {before:.0f}, {server.megabytes:.0f} |\n"
    )


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


def report() -> str:
    busy = os.getloadavg()[0]
    parts: list[str] = []
    with serving(QUEUE_SECONDS="1000000", SAFETY="off") as server:
        parts += [f"## One picture of 1024x1024, JPEG\n\n| | |\n|---|---:|\n{overhead(server)}"]
        parts += [
            f"## Ten bodies of 20 MB\n\n| | |\n|---|---:|\n{health_under_large_bodies(server)}"
        ]
        parts += [f"## Clients that leave\n\n| | |\n|---|---:|\n{disconnects(server)}"]
    with serving(QUEUE_SECONDS="1", SAFETY="off") as server:
        parts += [f"## {CLIENTS} clients for {SECONDS} s\n\n| | |\n|---|---:|\n{load(server)}"]
    return (
        "# The server\n\n"
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} shared {platform.machine()} cores (load "
        f"average {busy:.1f} as this began), Python {platform.python_version()}. The embedded "
        "model, on the processor; server and clients on one machine.\n\n" + "\n".join(parts)
    )
