"""What a picture says of itself, and doing it again from that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from afterdetail.cli.main import main

OPTIONS = ("--models", "tiny", "--steps", "3", "--strength", "0.7", "--prompt", "a, b: c")


def pixels(file: Path) -> np.ndarray[Any, Any]:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def face(photos: Path) -> Path:
    return photos / "skimage_astronaut.png"


@pytest.fixture(scope="module")
def detailed(face: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("again") / "detailed.png"
    assert main(["detail", str(face), "-o", str(out), *OPTIONS, "--side-by-side"]) == 0
    return out


def test_it_says_how_it_was_made(detailed: Path) -> None:
    with Image.open(detailed) as image:
        text = image.text  # type: ignore[attr-defined]
    assert text["parameters"].startswith("a, b: c\nSteps: 3, Sampler: DDIM, CFG scale: 7.5, Seed: ")
    assert 'ADetailer prompt: "a, b: c"' in text["parameters"]
    assert text["Comment"].startswith("File written by")  # the original's own


def test_both_sides_are_in_one_picture(detailed: Path, face: Path) -> None:
    both = pixels(detailed.with_name("detailed.before-after.png"))
    assert np.array_equal(both, np.hstack([pixels(face), pixels(detailed)]))


def test_from_the_original_the_same_picture_comes_again(
    detailed: Path, face: Path, tmp_path: Path
) -> None:
    out = tmp_path / "again.png"
    assert main(["again", str(detailed), "--from", str(face), "-o", str(out)]) == 0
    assert np.array_equal(pixels(out), pixels(detailed))


def test_options_given_are_in_place_of_those_told(
    detailed: Path, face: Path, tmp_path: Path
) -> None:
    out = tmp_path / "stronger.png"
    given = ("--from", str(face), "-o", str(out), "--strength", "1", "--memory", "low")
    assert main(["again", str(detailed), *given]) == 0
    assert not np.array_equal(pixels(out), pixels(detailed))
    with Image.open(out) as image:
        said = json.loads(image.text["afterdetail"])  # type: ignore[attr-defined]
    assert said["stages"][0].items() >= {"strength": 1.0, "steps": 3, "prompt": "a, b: c"}.items()


def test_without_metadata_there_is_nothing_to_go_by(
    face: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["again", str(face), "-o", str(tmp_path / "x.png")]) == 2
    assert "skimage_astronaut.png: the picture does not say how it" in capsys.readouterr().err


def test_metadata_can_be_left_out(face: Path, tmp_path: Path) -> None:
    out = tmp_path / "bare.png"
    assert main(["detail", str(face), "-o", str(out), *OPTIONS, "--no-metadata"]) == 0
    with Image.open(out) as image:
        assert image.text == {}  # type: ignore[attr-defined]


def test_a_dry_run_draws_what_would_be_repainted(
    face: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "masks.png"
    # sd15 is not on this machine, and need not be.
    assert main(["detail", str(face), "-o", str(out), "--dry-run"]) == 0
    assert "found face 0.91; would repaint 1 of 1" in capsys.readouterr().out
    changed = (pixels(out) != pixels(face)).any(axis=2)
    assert 0.01 < changed.mean() < 0.2
