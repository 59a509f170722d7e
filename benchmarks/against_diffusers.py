"""The engine against a loop of diffusers' pipeline calls: same weights, samplers, steps, pictures.

    python -m benchmarks.against_diffusers --asdff elsewhere/bin/python

``asdff`` is the one other library that does this job; its Python needs what afterdetail needs, and
asdff without its dependencies (``pip install --no-deps asdff``) is enough. The sides take turns,
round after round, so that what else the machine does slows all; the figures are medians, and a
ratio is the median of the rounds' own ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from afterdetail.engine import openvino
from afterdetail.engine.backend import Backend, EagerBackend
from afterdetail.engine.engine import Engine
from afterdetail.engine.job import Job
from afterdetail.engine.service import EngineService
from afterdetail.types import RGB
from benchmarks.faces import ROOT, SIDE, SerialLoop, face_jobs, mixed_requests, same, tiny
from benchmarks.heading import heading

RESULTS = Path(__file__).with_name("results") / "against_diffusers.md"
ROUNDS = 5
ASDFF = Path(__file__).with_name("references") / "asdff_faces.py"
FACES = 8
LOOP = "diffusers loop"
REQUESTS = 16
THREADS = sorted({1, os.cpu_count() or 1})


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds of one run: by the clock, and of processor time."""

    wall: float
    processor: float


@dataclass(frozen=True, slots=True)
class Side:
    """A way to do the work, with the number of threads it is given."""

    name: str
    threads: int
    run: Callable[[], Taken]


def timed(work: Callable[[], object], threads: int) -> Callable[[], Taken]:
    def run() -> Taken:
        torch.set_num_threads(threads)
        wall, processor = time.perf_counter(), time.process_time()
        work()
        return Taken(time.perf_counter() - wall, time.process_time() - processor)

    return run


def engine_run(backend: Backend, jobs: Sequence[Job]) -> list[RGB]:
    engine = Engine(backend=backend)
    numbers = [engine.add(job) for job in jobs]
    results: dict[int, RGB] = {}
    while not engine.idle:
        for done in engine.step():
            assert isinstance(done.outcome, np.ndarray), done.outcome
            results[done.number] = done.outcome
    return [results[number] for number in numbers]


def backends(threads: int) -> list[Backend]:
    if not openvino.installed():
        return [EagerBackend()]
    compiled = openvino.OpenVINOBackend(threads=threads)
    compiled.prepare(tiny(), [(SIDE, SIDE)])
    return [EagerBackend(), compiled]


