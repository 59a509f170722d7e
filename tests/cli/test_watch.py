"""Which pictures are ready is told from the files alone; one run of the command has the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from shutil import copy

import pytest

from afterdetail.cli.watch import Watcher
from afterdetail.errors import InvalidInput


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path


@pytest.fixture
def watcher(folder: Path) -> Watcher:
    return Watcher.of([folder / "in"], folder / "out", None)


def names(watcher: Watcher) -> list[str]:
    return [task.source.name for task in watcher.ready()]


def test_an_empty_folder_has_nothing(watcher: Watcher) -> None:
    assert names(watcher) == []


def test_a_picture_is_ready_when_it_has_stopped_growing(watcher: Watcher, folder: Path) -> None:
    file = folder / "in" / "a.png"
    file.write_bytes(b"half")
    assert names(watcher) == []
    file.write_bytes(b"half and half")
    assert names(watcher) == []
    assert names(watcher) == ["a.png"]


def test_a_picture_is_handed_out_once_until_it_changes(watcher: Watcher, folder: Path) -> None:
    file = folder / "in" / "a.png"
    file.write_bytes(b"one")
    assert [names(watcher) for _ in range(3)] == [[], ["a.png"], []]
    file.write_bytes(b"other")
    assert [names(watcher) for _ in range(3)] == [[], ["a.png"], []]


def test_a_picture_with_a_newer_output_is_done(watcher: Watcher, folder: Path) -> None:
    (folder / "in" / "a.png").write_bytes(b"one")
    (folder / "out" / "a.png").write_bytes(b"done")
    assert [names(watcher) for _ in range(3)] == [[], [], []]
    os.utime(folder / "out" / "a.png", (0, 0))
    assert names(watcher) == ["a.png"]


def test_only_folders_are_watched(folder: Path) -> None:
    (folder / "a.png").touch()
    with pytest.raises(InvalidInput, match="--watch takes folders"):
        Watcher.of([folder / "a.png"], folder / "out", None)


def test_the_output_folder_is_not_watched(folder: Path) -> None:
    with pytest.raises(InvalidInput, match="is watched itself"):
        Watcher.of([folder / "in"], folder / "in" / ".", None)


def test_ctrl_c_ends_it_well(folder: Path, photos: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "afterdetail", "detail", str(folder / "in"), "--watch", "-o"]
    options = [str(folder / "out"), "--models", "tiny", "--steps", "1", "--strength", "0.3"]
    process = subprocess.Popen([*command, *options], env=environment)
    try:
        copy(photos / "skimage_astronaut.png", folder / "in" / "a.png")
        deadline = time.monotonic() + 90
        while not (folder / "out" / "a.png").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline, "nothing was detailed"
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
