"""``afterdetail detail`` on real photographs with the embedded model."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from shutil import copy
from typing import Any

import numpy as np
import pytest
from PIL import Image

from afterdetail.cli.main import main

Finished = subprocess.CompletedProcess[str]
Run = Callable[..., Finished]
QUICK = ("--models", "tiny", "--steps", "2", "--seed", "7")


def pixels(file: Path) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(file).convert("RGB"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """A face, something that is no picture, and a picture without faces; ``out`` beside them."""
    folder = tmp_path_factory.mktemp("batch")
    (folder / "in").mkdir()
    copy(photos / "skimage_astronaut.png", folder / "in" / "a.png")
    (folder / "in" / "b.png").write_text("this is no picture")
    copy(photos / "skimage_coffee.png", folder / "in" / "c.png")
    return folder


@pytest.fixture(scope="module")
def batch(run: Run, folder: Path) -> Finished:
    return run("detail", folder / "in", "-o", folder / "out", *QUICK, "--json")


def reports(finished: Finished) -> list[dict[str, Any]]:
    return [json.loads(line) for line in finished.stdout.splitlines()]


def test_json_is_one_object_for_each_picture(batch: Finished, folder: Path) -> None:
    first, second = reports(batch)
    assert first.keys() == {
        "input",
        "output",
        "num_objects_detected",
        "num_objects_inpainted",
        "num_removed_for_safety",
        "objects",
        "timings",
    }
    assert (first["input"], first["output"]) == (
        str(folder / "in" / "a.png"),
        str(folder / "out" / "a.png"),
    )
    assert (second["num_objects_detected"], second["objects"]) == (0, [])


def test_each_object_says_what_happened_to_it(batch: Finished) -> None:
    (face,) = reports(batch)[0]["objects"]
    assert (face["label"], face["outcome"], face["seed"]) == ("face", "inpainted", 7)
    assert 0.5 < face["score"] <= 1
    x0, y0, x1, y1 = face["box"]
    assert 0 <= x0 < 224 < x1 <= 512  # where the astronaut's nose is
    assert 0 <= y0 < 120 < y1 <= 512


def test_timings_are_seconds_by_stage(batch: Finished) -> None:
    timings = reports(batch)[0]["timings"]
    assert {"detect", "mask", "inpaint", "encode"} <= timings.keys()
    assert all(0 <= seconds < 60 for seconds in timings.values())


def test_the_face_is_new_and_the_rest_is_the_input(batch: Finished, folder: Path) -> None:
    assert batch.stdout
    before, after = pixels(folder / "in" / "a.png"), pixels(folder / "out" / "a.png")
    x0, y0, x1, y1 = (round(side) for side in reports(batch)[0]["objects"][0]["box"])
    assert np.mean(before[y0:y1, x0:x1] != after[y0:y1, x0:x1]) > 0.5
    reach = 40  # dilation and blur go no further
    assert np.array_equal(before[y1 + reach :], after[y1 + reach :])
    assert np.array_equal(before[:, x1 + reach :], after[:, x1 + reach :])


def test_a_picture_without_faces_comes_back_as_it_was(batch: Finished, folder: Path) -> None:
    assert batch.stdout
    assert np.array_equal(pixels(folder / "in" / "c.png"), pixels(folder / "out" / "c.png"))


def test_one_bad_picture_does_not_stop_the_others(batch: Finished, folder: Path) -> None:
    assert batch.returncode == 1
    (line,) = batch.stderr.splitlines()
    assert line.startswith(f"afterdetail: {folder / 'in' / 'b.png'}: ")
    assert sorted(file.name for file in (folder / "out").iterdir()) == ["a.png", "c.png"]


@pytest.mark.parametrize(
    ("name", "options", "written"),
    [
        ("x.png", [], "PNG"),
        ("x.jpg", [], "JPEG"),
        ("x.png", ["--image-encoding", "jpeg"], "JPEG"),
    ],
)
def test_the_picture_is_written_as_asked(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    options: list[str],
    written: str,
) -> None:
    source, output = photos / "skimage_astronaut.png", tmp_path / name
    assert main(["detail", str(source), "-o", str(output), *QUICK, *options]) == 0
    assert Image.open(output).format == written
    said = capsys.readouterr().out
    assert said.startswith(f"{source} -> {output}: found face 0.")
    assert "repainted 1 of 1" in said


def test_the_same_seed_gives_the_same_pixels_another_does_not(photos: Path, tmp_path: Path) -> None:
    source = str(photos / "skimage_astronaut.png")
    for name, seed in (("a.png", "3"), ("b.png", "3"), ("c.png", "4")):
        arguments = ["-o", str(tmp_path / name), "--models", "tiny", "--steps", "2", "--seed", seed]
        assert main(["detail", source, *arguments]) == 0
    first, again, other = (pixels(tmp_path / name) for name in ("a.png", "b.png", "c.png"))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--models", "tiny-xl", "--inpainting-base-model", "sd15"], ["sd15", "sdxl"]),
        (["--models", "tiny", "--checkpoint", "dreams"], ["unknown checkpoint", "dreams"]),
        (
            ["--models", "tiny", "--detector", "nose_finder"],
            ["unknown detector", "face_full_mediapipe"],
        ),
        (["--models", "small"], ["unknown base", "small"]),
        (["--models", "sd15"], ["afterdetail models pull sd15"]),
        (["--models", "tiny", "--device", "abacus"], ["abacus", "cpu"]),
    ],
)
def test_what_concerns_every_picture_ends_the_batch_with_one_line(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    words: list[str],
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert main(["detail", str(folder / "in"), "-o", str(tmp_path / "out"), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words)
