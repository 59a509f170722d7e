"""The engine under load: Poisson arrivals, twice what it can do, and growth from 1 to 64 objects.

    python -m benchmarks.load [--threads N] [--arrivals N]

A request is one face. The serial loop serves the same arrivals at the same times in their order.
The engine itself refuses nothing (its callers do), so for the overload a bound of waiting jobs
stands in for the server's queue.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch

from afterdetail.engine.backend import Backend
from afterdetail.engine.engine import Engine
from afterdetail.engine.job import Job
from afterdetail.engine.service import EngineService
from afterdetail.types import RGB
from benchmarks.against_diffusers import backends, engine_run, percentile
from benchmarks.faces import SerialLoop, face_jobs, tiny
from benchmarks.heading import heading

RESULTS = Path(__file__).with_name("results") / "load.md"
STEPS = 10
"""At strength 0.5 five are run: short, so that many requests make a run of a minute."""
ARRIVALS = 64
"""Of a series."""
SEEDS = (1, 2, 3, 4, 5)
"""Of series, their latencies taken together: one series' worst burst decides its own p95. Before
each, what the machine can do is measured anew, since that changes by the minute."""
LOADS = (0.3, 0.7)
CROWD = 96
"""Requests of an overload."""
OVERLOADS = 9
BOUND = 8
"""Jobs in the engine beyond which a request is refused."""
COUNTS = (1, 2, 4, 8, 16, 32, 64)
OBJECTS = 32
GROWTH_ROUNDS = 5
GROWTH_TRIES = 3


@dataclass(frozen=True, slots=True, order=True)
class Growth:
    """What an object takes where so many are in flight; the fastest is the least."""

    seconds: float
    processor: float
    memory: int


@dataclass(frozen=True, slots=True)
class Series:
    """One series of arrivals: seconds that an idle engine takes, and latencies under them."""

    idle: float
    ours: list[float]
    loop: list[float]


def serve(
    paint: Callable[[Job], RGB], jobs: Sequence[Job], arrivals: Sequence[float]
) -> list[float]:
    """Latency of each job, handed in at its arrival (seconds from the start)."""
    start = time.perf_counter() + 0.05

    def one(job: Job, arrival: float) -> float:
        time.sleep(max(0.0, start + arrival - time.perf_counter()))
        paint(job)
        return time.perf_counter() - start - arrival

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(one, jobs, arrivals))


def poisson_times(count: int, rate: float, seed: int) -> list[float]:
    chance = random.Random(seed)
    times, now = [], 0.0
    for _ in range(count):
        now += chance.expovariate(rate)
        times.append(now)
    return times


def capacity_of(backend: Backend, jobs: Sequence[Job]) -> float:
    """Jobs a second when all are there at once."""
    start = time.perf_counter()
    engine_run(backend, jobs)
    return len(jobs) / (time.perf_counter() - start)


def under_poisson(backend: Backend, count: int) -> str:
    jobs = face_jobs(count, tiny(), STEPS)
    loop, turn = SerialLoop(tiny()), threading.Lock()

    def paint_in_turn(job: Job) -> RGB:
        with turn:  # Python's locks are not quite first come first served; nearly
            return loop.paint(job)

    lines = [
        "| load | side | p50 s | p95 s | p95 / idle | p95 / the loop's |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    with EngineService(Engine(backend=backend)) as service:

        def paint(job: Job) -> RGB:
            return service.add(job).result()

        def series(load: float, seed: int) -> Series:
            idle = statistics.median(serve(paint, [job], [0.0])[0] for job in jobs[:5])
            arrivals = poisson_times(count, load * capacity_of(backend, jobs[:16]), seed)
            return Series(idle, serve(paint, jobs, arrivals), serve(paint_in_turn, jobs, arrivals))

        for load in LOADS:
            lines += _rows(load, [series(load, seed) for seed in SEEDS])
    return "\n".join(lines)


def _rows(load: float, runs: Sequence[Series]) -> list[str]:
    late = percentile([taken for run in runs for taken in run.loop], 95)
    lines = []
    for side in ("ours", "loop"):
        pairs = [(taken, taken / run.idle) for run in runs for taken in getattr(run, side)]
        taken, ratios = (list(part) for part in zip(*pairs, strict=True))
        lines.append(
            f"| {load:.0%} | {side} | {percentile(taken, 50):.2f} | {percentile(taken, 95):.2f} | "
            f"{percentile(ratios, 95):.1f}x | {percentile(taken, 95) / late:.2f}x |"
        )
    return lines


@dataclass(frozen=True, slots=True)
class Overload:
    """Goodput as a share of the capacity; how many were served; seconds of each refusal."""

    goodput: float
    served: int
    refused: list[float]


def overload(backend: Backend) -> str:
    jobs = face_jobs(CROWD, tiny(), STEPS)
    runs = [overloaded(backend, jobs, seed) for seed in range(OVERLOADS)]
    refused = [taken for run in runs for taken in run.refused]
    shares = ", ".join(f"{run.goodput:.0%}" for run in runs)
    return (
        f"{OVERLOADS} times {CROWD} requests: {sum(run.served for run in runs)} served, goodput "
        f"{statistics.median(run.goodput for run in runs):.0%} of the capacity (median of "
        f"{shares}); {len(refused)} refused, the slowest refusal in "
        f"{1e3 * max(refused, default=0.0):.1f} ms."
    )


def overloaded(backend: Backend, jobs: Sequence[Job], seed: int) -> Overload:
    """Arrivals at twice the capacity, refused where ``BOUND`` jobs are in the engine already.

    Time counts from the first of them on.
    """
    before = capacity_of(backend, jobs[:16])
    came: list[float] = []
    refused: list[float] = []
    done: list[float] = []
    inside = threading.Semaphore(BOUND)
    with EngineService(Engine(backend=backend)) as service:

        def ask(job: Job) -> RGB:
            asked = time.perf_counter()
            came.append(asked)
            if not inside.acquire(blocking=False):
                refused.append(time.perf_counter() - asked)
                return job.image
            try:
                return service.add(job).result()
            finally:
                inside.release()
                done.append(time.perf_counter())

        serve(ask, jobs, poisson_times(len(jobs), 2 * before, seed))
        served = len(done) / (max(done) - min(came))
    after = capacity_of(backend, jobs[:16])
    return Overload(2 * served / (before + after), len(done), refused)


def growth(backend: Backend) -> str:
    """Time and memory against the number of jobs in the engine at once."""
    rounds = [_growth_round(backend, random.Random(number)) for number in range(GROWTH_ROUNDS)]
    found = {count: [one[count] for one in rounds] for count in COUNTS}
    walls = {count: statistics.median(one.seconds for one in found[count]) for count in COUNTS}
    costs = {count: statistics.median(one.processor for one in found[count]) for count in COUNTS}
    memory = {count: max(one.memory for one in found[count]) for count in COUNTS}
    lines = [
        "| objects in flight | s an object | against best smaller | processor s an object "
        "| against best smaller | memory MB |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for index, count in enumerate(COUNTS):
        smaller = COUNTS[:index] or COUNTS[:1]
        slower = walls[count] / min(walls[other] for other in smaller) - 1
        dearer = costs[count] / min(costs[other] for other in smaller) - 1
        lines.append(
            f"| {count} | {walls[count]:.3f} | {slower:+.0%} | {costs[count]:.3f} | {dearer:+.0%} "
            f"| {memory[count] / 1e6:.0f} |"
        )
    return "\n".join(lines)


def _growth_round(backend: Backend, order: random.Random) -> dict[int, Growth]:
    """The fastest try of every count.

    One try of a count differs from the next by a tenth, more than the counts do among themselves;
    and the machine drifts, so they take turns, in an order that is another every time.
    """
    tries = list(COUNTS) * GROWTH_TRIES
    order.shuffle(tries)
    taken: dict[int, list[Growth]] = {count: [] for count in COUNTS}
    for count in tries:
        taken[count].append(_growth_try(backend, count))
    return {count: min(found) for count, found in taken.items()}


def _growth_try(backend: Backend, count: int) -> Growth:
    jobs = [replace(job, steps=4) for job in face_jobs(count, tiny())]
    again = max(1, OBJECTS // count)  # about as much work of every count
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(again):
        engine_run(backend, jobs)
    objects = count * again
    spent = time.perf_counter() - wall, time.process_time() - processor
    return Growth(spent[0] / objects, spent[1] / objects, psutil.Process().memory_info().rss)


def report(threads: int | None = None, arrivals: int = ARRIVALS) -> str:
    threads = threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    backend = backends(threads)[-1]
    engine_run(backend, face_jobs(2, tiny(), STEPS))
    parts = under_poisson(backend, arrivals), overload(backend), growth(backend)
    return f"""{heading("The engine under load", ("torch", "openvino"))}
Model `tiny` at 128x128, backend {backend.name}, {threads} threads. A request is one face:
DPM++ 2M Karras, {STEPS} steps, strength 0.5 (5 are run), guidance 7.5.

## Poisson arrivals

{len(SEEDS)} series of {arrivals} requests at a share of the engine's capacity, the loop under the
same arrivals. Capacity, and what an idle engine takes for one request (median of 5), are measured
before each series.

{parts[0]}

## Twice what it can do

At most {BOUND} jobs in the engine; what comes above that is refused. The bound is the benchmark's
own, in the place of the server's queue. Capacity is measured before and after each run.

{parts[1]}

## Growth

All objects at once, 4 steps of which 2 are run. In each of {GROWTH_ROUNDS} rounds every count is
tried {GROWTH_TRIES} times, in random order, with at least {OBJECTS} objects, and its fastest try
counts; medians of the rounds.

{parts[2]}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--arrivals", type=int, default=ARRIVALS)
    options = parser.parse_args()
    page = report(options.threads, options.arrivals)
    RESULTS.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
