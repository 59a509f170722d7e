"""The HTTP path: what it adds to the library, and how it bears too much. Loopback only.

    python -m benchmarks server                        five minutes, to results/server.md
    python -m benchmarks.server --minutes 20           memory over time, to results/server_memory.md

A server with the embedded model in a process of its own, asked from this one. Figures of a shared
machine: the client's share of the processor is part of them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from afterdetail import Detailer, images
from afterdetail.options import DetailOptions
from afterdetail.server.run import SWITCH_SECONDS
from benchmarks.abuse import damaged_files, disconnects, made_up_requests
from benchmarks.heading import heading
from benchmarks.serving import Server, photograph, quantile, request, serving, table

RESULTS = Path(__file__).with_name("results")
OVERHEAD_MS = 15
LIVE_MS = 100
ROUNDS = 41
CLIENTS = 32
FEW = 4
"""Clients that keep the engine busy, two jobs at a time, and none of which is refused."""
PEAK_SECONDS = 40
LOAD_SECONDS = 120
SETTLED = 5
"""Seconds until as many leave as come in."""
QUEUE = {"QUEUE_SECONDS": "2"}
NO_QUEUE = {"QUEUE_SECONDS": "1000000"}


def overhead(server: Server) -> str:
    """One picture of 1024x1024, by the library in this process and by HTTP, in turn."""
    data = photograph(1024)
    body = request(data)
    options = DetailOptions(steps=1, seed=1, max_num_detections=1)
    library: list[float] = []
    over_http: list[float] = []
    library_work: list[float] = []
    server_work: list[float] = []
    sys.setswitchinterval(SWITCH_SECONDS)  # as the server has it, and its backend
    with Detailer("tiny", "cpu", backend="auto") as detailer:
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
    work = (statistics.median(server_work[1:]) - statistics.median(library_work[1:])) * 1000
    extra = statistics.median(b - a for a, b in zip(library[1:], over_http[1:], strict=True)) * 1000
    return table(
        {
            "library, ms": f"{ours:.1f}",
            "HTTP, ms": f"{theirs:.1f}",
            f"added, median of {ROUNDS - 1} pairs (limit {OVERHEAD_MS}), ms": f"{extra:.1f}",
            "added, fastest run, ms": f"{(min(over_http) - min(library)) * 1000:.1f}",
            "added, processor time of the server, ms": f"{work:.1f}",
        }
    )


def health_under_large_bodies(server: Server) -> str:
    """Ten of 20 MB at once, with a picture that is none; three times."""
    body = request(b"x" * 15_000_000)
    times: list[float] = []
    statuses: Counter[int] = Counter()
    for _ in range(3):
        with ThreadPoolExecutor(10) as pool:
            posts = [pool.submit(server.ask, "POST", "/adetailer", body) for _ in range(10)]
            while not all(post.done() for post in posts):
                began = time.perf_counter()
                assert server.ask("GET", "/health/live")[0] == 200
                times.append((time.perf_counter() - began) * 1000)
                time.sleep(0.005)
        statuses.update(post.result()[0] for post in posts)
    return table(
        {
            "answers to the bodies": dict(statuses),
            "`/health/live` asked": f"{len(times)} times",
            "p50, ms": f"{quantile(times, 0.5):.1f}",
            f"p99 (limit {LIVE_MS}), ms": f"{quantile(times, 0.99):.1f}",
            "slowest, ms": f"{max(times):.1f}",
        }
    )


@dataclass(frozen=True)
class Answer:
    """``at`` and ``seconds`` are when it came, since the beginning, and how long it took."""

    status: int
    at: float
    seconds: float


def flood(server: Server, clients: int, seconds: float, rate: float = 0) -> list[Answer]:
    """What ``clients`` are answered that send ``rate`` requests a second together.

    Each waits for its answer, then for its next turn: with 0 that is at once.
    """
    body = request(photograph(512), steps=8)
    start = time.perf_counter()

    def ask(number: int) -> list[Answer]:
        answers: list[Answer] = []
        turn = start + (number / rate if rate else 0)
        while turn < start + seconds:
            time.sleep(max(0.0, turn - time.perf_counter()))
            began = time.perf_counter()
            status, _ = server.ask("POST", "/adetailer", body)
            now = time.perf_counter()
            answers.append(Answer(status, now - start, now - began))
            turn = max(turn + clients / rate, now) if rate else now
        return answers

    with ThreadPoolExecutor(clients) as pool:
        return [answer for answers in pool.map(ask, range(clients)) for answer in answers]


def goodput(answers: list[Answer], seconds: float) -> float:
    """Pictures a second, from when things have settled until the clients stop asking."""
    done = sum(answer.status == 200 and SETTLED < answer.at <= seconds for answer in answers)
    return done / (seconds - SETTLED)


@dataclass(frozen=True)
class Flood:
    """What came of some clients' asking: pictures a second, and what one took the server."""

    answers: list[Answer]
    goodput: float
    processor_seconds: float


