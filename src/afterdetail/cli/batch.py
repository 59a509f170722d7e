"""Pictures in, detailed pictures out: a few at a time, so that their objects share forwards."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from afterdetail.cli.files import Task, beside, read_bytes, write
from afterdetail.cli.report import Done, print_above, progress_of, say
from afterdetail.errors import AfterdetailError, InvalidInput, ModelUnavailable, WeightsError
from afterdetail.options import LibraryOptions, seeded
from afterdetail.stages import Stage

if TYPE_CHECKING:
    from afterdetail.lifetime import Lifetime
    from afterdetail.pipeline import Detailer
    from afterdetail.types import Picture

AT_ONCE = 4
"""Pictures in work at a time: enough to fill the engine's forwards, few enough for memory."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How pictures are written, whatever is repainted in them.

    ``dry_run``: nothing is repainted; what is written shows what would be.
    """

    as_json: bool = False
    side_by_side: bool = False
    metadata: bool = True
    dry_run: bool = False


def detail_all(
    detailer: Detailer,
    tasks: Sequence[Task],
    stages: Sequence[Stage],
    manner: Manner,
    *,
    raise_for_one: bool = True,
) -> int:
    """Detail the pictures and tell of each in their order; returns how many were not written.

    Raises:
        AfterdetailError: what concerns every picture; and, with ``raise_for_one``, what is wrong
            with the only one.
    """
    failed = 0
    with progress_of(len(tasks)) as progress, _several_at_once(detailer, stages, manner) as run:
        for task, result in progress.track(run(tasks), total=len(tasks), description="detailing"):
            try:
                done = result()
            except AfterdetailError as error:
                if (raise_for_one and len(tasks) == 1) or _concerns_every_picture(error):
                    raise
                failed += 1
                print_above(progress, f"afterdetail: {task.source}: {error}")
            else:
                failed += done.output is None
                say(progress, json.dumps(done.as_json()) if manner.as_json else done.as_text())
    return failed


Results = Iterator[tuple[Task, Callable[[], Done]]]


@contextmanager
def _several_at_once(
    detailer: Detailer, stages: Sequence[Stage], manner: Manner
) -> Iterator[Callable[[Sequence[Task]], Results]]:
    """Work on a few pictures at a time: the engine denoises all their objects together.

    Whoever leaves early, by an error or Ctrl-C, leaves no picture behind in the engine.
    """
    from afterdetail.lifetime import Lifetime

    lifetime = Lifetime()
    pool = ThreadPoolExecutor(AT_ONCE)
    work = Work(detailer, stages, manner, lifetime)

    def results_of(tasks: Sequence[Task]) -> Results:
        begun: deque[tuple[Task, Future[Done]]] = deque()
        for task in tasks:
            begun.append((task, pool.submit(work.do, task)))
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


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What is done with each picture."""

    detailer: Detailer
    stages: Sequence[Stage]
    manner: Manner
    lifetime: Lifetime

    def do(self, task: Task) -> Done:
        return self._look(task) if self.manner.dry_run else self._detail(task)

    def _look(self, task: Task) -> Done:
        from afterdetail.images import encode
        from afterdetail.preview import draw

        started = perf_counter()
        seen = self.detailer.dry_run(task.source, stages=_plain(self.stages))
        drawn = draw(seen.picture, [item.detection for item in seen.objects], seen.masks)
        write(task.output, encode(drawn, task.encoding))
        timings = {"detect": perf_counter() - started}
        return Done(task.source, task.output, seen.objects, 0, timings, dry=True)

    def _detail(self, task: Task) -> Done:
        stages = [seeded(stage) for stage in self.stages]
        result = self.detailer.detail(task.source, stages=_plain(stages), lifetime=self.lifetime)
        started = perf_counter()
        if not result.withheld:
            self._write(task, result.picture, stages)
        timings = {**result.timings, "encode": perf_counter() - started}
        output = None if result.withheld else task.output
        return Done(task.source, output, result.objects, result.jobs_refused, timings)

    def _write(self, task: Task, picture: Picture, stages: Sequence[Stage]) -> None:
        from afterdetail.images import decode, encode
        from afterdetail.images.infotext import finished
        from afterdetail.models.choose import choose

        given = read_bytes(task.source)
        if self.manner.metadata:
            model = choose(stages[0], picture.size, self.detailer.catalogue).model.name
            data = finished(picture, task.encoding, given, stages, model)
        else:
            data = encode(picture, task.encoding)
        write(task.output, data)
        if self.manner.side_by_side:
            both = _joined(decode(given), picture)
            write(beside(task), encode(both, task.encoding))


def _plain(stages: Sequence[Stage]) -> list[dict[str, object]]:
    """As the library takes them."""
    return [stage.model_dump() for stage in stages]


def _joined(before: Picture, after: Picture) -> Picture:
    """Both pictures in one: next to each other, the second on the right."""
    import numpy as np

    from afterdetail.types import Picture

    return Picture(np.hstack([before.rgb, after.rgb]), icc_profile=after.icc_profile)


def _concerns_every_picture(error: AfterdetailError) -> bool:
    """Whether the next picture would fail the same way: an option is wrong, a model missing."""
    if isinstance(error, InvalidInput) and error.field in LibraryOptions.model_fields:
        return True
    return isinstance(error, (ModelUnavailable, WeightsError))
