"""What a newcomer waits for: the import, the command line's help, the demo and its memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

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
            "",
        ]
    )
