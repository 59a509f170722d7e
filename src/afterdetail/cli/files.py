"""Which picture is read from where, written to where and how."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from afterdetail.errors import InvalidInput
from afterdetail.types import Picture

if TYPE_CHECKING:
    from afterdetail.images import Encoding

ENCODINGS: dict[str, Encoding] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}
READABLE = (*ENCODINGS, ".webp")


@dataclass(frozen=True, slots=True)
class Task:
    """One picture to detail."""

    source: Path
    output: Path
    encoding: Encoding


def plan(inputs: Sequence[Path], out: Path, encoding: Encoding | None) -> tuple[Task, ...]:
    """What is written where. A folder stands for the pictures in it (not in folders below it), a
    pattern (``*``, ``?``, ``[``; ``**`` for folders below) for those that match.

    ``out`` is the file of one picture, or the folder of any number, made if it is not there.

    Raises:
        InvalidInput: nothing to do, an extension that is no encoding, two pictures for one file,
            a picture that would overwrite itself, a place that cannot be written to.
    """
    sources = [file for path in inputs for file in _pictures(path)]
    several = any(path.is_dir() or _is_pattern(path) for path in inputs)
    into_folder = out.is_dir() or len(inputs) > 1 or several
    if into_folder:
        _make_folder(out)
        tasks = tuple(_task_in_folder(source, out, encoding) for source in sources)
    else:
        tasks = tuple(Task(source, out, encoding or encoding_of(out)) for source in sources)
    _refuse_collisions(tasks)
    check_writable(out if into_folder else out.parent)
    return tasks


def plan_folder(folder: Path, out: Path, encoding: Encoding | None) -> tuple[Task, ...]:
    """The tasks of the pictures in a folder now; there may be none."""
    return tuple(_task_in_folder(source, out, encoding) for source in _pictures_in(folder))


def prepare_folder(out: Path) -> None:
    """Have a folder to write to.

    Raises:
        InvalidInput: there is none, and it cannot be made or written to.
    """
    _make_folder(out)
    check_writable(out)


def without_done(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """Those whose output is not there. Outputs are written whole, so one that is there is done."""
    return tuple(task for task in tasks if not task.output.exists())


def beside(task: Task) -> Path:
    """Where the picture goes that shows before and after."""
    return task.output.with_name(f"{task.output.stem}.before-after{task.output.suffix}")


def encoding_of(path: Path) -> Encoding:
    """The encoding that a file's extension stands for.

    Raises:
        InvalidInput: it stands for none that can be written.
    """
    try:
        return ENCODINGS[path.suffix.lower()]
    except KeyError:
        given = f"{path.suffix} is not written" if path.suffix else "it has no extension"
        remedy = "use .png, .jpg or .jpeg, or give --image-encoding png or jpeg"
        raise InvalidInput("output_invalid", f"cannot write {path}: {given}; {remedy}") from None


def read(path: Path) -> Picture:
    """Decode a picture.

    Raises:
        InvalidInput: the file cannot be read or is no picture.
    """
    from afterdetail.images import decode

    return decode(read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """
    Raises:
        InvalidInput: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput("input_invalid", f"cannot read {path}: {error.strerror}") from None


def write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: whoever reads it never sees half of it.

    Raises:
        InvalidInput: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            partial.write_bytes(data)
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise
    except OSError as error:
        raise _unwritable(path, error) from None


def check_writable(folder: Path) -> None:
    """Find out before the work that its result could not be kept.

    Raises:
        InvalidInput: there is no such folder, or no file can be made in it.
    """
    probe = folder / f".afterdetail.{os.getpid()}.part"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _unwritable(folder, error) from None


def _pictures(path: Path) -> list[Path]:
    if _is_pattern(path):
        found = sorted(file for file in _matching(path) if _readable(file))
    elif path.is_dir():
        found = _pictures_in(path)
    else:
        return [path]
    if not found:
        known = ", ".join(READABLE)
        raise InvalidInput("input_invalid", f"no pictures in {path}: none of its files is {known}")
    return found


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if _readable(file))


def _matching(pattern: Path) -> Iterator[Path]:
    plain = list(takewhile(lambda part: not _has_wildcard(part), pattern.parts))
    return Path(*plain).glob("/".join(pattern.parts[len(plain) :]))


def _readable(file: Path) -> bool:
    return file.suffix.lower() in READABLE


def _is_pattern(path: Path) -> bool:
    """A file's own name may have brackets in it."""
    return _has_wildcard(str(path)) and not path.exists()


def _has_wildcard(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _make_folder(out: Path) -> None:
    if out.suffix.lower() in READABLE and not out.is_dir():
        message = f"several pictures need a folder to be written to, and {out} names one picture"
        raise InvalidInput("output_invalid", message)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(out, error) from None


def _task_in_folder(source: Path, folder: Path, encoding: Encoding | None) -> Task:
    """A picture keeps its name; its extension too, unless it is of another encoding."""
    own = ENCODINGS.get(source.suffix.lower(), "png")
    wanted = encoding or own
    keeps = ENCODINGS.get(source.suffix.lower()) == wanted
    suffix = source.suffix if keeps else {"png": ".png", "jpeg": ".jpg"}[wanted]
    return Task(source, folder / (source.stem + suffix), wanted)


def _refuse_collisions(tasks: Iterable[Task]) -> None:
    sources: dict[Path, Path] = {}
    for task in tasks:
        output = task.output.resolve()
        if output == task.source.resolve():
            message = f"{task.output} would overwrite itself; give another OUT"
            raise InvalidInput("output_invalid", message)
        if output in sources:
            message = f"{sources[output]} and {task.source} would both be written to {task.output}"
            raise InvalidInput("output_invalid", message)
        sources[output] = task.source


def _unwritable(path: Path, error: OSError) -> InvalidInput:
    return InvalidInput("output_invalid", f"cannot write {path}: {error.strerror}")
