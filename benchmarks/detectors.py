"""Our detectors against the libraries they stand for, on one picture, in one run.

The reference libraries are no dependencies. Give the Python of an environment that has them:

    python -m venv elsewhere && elsewhere/bin/pip install mediapipe==0.10.21 pillow
    python -m benchmarks.detectors --mediapipe elsewhere/bin/python

Both sides look at the same picture, warm up, and take turns round after round, so that what else
the machine does slows both. A round counts by its best call, because other work can only add.
Without a reference only our own times are taken.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from afterdetail.detectors.base import Detector
from afterdetail.detectors.mediapipe import MEDIAPIPE
from afterdetail.types import RGB
from benchmarks.heading import heading

PHOTOS = Path(__file__).parents[1] / "tests" / "data" / "photos"
REFERENCES = Path(__file__).with_name("references")
RESULTS = Path(__file__).with_name("results") / "detectors.md"
PACKAGES = ("ai-edge-litert", "opencv-python-headless", "numpy")
ROUNDS = 60
CALLS = 10
"""Calls in a round, each side's one after the other."""


@dataclass(frozen=True, slots=True)
class Library:
    """A reference: how the option for its Python is called, and the script that Python runs."""

    name: str
    script: Path


@dataclass(frozen=True, slots=True)
class Contest:
    """One of our detectors and what it is measured against: a library's ``subject``."""

    load: Callable[[], Detector]
    library: Library
    subject: str


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds a call, the best of each round."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]


SOLUTIONS = Library("mediapipe", REFERENCES / "mediapipe_solutions.py")
LIBRARIES = (SOLUTIONS,)
CONTESTS = (
    Contest(lambda: MEDIAPIPE["face_short_mediapipe"], SOLUTIONS, "face_short"),
    Contest(lambda: MEDIAPIPE["face_full_mediapipe"], SOLUTIONS, "face_full"),
    Contest(lambda: MEDIAPIPE["face_mesh_mediapipe"], SOLUTIONS, "face_mesh"),
)


def four_faces() -> RGB:
    """Two of the tests' photographs and their mirror images, 512x512 each, two by two.

    All the detectors find all four faces in it; the short-range network misses smaller ones.
    """
    boxes = {"mpl_grace_hopper.jpg": (0, 0, 512, 512), "fr_obama.jpg": (0, 0, 910, 910)}
    tiles = [
        np.asarray(Image.open(PHOTOS / name).convert("RGB").resize((512, 512), box=box))
        for name, box in boxes.items()
    ]
    top = np.hstack(tiles)
    return np.vstack([top, top[:, ::-1]])


class Reference:
    """A reference library in a process of its own, which runs when told to."""

    def __init__(self, python: str, contest: Contest, picture: Path) -> None:
        self._process = subprocess.Popen(
            [python, contest.library.script, contest.subject, picture],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def time(self, calls: int) -> float:
        """Seconds a call, the best of ``calls``."""
        assert self._process.stdin and self._process.stdout
        print(calls, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def time_calls(call: Callable[[], object], calls: int) -> float:
    """Seconds a call, the best of ``calls``."""
    taken = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken)


def take_turns(contest: Contest, rgb: RGB, python: str | None) -> Times:
    """Time our detector and, if there is a ``python`` for it, the reference."""
    detector = contest.load()
    time_calls(lambda: detector.detect(rgb), CALLS)
    if python is None:
        return Times(
            tuple(time_calls(lambda: detector.detect(rgb), CALLS) for _ in range(ROUNDS)), ()
        )
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        Image.fromarray(rgb).save(picture)
        reference = Reference(python, contest, picture)
        rounds = [
            (time_calls(lambda: detector.detect(rgb), CALLS), reference.time(CALLS))
            for _ in range(ROUNDS)
        ]
        reference.close()
    ours, theirs = zip(*rounds, strict=True)
    return Times(ours, theirs)


def row(contest: Contest, rgb: RGB, python: str | None) -> str:
    """One line of the table, times in milliseconds."""
    times = take_turns(contest, rgb, python)
    detector = contest.load()
    cells = [detector.name, str(len(detector.detect(rgb)))]
    cells.append(f"{1e3 * statistics.median(times.ours):.2f}")
    if times.theirs:
        ratios = (mine / other for mine, other in zip(times.ours, times.theirs, strict=True))
        cells.append(f"{1e3 * statistics.median(times.theirs):.2f}")
        cells.append(f"{statistics.median(ratios):.2f}")
    else:
        cells += ["", ""]
    return f"| {' | '.join(cells)} |"


def report(pythons: Mapping[str, str | None] | None = None) -> str:
    """The page of results. ``pythons``: for each library's name the Python that has it."""
    rgb = four_faces()
    given = pythons or {}
    rows = [row(contest, rgb, given.get(contest.library.name)) for contest in CONTESTS]
    lines = [
        heading("Detectors and their references", PACKAGES),
        f"Milliseconds a call on a picture of 1024x1024 pixels with 4 faces, warm: the best of "
        f"{CALLS} calls, the median of {ROUNDS} such rounds, in which both sides take turns; the "
        "ratio is the median of the rounds' own, below 1 where ours is faster. References: "
        "mediapipe 0.10.21, its graph built once (the tools that use it build it for every "
        "picture).",
        "",
        "| detector | found | ours | reference | ratio |",
        "|---|---:|---:|---:|---:|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Time our detectors against their references.")
    for library in LIBRARIES:
        parser.add_argument(f"--{library.name}", metavar="PYTHON", help="a Python that has it")
    page = report(vars(parser.parse_args()))
    RESULTS.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
