"""The command itself: its help, its speed, and its errors, which are one line."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import afterdetail

Run = Callable[..., subprocess.CompletedProcess[str]]
ASTRONAUT = "skimage_astronaut.png"


def test_without_arguments_it_shows_its_commands(run: Run) -> None:
    shown = run()
    assert shown.returncode == 0
    assert all(name in shown.stdout for name in ("detail", "detect", "serve", "models"))


def test_it_knows_its_version(run: Run) -> None:
    assert run("--version").stdout == f"afterdetail {afterdetail.__version__}\n"


def test_help_comes_at_once(environment: dict[str, str]) -> None:
    """It waits for none of the libraries that take seconds to import."""
    code = "import sys; from afterdetail.cli.main import main; main(['detail', '--help'])"
    heavy = "{'torch', 'diffusers', 'transformers', 'gradio', 'fastapi', 'cv2', 'scipy'}"
    told = subprocess.run(
        [sys.executable, "-c", f"{code}; print('heavy:', {heavy} & {{*sys.modules}})"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    ).stdout
    assert "--mask-blur" in told
    assert told.endswith("heavy: set()\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mend"], ["No such command", "mend", "see afterdetail --help"]),
        (["detail", "x.png"], ["Missing option", "--out", "see afterdetail detail --help"]),
        (["detail", "x.png", "-o", "{tmp}/y.gif"], ["y.gif", ".png, .jpg"]),
        (["detail", "x.png", "-o", "{tmp}/y.webp"], [".webp is not written"]),
        (["detail", "x.png", "-o", "{tmp}/no/y.png"], ["cannot write", "No such file"]),
        (["detail", "x.png", "-o", "{tmp}/y.png", "--steps", "0"], ["--steps", "greater"]),
        (["detail", "x.png", "-o", "{tmp}/y.png", "--steps", "x"], ["--steps", "integer"]),
        (["detail", "x.png", "-o", "{tmp}/y.png", "--blur", "4"], ["No such option", "--blur"]),
        (["detail", "x.png", "-o", "{tmp}/y.png", "--style-preset", "animee"], ["anime"]),
        (["detect", "missing.png"], ["missing.png", "No such file"]),
        (["detect", "{photos}/../../cli/test_main.py"], ["none of PNG, JPEG, WebP"]),
        (["detect", "{photos}/" + ASTRONAUT, "--detector", "facefull"], ["face_full_mediapipe"]),
        (["detect", "{photos}/" + ASTRONAUT, "--confidence", "2"], ["confidence", "1"]),
        (
            ["detect", "{photos}/" + ASTRONAUT, "--detector", "face_yolov8n"],
            ["afterdetail models pull face_yolov8n"],
        ),
        (["models", "path", "sd15"], ["afterdetail models pull sd15"]),
        (["models", "path", "../tiny"], ["unknown model", "tiny"]),
        (["models", "list", "--models", "no.toml"], ["no.toml", "No such file"]),
        (["serve", "--port", "99999"], ["--port", "65535"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_answered_in_one_line(
    run: Run, photos: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    failed = run(*(argument.format(tmp=tmp_path, photos=photos) for argument in arguments))
    assert failed.returncode == 2
    assert failed.stdout == ""
    (line,) = failed.stderr.splitlines()
    assert line.startswith("afterdetail: ")
    assert all(word in line for word in words)
    assert list(tmp_path.iterdir()) == []


def test_for_those_who_look_for_the_fault_there_is_the_traceback(run: Run) -> None:
    failed = run("detect", "missing.png", AFTERDETAIL_DEBUG="1")
    assert failed.returncode != 0
    assert "Traceback" in failed.stderr
    assert "No such file" in failed.stderr


def test_ctrl_c_ends_it_without_a_traceback_or_half_a_file(
    environment: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(20):
        (tmp_path / "in" / f"{number}.png").symlink_to(photos / ASTRONAUT)
    command = ["detail", tmp_path / "in", "-o", tmp_path / "out", "--models", "tiny", "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "afterdetail", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "num_objects_inpainted" in process.stdout.readline()  # it is at work
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert "Traceback" not in process.stderr.read()
    assert not list((tmp_path / "out").glob(".*"))
    assert len(list((tmp_path / "out").iterdir())) < 20
