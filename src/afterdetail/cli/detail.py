"""``afterdetail detail``: pictures in, detailed pictures out."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from afterdetail.cli.files import Task, plan, write
from afterdetail.cli.options import (
    DEFAULT_MODELS,
    AsJson,
    Device,
    ImageEncoding,
    Models,
    takes_detail_options,
)
from afterdetail.cli.quiet import quiet_libraries
from afterdetail.errors import AfterdetailError, InvalidInput, ModelUnavailable, WeightsError
from afterdetail.options import LibraryOptions

if TYPE_CHECKING:
    from afterdetail.lifetime import Lifetime
    from afterdetail.pipeline import Detailer
    from afterdetail.results import DetailedObject, DetailResult

SOME_FAILED = 1
AT_ONCE = 4
"""Pictures in work at a time: enough to fill the engine's forwards, few enough for memory."""


@takes_detail_options
def detail(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="IN...", help="Pictures, or folders of them.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="OUT",
            help="The picture to write (.png, .jpg); for several, a folder.",
        ),
    ],
    options: LibraryOptions,
    models: Models = DEFAULT_MODELS,
    device: Device = None,
    image_encoding: ImageEncoding = None,
    as_json: AsJson = False,
) -> None:
    """Find the objects of pictures, repaint each, put them back."""
    from afterdetail.prompts import styles

    styles.find(options.style_preset)
    tasks = plan(inputs, out, image_encoding)
    with quiet_libraries():
        from afterdetail.pipeline import Detailer

        with Detailer(models, device=device) as detailer:
            failed = _detail_all(detailer, tasks, options, as_json)
    if failed:
        raise typer.Exit(SOME_FAILED)


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """What became of one picture; ``output`` is None where the safety checker refused it all."""

    source: Path
    output: Path | None
    result: DetailResult
    timings: Mapping[str, float]

    def as_json(self) -> dict[str, object]:
        return {
            "input": str(self.source),
            "output": str(self.output) if self.output else None,
            "num_objects_detected": self.result.num_objects_detected,
            "num_objects_inpainted": self.result.num_objects_inpainted,
            "num_removed_for_safety": self.result.num_removed_for_safety,
            "objects": [_object_as_json(item) for item in self.result.objects],
            "timings": {stage: round(seconds, 4) for stage, seconds in self.timings.items()},
        }

    def as_text(self) -> str:
        found = ", ".join(
            f"{item.detection.label} {item.detection.score:.2f}" for item in self.result.objects
        )
        counts = f"{self.result.num_objects_inpainted} of {self.result.num_objects_detected}"
        what = f"found {found}; repainted {counts}" if found else "found nothing to repaint"
        if self.result.num_removed_for_safety:
            what += f"; the safety checker refused {self.result.num_removed_for_safety}"
        target = str(self.output) if self.output else "not written"
        return f"{self.source} -> {target}: {what}; {sum(self.timings.values()):.1f} s"


def _detail_all(
    detailer: Detailer, tasks: Sequence[Task], options: LibraryOptions, as_json: bool
) -> int:
    """Detail the pictures and tell of each in their order; returns how many were not written."""
    failed = 0
    with _progress(len(tasks)) as progress, _several_at_once(detailer, options) as results_of:
        for task, result in progress.track(
            results_of(tasks), total=len(tasks), description="detailing"
        ):
            try:
                done = result()
            except AfterdetailError as error:
                if len(tasks) == 1 or _concerns_every_picture(error):
                    raise
                failed += 1
                _print_above(progress, f"afterdetail: {task.source}: {error}")
            else:
                failed += done.output is None
                _say(progress, json.dumps(done.as_json()) if as_json else done.as_text())
    return failed


Results = Iterator[tuple[Task, Callable[[], Done]]]


@contextmanager
def _several_at_once(
    detailer: Detailer, options: LibraryOptions
) -> Iterator[Callable[[Sequence[Task]], Results]]:
    """Work on a few pictures at a time: the engine denoises all their objects together.

    Whoever leaves early, by an error or Ctrl-C, leaves no picture behind in the engine.
    """
    from afterdetail.lifetime import Lifetime

    lifetime = Lifetime()
    pool = ThreadPoolExecutor(AT_ONCE)

    def results_of(tasks: Sequence[Task]) -> Results:
        begun: deque[tuple[Task, Future[Done]]] = deque()
        for task in tasks:
            begun.append((task, pool.submit(_detail_one, detailer, task, options, lifetime)))
            if len(begun) == AT_ONCE:
                first, future = begun.popleft()
                yield first, future.result
        for task, future in begun:
            yield task, future.result

    try:
        yield results_of
    finally:
        lifetime.end()
        pool.shutdown(cancel_futures=True)


def _detail_one(
    detailer: Detailer, task: Task, options: LibraryOptions, lifetime: Lifetime
) -> Done:
    from afterdetail.images import encode

    result = detailer.detail(task.source, lifetime=lifetime, **options.model_dump())
    started = perf_counter()
    if not result.withheld:
        write(task.output, encode(result.picture, task.encoding))
    timings = {**result.timings, "encode": perf_counter() - started}
    return Done(task.source, None if result.withheld else task.output, result, timings)


def _concerns_every_picture(error: AfterdetailError) -> bool:
    """Whether the next picture would fail the same way: an option is wrong, a model missing."""
    if isinstance(error, InvalidInput) and error.field in LibraryOptions.model_fields:
        return True
    return isinstance(error, (ModelUnavailable, WeightsError))


def _object_as_json(item: DetailedObject) -> dict[str, object]:
    box = item.detection.box
    return {
        "label": item.detection.label,
        "score": round(item.detection.score, 4),
        "box": [round(side, 2) for side in (box.x0, box.y0, box.x1, box.y1)],
        "outcome": item.outcome.value,
        "seed": item.seed,
        "reason": item.reason,
    }


@contextmanager
def _progress(pictures: int) -> Iterator[Progress]:
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


def _say(progress: Progress, line: str) -> None:
    """Print to stdout; where that is the terminal of the bar, above the bar."""
    if not progress.disable and sys.stdout.isatty():
        _print_above(progress, line)
    else:
        typer.echo(line)


def _print_above(progress: Progress, line: str) -> None:
    """Print to stderr, where the bar is."""
    progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
