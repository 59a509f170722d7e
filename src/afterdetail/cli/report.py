"""What the command line says of each picture, and the bar while it works."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from afterdetail.results import DetailedObject


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """What became of one picture; ``output`` is None where nothing may be shown.

    ``dry``: nothing was repainted, and ``output`` shows what would be.
    """

    source: Path
    output: Path | None
    objects: Sequence[DetailedObject]
    refused: int
    timings: Mapping[str, float]
    dry: bool = False

    def as_json(self) -> dict[str, object]:
        return {
            "input": str(self.source),
            "output": str(self.output) if self.output else None,
            "num_objects_detected": len(self.objects),
            "num_objects_inpainted": self._count("inpainted"),
            "num_removed_for_safety": self.refused,
            "objects": [_object_as_json(item) for item in self.objects],
            "timings": {stage: round(seconds, 4) for stage, seconds in self.timings.items()},
        }

    def as_text(self) -> str:
        found = ", ".join(
            f"{item.detection.label} {item.detection.score:.2f}" for item in self.objects
        )
        done = "would repaint" if self.dry else "repainted"
        count = self._count("planned" if self.dry else "inpainted")
        what = f"found {found}; {done} {count} of {len(self.objects)}"
        if not found:
            what = "found nothing to repaint"
        if self.refused:
            what += f"; the safety checker refused {self.refused}"
        target = str(self.output) if self.output else "not written"
        return f"{self.source} -> {target}: {what}; {sum(self.timings.values()):.1f} s"

    def _count(self, outcome: str) -> int:
        return sum(item.outcome == outcome for item in self.objects)


def _object_as_json(item: DetailedObject) -> dict[str, object]:
    box = item.detection.box
    return {
        "stage": item.stage,
        "id": item.id,
        "label": item.detection.label,
        "score": round(item.detection.score, 4),
        "box": [round(side, 2) for side in (box.x0, box.y0, box.x1, box.y1)],
        "outcome": item.outcome.value,
        "seed": item.seed,
        "reason": item.reason,
    }


@contextmanager
def progress_of(pictures: int) -> Iterator[Progress]:
    """A bar on stderr, for people only and for more than one picture."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=pictures < 2 or not console.is_terminal,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as progress:
        yield progress


def say(progress: Progress, line: str) -> None:
    """Print to stdout; where that is the terminal of the bar, above the bar."""
    if not progress.disable and sys.stdout.isatty():
        print_above(progress, line)
    else:
        typer.echo(line)


def print_above(progress: Progress, line: str) -> None:
    """Print to stderr, where the bar is."""
    progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
