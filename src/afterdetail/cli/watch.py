"""``--watch``: folders whose new pictures are detailed as they come."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import typer

from afterdetail.cli.batch import Manner, detail_all
from afterdetail.cli.files import Task, plan_folder, prepare_folder
from afterdetail.errors import InvalidInput
from afterdetail.stages import Stage

if TYPE_CHECKING:
    from afterdetail.images import Encoding
    from afterdetail.pipeline import Detailer

POLL_SECONDS = 1.0

State = tuple[int, int]
"""Bytes of a file and when it was written, nanoseconds."""


@dataclass(slots=True)
class Watcher:
    """Sees which pictures in folders are new, or have changed, and are not being written now."""

    folders: tuple[Path, ...]
    out: Path
    encoding: Encoding | None
    _last: dict[Path, State] = field(default_factory=dict)
    _handed_out: dict[Path, State] = field(default_factory=dict)

    @classmethod
    def of(cls, inputs: Sequence[Path], out: Path, encoding: Encoding | None) -> Self:
        """
        Raises:
            InvalidInput: one of the inputs is no folder, or OUT is one of them or cannot be
                written to.
        """
        for path in inputs:
            if not path.is_dir():
                raise InvalidInput("input_invalid", f"--watch takes folders, and {path} is none")
            if path.resolve() == out.resolve():
                message = f"{out} is watched itself; give another OUT"
                raise InvalidInput("output_invalid", message)
        prepare_folder(out)
        return cls(tuple(inputs), out, encoding)

    def ready(self) -> tuple[Task, ...]:
        """Pictures whose files have not changed since the last call, and are not done."""
        tasks = [
            task for folder in self.folders for task in plan_folder(folder, self.out, self.encoding)
        ]
        now = {task.source: state for task in tasks if (state := _state(task.source))}
        settled = [
            task
            for task in tasks
            if (state := now.get(task.source))
            and state == self._last.get(task.source)
            and state != self._handed_out.get(task.source)
            and not _done(task, state)
        ]
        self._last = now
        self._handed_out |= {task.source: now[task.source] for task in settled}
        return tuple(settled)


def watch_folders(
    watcher: Watcher, detailer: Detailer, stages: Sequence[Stage], manner: Manner
) -> None:
    """Detail what comes until Ctrl-C, which is the end and no error."""
    folders = ", ".join(map(str, watcher.folders))
    typer.echo(f"watching {folders}; Ctrl-C ends", err=True)
    try:
        while True:
            tasks = watcher.ready()
            if tasks:
                detail_all(detailer, tasks, stages, manner, raise_for_one=False)
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        return


def _state(file: Path) -> State | None:
    try:
        stat = file.stat()
    except OSError:  # gone again
        return None
    return stat.st_size, stat.st_mtime_ns


def _done(task: Task, state: State) -> bool:
    written = _state(task.output)
    return written is not None and written[1] >= state[1]