def watched_flood(server: Server, clients: int, seconds: float, rate: float = 0) -> Flood:
    before = server.processor_seconds
    answers = flood(server, clients, seconds, rate)
    work = server.processor_seconds - before
    served = sum(answer.status == 200 for answer in answers)
    return Flood(answers, goodput(answers, seconds), work / max(1, served))


def peak_of(server: Server) -> Flood:
    flood(server, FEW, 5)  # until the queue knows the engine's speed
    return watched_flood(server, FEW, PEAK_SECONDS)


def overload(server: Server) -> str:
    """Twice as many requests as fit, between two looks at what does: the machine is shared."""
    first = peak_of(server)
    before = server.megabytes
    crowd = watched_flood(server, CLIENTS, LOAD_SECONDS, rate=2 * first.goodput)
    after = server.megabytes
    peaks = first, peak_of(server)
    peak = statistics.mean(flood.goodput for flood in peaks)
    cost = statistics.mean(flood.processor_seconds for flood in peaks)
    refusals = [answer.seconds * 1000 for answer in crowd.answers if answer.status == 429] or [0.0]
    served = [answer.seconds for answer in crowd.answers if answer.status == 200]
    return table(
        {
            f"pictures a second, {FEW} clients, before and after": ", ".join(
                f"{flood.goodput:.2f}" for flood in peaks
            ),
            f"pictures a second, {CLIENTS} clients": (
                f"{crowd.goodput:.2f} ({crowd.goodput / peak:.0%} of the mean; limit 95%)"
            ),
            "processor seconds a picture, few and many clients": (
                f"{cost:.3f}, {crowd.processor_seconds:.3f}"
            ),
            "answers": dict(Counter(answer.status for answer in crowd.answers)),
            "pictures, p50 / p99 s": f"{quantile(served, 0.5):.1f} / {quantile(served, 0.99):.1f}",
            "refusals, p50 / p99 ms (limit 100)": (
                f"{quantile(refusals, 0.5):.1f} / {quantile(refusals, 0.99):.1f}"
            ),
            "resident MB before and after": f"{before:.0f}, {after:.0f}",
        }
    )


def memory_over(server: Server, minutes: float) -> str:
    """Resident memory at four fifths of what the server can do, read every half minute."""
    rate = 0.8 * peak_of(server).goodput
    read: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(30):
            read.append(server.megabytes)

    watching = threading.Thread(target=watch)
    watching.start()
    answers = flood(server, FEW, minutes * 60, rate)
    done.set()
    watching.join()
    settled = read[10:] or read
    return table(
        {
            "pictures a second": f"{rate:.2f}",
            "answers": dict(Counter(answer.status for answer in answers)),
            "resident MB each two minutes": ", ".join(f"{value:.0f}" for value in read[3::4]),
            "growth after minute 5 (limit 10), MB": f"{settled[-1] - settled[0]:.1f}",
            "median of the last five minutes less that of the first after minute 5, MB": (
                f"{statistics.median(settled[-10:]) - statistics.median(settled[:10]):.1f}"
            ),
        }
    )


def report() -> str:
    with serving(NO_QUEUE | {"RESOLUTIONS": "any"}) as server:
        parts = {
            "One picture of 1024x1024, JPEG": overhead(server),
            "Ten bodies of 20 MB": health_under_large_bodies(server),
            "Clients that leave": disconnects(server),
            "Damaged files": damaged_files(server),
            "Requests made up from the schema": made_up_requests(server),
        }
    with serving(QUEUE) as server:
        title = f"Twice what it can do, {CLIENTS} clients for {LOAD_SECONDS} s"
        parts[title] = overload(server)
    return told("The server") + "\n".join(
        f"## {title}\n\n{part}\n" for title, part in parts.items()
    )


def told(title: str) -> str:
    return (
        f"{heading(title, ('torch', 'fastapi'))}\nThe embedded model, on the processor, "
        f"{torch.get_num_threads()} torch threads; server and clients on one machine.\n\n"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The server's memory over time.")
    parser.add_argument("--minutes", type=float, default=20)
    with serving(NO_QUEUE) as here:
        page = told("The server's memory") + memory_over(here, parser.parse_args().minutes)
    RESULTS.joinpath("server_memory.md").write_text(page + "\n", encoding="utf-8")
    print(page)
