"""What a newcomer waits for: the import, the command line's help, the demo, the embedded model."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import afterdetail
from benchmarks.heading import heading

ROOT = Path(__file__).parents[1]
ROUNDS = 5


def run(*arguments: str) -> tuple[float, float]:
    """Seconds and peak resident megabytes of one Python process."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise RuntimeError(f"{arguments} ended with {status}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def row(what: str, limit: str, *arguments: str) -> str:
    runs = [run(*arguments) for _ in range(ROUNDS)]
    seconds, megabytes = (statistics.median(column) for column in zip(*runs, strict=True))
    return f"| {what} | {seconds:.2f} | {megabytes:.0f} | {limit} |"


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def four_faces(detailer: afterdetail.Detailer) -> None:
    """The four largest faces of the demo's picture."""
    result = detailer.detail(
        ROOT / "examples" / "group.png",
        detector="face_full_mediapipe",
        prompt="a photo of a woman",
        steps=20,
        strength=0.4,
        cfg_scale=7.5,
        k_largest=4,
    )
    assert result.num_objects_inpainted == 4


def embedded() -> list[str]:
    """Rows of what ``tiny`` takes in a process that is running already; a first try warms it."""
    # Not before: what this process holds is counted as the largest size of those it starts.
    from benchmarks import faces

    loads = [timed(faces.tiny.__wrapped__) for _ in range(ROUNDS + 1)][1:]
    with afterdetail.Detailer("tiny") as detailer:
        paints = [timed(lambda: four_faces(detailer)) for _ in range(ROUNDS + 1)][1:]
    what = "`tiny` repaints four faces: 20 steps, strength 0.4, guidance 7.5"
    return [
        f"| `tiny` is loaded | {statistics.median(loads):.2f} | | 1 s |",
        f"| {what} | {statistics.median(paints):.2f} | | 5 s |",
    ]


def report() -> str:
    return "\n".join(
        [
            heading("Starting up", ("torch",)),
            f"Whole processes, medians of {ROUNDS} runs; megabytes are the largest resident size.",
            "",
            "| process | s | MB | limit |",
            "|---|---:|---:|---|",
            row("`import afterdetail`", "1 s", "-c", "import afterdetail"),
            row("`afterdetail --help`", "", "-m", "afterdetail", "--help"),
            row("`make demo`, set up", "30 s, 1500 MB", "examples/demo.py"),
            *embedded(),
            "",
        ]
    )