class Asdff:
    """asdff in a Python of its own, which is told when to run."""

    def __init__(self, python: str, threads: int) -> None:
        self._process = subprocess.Popen(
            [python, str(ASDFF), str(FACES), str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
        )  # fmt: skip

    def run(self) -> Taken:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        start = time.perf_counter()
        print("go", file=self._process.stdin, flush=True)
        processor = float(self._process.stdout.readline())
        return Taken(time.perf_counter() - start, processor)

    def close(self) -> None:
        self._process.communicate()


def one_picture(asdff: str | None, threads: Sequence[int], count: int) -> str:
    """Eight faces in one picture, every side at each number of threads."""
    jobs = face_jobs(FACES, tiny())
    loop = SerialLoop(tiny())
    expected = [loop.paint(job) for job in jobs[:2]]
    others = [Asdff(asdff, number) for number in threads] if asdff else []
    sides = [
        *(Side(LOOP, n, timed(lambda: [loop.paint(job) for job in jobs], n)) for n in threads),
        *(Side("asdff", n, other.run) for n, other in zip(threads, others, strict=False)),
        *(ours(jobs, expected, backend, n) for n in threads for backend in backends(n)),
    ]
    rounds = [tuple(side.run() for side in sides) for _ in range(count)]
    for other in others:
        other.close()
    return _table(sides, rounds)


def ours(jobs: Sequence[Job], expected: Sequence[RGB], backend: Backend, threads: int) -> Side:
    assert same(engine_run(backend, jobs[:2]), expected), backend.name
    run = timed(lambda: engine_run(backend, jobs), threads)
    return Side(f"ours, {backend.name}", threads, run)


def _table(sides: Sequence[Side], rounds: Sequence[Sequence[Taken]]) -> str:
    walls = [
        statistics.median(taken.wall for taken in column) for column in zip(*rounds, strict=True)
    ]
    loops = [index for index, side in enumerate(sides) if side.name == LOOP]
    best = min(loops, key=lambda index: walls[index])
    lines = [
        "| side | threads | s a face | against the loop | processor s a face | against the loop |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for index, side in enumerate(sides):
        faster = statistics.median(taken[best].wall / taken[index].wall for taken in rounds)
        cheaper = statistics.median(
            taken[loops[0]].processor / taken[index].processor for taken in rounds
        )
        processor = statistics.median(taken[index].processor for taken in rounds)
        lines.append(
            f"| {side.name} | {side.threads} | {walls[index] / FACES:.3f} | {faster:.2f}x | "
            f"{processor / FACES:.3f} | {cheaper:.2f}x |"
        )
    return "\n".join(lines)


def many_requests(threads: int, count: int) -> str:
    """Sixteen requests at once: the loop serves them in order, the engine all together."""
    requests = mixed_requests(REQUESTS, tiny())
    loop = SerialLoop(tiny())
    lines = [
        "| side | faces/s | p50 s | p95 s | throughput | p95 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    contestants = [
        (LOOP, partial(loop_latencies, loop, requests)),
        *(
            (f"ours, {backend.name}", partial(engine_latencies, backend, requests))
            for backend in backends(threads)
        ),
    ]
    torch.set_num_threads(threads)
    rounds = [[run() for _, run in contestants] for _ in range(count)]
    for index, (name, _) in enumerate(contestants):
        columns = [taken[index] for taken in rounds]
        wall = statistics.median(max(column) for column in columns)
        p50 = statistics.median(percentile(column, 50) for column in columns)
        p95 = statistics.median(percentile(column, 95) for column in columns)
        speed = statistics.median(max(taken[0]) / max(taken[index]) for taken in rounds)
        late = statistics.median(
            percentile(taken[index], 95) / percentile(taken[0], 95) for taken in rounds
        )
        lines.append(
            f"| {name} | {2 * REQUESTS / wall:.2f} | {p50:.1f} | {p95:.1f} | {speed:.2f}x | "
            f"{late:.2f}x |"
        )
    return "\n".join(lines)


def loop_latencies(loop: SerialLoop, requests: Sequence[Sequence[Job]]) -> list[float]:
    start = time.perf_counter()
    latencies = []
    for request in requests:
        for job in request:
            loop.paint(job)
        latencies.append(time.perf_counter() - start)
    return latencies


def engine_latencies(backend: Backend, requests: Sequence[Sequence[Job]]) -> list[float]:
    with EngineService(Engine(backend=backend)) as service, ThreadPoolExecutor(REQUESTS) as pool:
        start = time.perf_counter()

        def serve(request: Sequence[Job]) -> float:
            for ticket in [service.add(job) for job in request]:
                ticket.result()
            return time.perf_counter() - start

        return list(pool.map(serve, requests))


def percentile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent))


def report(asdff: str | None = None, threads: Sequence[int] = THREADS, rounds: int = ROUNDS) -> str:
    picture = one_picture(asdff, threads, rounds)
    requests = many_requests(threads[-1], rounds)
    packages = ("torch", "diffusers", "openvino")
    return f"""{heading("The engine against a loop of diffusers calls", packages)}
Model `tiny` (5.2 M parameters) at 128x128. Before timing, our pictures were found equal to
diffusers' to 1 of 255. The sides take turns; figures are medians of {rounds} rounds, ratios medians
of the rounds' own.

## {FACES} faces in one picture

DPM++ 2M Karras, 20 steps, strength 0.5 (10 are run), guidance 7.5. "Against the loop" is against
the loop at its better number of threads (time by the clock) and on one thread (processor time,
which what else the machine does hardly moves).

{picture}

## {REQUESTS} requests at once, 2 faces each

Samplers, steps (10-30), strength (0.3-0.6), guidance (1-7.5), prompts and seeds drawn at random.
The loop has one worker, which serves in order; latency is from the common start.
Throughput and p95 are against the loop; all sides with {threads[-1]} threads.

{requests}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--asdff", metavar="PYTHON", help="a Python that has it")
    parser.add_argument("--threads", type=int, nargs="+", default=THREADS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    page = report(options.asdff, options.threads, options.rounds)
    RESULTS.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
