"""Our YOLOv8 against ultralytics' predict: the same weights, the same picture, in one run.

    python -m benchmarks.yolo --ultralytics PYTHON

``PYTHON`` is that of an environment with ultralytics 8.4 (scripts/make_yolo_golden.py says how to
make one); without it only our own times are taken. The weights are the random ones of the tests:
what they find does not matter here.

Measured is processor time at equal threads: other work on the machine hardly touches it.
"""

from __future__ import annotations

import argparse
import os
import runpy
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from safetensors.numpy import save_file

from afterdetail.detectors.base import Detector
from afterdetail.detectors.registry import load_detector_file
from afterdetail.types import RGB
from benchmarks.detectors import (
    REFERENCES,
    Contest,
    Library,
    Reference,
    Times,
    four_faces,
)
from benchmarks.heading import heading

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results") / "yolo.md"
ULTRALYTICS = Library("ultralytics", REFERENCES / "ultralytics_predict.py")
CASES = {"n1": ("n", 1, False), "s3": ("s", 3, False)}
"""Golden cases: scale, classes, masks."""
ROUNDS, CALLS = 40, 4
THREADS = max(1, min(8, (os.cpu_count() or 2) - 1))
"""As many as ultralytics takes on the CPU."""


def loader(case: str) -> Callable[[], Detector]:
    """A function that gives our detector with the weights of a golden case."""

    def load() -> Detector:
        scale, classes, masks = CASES[case]
        weights = runpy.run_path(str(ROOT / "tests" / "data" / "yolo" / "random_weights.py"))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{case}.safetensors"
            save_file(weights["random_state"](scale, classes, masks=masks), path)
            return load_detector_file(path)

    return load


def best_of(calls: int, call: Callable[[], object]) -> float:
    """Seconds of processor time, the best of so many calls."""
    taken = []
    for _ in range(calls):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return min(taken)


def take_turns(contest: Contest, rgb: RGB, python: str | None) -> Times:
    """Time ours and, if there is a ``python`` for it, the reference; warm, round by round."""
    detector = contest.load()
    best_of(CALLS, lambda: detector.detect(rgb))
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        Image.fromarray(rgb).save(picture)
        reference = Reference(python, contest, picture) if python else None
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(best_of(CALLS, lambda: detector.detect(rgb)))
            if reference:
                theirs.append(reference.time(CALLS))
        if reference:
            reference.close()
    return Times(tuple(ours), tuple(theirs))


def row(case: str, times: Times) -> str:
    """One line of the table, times in milliseconds."""
    cells = [f"YOLOv8{CASES[case][0]}", f"{1e3 * statistics.median(times.ours):.1f}", "", ""]
    if times.theirs:
        ratios = (ours / theirs for ours, theirs in zip(times.ours, times.theirs, strict=True))
        cells[2:] = [
            f"{1e3 * statistics.median(times.theirs):.1f}",
            f"{statistics.median(ratios):.2f}",
        ]
    return f"| {' | '.join(cells)} |"


def report(python: str | None = None) -> str:
    """The page of results; ``python`` has ultralytics."""
    torch.set_num_threads(THREADS)
    rgb = four_faces()
    contests = {case: Contest(loader(case), ULTRALYTICS, case) for case in CASES}
    rows = [row(case, take_turns(contest, rgb, python)) for case, contest in contests.items()]
    lines = [
        heading("YOLOv8 and its reference", ("torch",)),
        f"{THREADS} thread(s) on both sides (as many as ultralytics takes); reference: ultralytics "
        "8.4's `predict`. Milliseconds of "
        "processor time a call on a picture of 1024x1024 pixels, input 640x640, from pixels to "
        f"boxes, warm. Both sides take turns; a round counts by the best of its {CALLS} calls; "
        f"medians over {ROUNDS} rounds, and the median of the rounds' own ratios, below 1 where "
        "ours is faster.",
        "",
        "| network | ours | reference | ratio |",
        "|---|---:|---:|---:|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Time our YOLOv8 against ultralytics'.")
    parser.add_argument("--ultralytics", metavar="PYTHON", help="a Python that has it")
    page = report(parser.parse_args().ultralytics)
    RESULTS.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
