"""A cluster of several nodes on this machine: scaling, what crossing costs, deaths, warm routing.

    python -m benchmarks.ray [PART...]

Two cores cannot show eight engines at work, so that where engines are counted their UNet is a
sleep: everything else (routing, arrays, samplers, autoencoder) is real. Nodes are Ray's own
``cluster_utils.Cluster``; engines go to nodes with the resource ``engine``.
"""

from __future__ import annotations

import base64
import io
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from afterdetail.deploy.ray_serve import sender
from afterdetail.deploy.remote import RemoteStudio
from afterdetail.lifetime import Lifetime
from afterdetail.models.catalogue import Kind, load_catalogue
from afterdetail.models.choose import Choice
from afterdetail.options import Base
from benchmarks.clusters import (
    PORT,
    STORE,
    cluster,
    deploy,
    engine_processes,
    order,
    processor_seconds,
    running_engines,
    sleeping,
)
from benchmarks.heading import heading
from benchmarks.serving import JSON, PHOTO, request, serving

RESULTS = Path(__file__).with_name("results") / "ray.md"
STEP = 0.5
"""Seconds of the sleep that stands for one step of a full batch: that of SDXL on a slower GPU."""
QUICK_STEP = 0.05
STEPS = 10
ENGINES = (1, 2, 4, 8)
WARM_UP, MEASURED = 7.0, 20.0
PAIRS = 40
DEATHS = 20
CHECKPOINTS, RESIDENT = 8, 3
ORDERS = 400


def scaling() -> list[str]:
    """Orders a second by number of engines, in a closed loop that keeps each of them full."""
    choice = Choice(load_catalogue("tiny").bases()[Base.SD15])
    speeds: dict[int, float] = {}
    with cluster(nodes=2, engines_each=4):
        for count in reversed(ENGINES):  # ending some is quicker than starting some
            studio = RemoteStudio(sender(deploy(count, sleeping(STEP, 1))))
            until = time.monotonic() + 60
            while len(engine_processes()) != count and time.monotonic() < until:
                time.sleep(0.5)
            speeds[count] = speed(studio, choice, workers=12 * count)
            studio.close()
    one = speeds[1]
    rows = [f"| {n} | {speeds[n]:.2f} | {speeds[n] / n / one:.3f} |" for n in ENGINES]
    return [
        "## Engines\n",
        f"A step of a full batch is a sleep of {STEP:g} s, {STEPS} steps, 12 orders under way for",
        f"each engine, {MEASURED:g} s measured; 4 engines to a node.\n",
        "| engines | orders / s | of linear (limit 0.95) |",
        "|---:|---:|---:|",
        *rows,
    ]


def speed(studio: RemoteStudio, choice: Choice, workers: int) -> float:
    """Orders a second while all workers send one after the other, counted in steps: orders that
    share a batch come back together."""
    ended = threading.Event()

    def work(seed: int) -> None:
        while not ended.is_set():
            studio.open([choice], Lifetime()).begin([order(choice, STEPS, seed)])[0].result()

    with ThreadPoolExecutor(workers) as pool:
        for seed in range(1, workers + 1):
            pool.submit(work, seed)
        time.sleep(WARM_UP)
        rows = -studio.stats.rows
        time.sleep(MEASURED)
        rows += studio.stats.rows
        ended.set()
    return rows / STEPS / MEASURED


def crossing() -> list[str]:
    """The same request to a cluster and to a server that is one process, in turn."""
    photo = enlarged(1024)
    exact = request(photo, steps=2, image_encoding="png")
    body = request(photo, steps=2, image_encoding="jpeg")
    with serving({"BACKEND": "eager"}, threads=1) as plain, cluster(nodes=1, engines_each=1):
        deploy(1)
        times: dict[int, list[float]] = {PORT: [], plain.port: []}
        with httpx.Client(timeout=60, headers=JSON) as client:
            spent = -processor_seconds("Ingress")
            for _ in range(PAIRS + 3):
                for port, taken in times.items():
                    began = time.perf_counter()
                    client.post(address(port), content=body).raise_for_status()
                    taken.append(time.perf_counter() - began)
            spent = 1000 * (spent + processor_seconds("Ingress")) / (PAIRS + 3)
            answers = [client.post(address(port), content=exact).json() for port in times]
    pictures = [answer["image_b64"] for answer in answers]
    here, there = ([1000 * t for t in times[port][3:]] for port in (plain.port, PORT))
    added = statistics.median(b - a for a, b in zip(here, there, strict=True))
    return [
        "## One picture of 1024x1024, JPEG\n",
        "| | |",
        "|---|---:|",
        f"| one process, median ms | {statistics.median(here):.1f} |",
        f"| cluster, median ms | {statistics.median(there):.1f} |",
        f"| added, median of {PAIRS} pairs (limit 25), ms | {added:.1f} |",
        f"| added, fastest of each, ms | {min(there) - min(here):.1f} |",
        f"| processor time of the ingress for one, ms | {spent:.0f} |",
        f"| largest difference of a pixel | {difference(*pictures)}/255 |",
    ]


def enlarged(side: int) -> bytes:
    """One face, as a JPEG of ``side`` x ``side``."""
    written = io.BytesIO()
    Image.open(PHOTO).convert("RGB").resize((side, side)).save(written, "JPEG", quality=90)
    return written.getvalue()


def address(port: int) -> str:
    return f"http://127.0.0.1:{port}/adetailer"


def difference(one: str, other: str) -> int:
    first, second = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(text))), np.int16)
        for text in (one, other)
    )
    return int(np.abs(first - second).max())


def deaths() -> list[str]:
    """Requests under way while engines are killed and nodes are taken away."""
    body = request(enlarged(512), steps=20)
    answers: Counter[str] = Counter()
    slowest = 0.0
    ended = threading.Event()

    def ask() -> None:
        nonlocal slowest
        with httpx.Client(timeout=120, headers=JSON) as client:
            while not ended.is_set():
                began = time.monotonic()
                answer = client.post(address(PORT), content=body)
                slowest = max(slowest, time.monotonic() - began)
                answers[str(answer.json().get("code", answer.status_code))] += 1

    with cluster(nodes=4, engines_each=2) as nodes:
        deploy(4, sleeping(QUICK_STEP, 1))
        with ThreadPoolExecutor(6) as pool:
            for _ in range(6):
                pool.submit(ask)
            time.sleep(3)
            done = [end_one(nodes, node=number % 2 == 1) for number in range(DEATHS)]
            time.sleep(3)
            ended.set()
    right = 100 * answers["200"] / answers.total()
    return [
        "## Engines killed, nodes taken away\n",
        "Six clients one request after the other, four engines on four nodes.",
        f"{done.count('engine')} times an engine is ended with `kill -9`, {done.count('node')}",
        "times a node is removed with all on it, each once three engines are there again.\n",
        "| | |",
        "|---|---:|",
        f"| requests | {answers.total()} |",
        f"| answered 200 (limit 100 %) | {right:g} % |",
        f"| others | {({k: v for k, v in answers.items() if k != '200'}) or 'none'} |",
        f"| slowest, s | {slowest:.1f} |",
    ]


def end_one(nodes: Any, *, node: bool) -> str:
    """End an engine, or a node with one, once three are there to take calls."""
    until = time.monotonic() + 120
    while running_engines() < 3 and time.monotonic() < until:
        time.sleep(0.5)
    time.sleep(1)  # the newest has got its first calls
    engines = engine_processes()
    if not node:
        random.choice(engines).kill()
        return "engine"
    worker = random.choice(sorted(nodes.worker_nodes, key=str))
    nodes.remove_node(worker, allow_graceful=False)
    nodes.add_node(num_cpus=0, resources={"engine": 2}, **STORE)
    return "node"


def warmth() -> list[str]:
    """Checkpoints found resident, with routing by checkpoint and without."""
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models.toml"
        entry = '[[model]]\nname = "{}"\nkind = "{}"\nbase = "sd15"\npackage = "models/tiny"\n'
        names = [f"checkpoint{number}" for number in range(CHECKPOINTS)]
        kinds = [("tiny", "base"), *((name, "checkpoint") for name in names)]
        models.write_text("".join(entry.format(*kind) for kind in kinds), encoding="utf-8")
        with cluster(nodes=2, engines_each=2):
            handle = deploy(
                4, sleeping(QUICK_STEP, RESIDENT), str(models), models_per_engine=RESIDENT
            )
            catalogue = load_catalogue(models)
            choices = [Choice(catalogue.find(Kind.CHECKPOINT, name)) for name in names]
            rows = [warm_row(handle, choices, routed=routed) for routed in (False, True)]
    return [
        "## Warm routing\n",
        f"{CHECKPOINTS} checkpoints over 4 engines with room for {RESIDENT} each, popularity by",
        f"Zipf's law, {ORDERS} orders, 8 under way. Whatever makes an engine load is not warm.\n",
        "| | found resident (limit 90 %) |",
        "|---|---:|",
        *rows,
    ]


def warm_row(handle: Any, choices: list[Choice], *, routed: bool) -> str:
    send = sender(handle)
    studio = RemoteStudio(lambda call, elsewhere: send(call, elsewhere or not routed))
    weights = [1 / (rank + 1) for rank in range(len(choices))]
    drawn = random.Random(1).choices(choices, weights, k=ORDERS)

    def paint(choice: Choice) -> None:
        studio.open([choice], Lifetime()).begin([order(choice, steps=4)])[0].result()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(paint, drawn))
    loads = studio.model_stats.loads
    studio.close()
    return f"| {'by checkpoint' if routed else 'anywhere'} | {100 * (1 - loads / ORDERS):.1f} % |"


PARTS = {"scaling": scaling, "crossing": crossing, "deaths": deaths, "warmth": warmth}


def report(parts: Iterable[str] = PARTS) -> str:
    if find_spec("ray") is None:
        print("not taken again: needs the extra ray")
        return RESULTS.read_text(encoding="utf-8")
    page = [heading("A cluster", ("ray",)), "All nodes are on this one machine.\n"]
    for part in parts:
        page += [*PARTS[part](), ""]
        print("\n".join(page), flush=True)
    return "\n".join(page)


if __name__ == "__main__":
    RESULTS.write_text(report(sys.argv[1:] or PARTS), encoding="utf-8")
