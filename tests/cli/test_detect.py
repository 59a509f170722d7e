"""``afterdetail detect``: JSON, text, previews, and no diffusion model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from afterdetail.cli.main import main


def test_nothing_found_is_an_empty_list(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", str(photos / "skimage_coffee.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("detector", "label", "polygons"),
    [
        ("face_full_mediapipe", "face", 0),
        ("face_mesh_mediapipe", "face", 1),
        ("eyes_mesh_mediapipe", "eyes", 2),
    ],
)
def test_json_lists_objects_with_box_and_outline(
    photos: Path, capsys: pytest.CaptureFixture[str], detector: str, label: str, polygons: int
) -> None:
    source = str(photos / "skimage_astronaut.png")
    assert main(["detect", source, "--detector", detector, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found.keys() == {"label", "score", "box", "polygons"}
    assert found["label"] == label
    assert 0 < found["score"] <= 1
    x0, y0, x1, y1 = found["box"]
    assert 0 <= x0 < x1 <= 512
    assert 0 <= y0 < y1 <= 512
    assert len(found["polygons"]) == polygons
    assert all(0 <= x <= 512 and 0 <= y <= 512 for part in found["polygons"] for x, y in part)


def test_text_has_a_line_for_each_object(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", str(photos / "skimage_astronaut.png")]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.endswith("skimage_astronaut.png: found 1")
    assert line.startswith("  face 0.")


@pytest.mark.parametrize(("name", "written"), [("x.png", "PNG"), ("x.jpg", "JPEG")])
def test_a_preview_shows_what_was_found(
    photos: Path, tmp_path: Path, name: str, written: str
) -> None:
    source, preview = photos / "skimage_astronaut.png", tmp_path / name
    assert main(["detect", str(source), "--preview", str(preview)]) == 0
    image = Image.open(preview)
    assert image.format == written
    assert not np.array_equal(np.asarray(image), np.asarray(Image.open(source).convert("RGB")))


def test_a_preview_that_cannot_be_written_is_refused_at_once(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preview = tmp_path / "nowhere" / "x.png"
    assert main(["detect", str(photos / "skimage_coffee.png"), "--preview", str(preview)]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_no_diffusion_model_is_loaded_and_not_even_torch(photos: Path) -> None:
    code = (
        "import sys; from afterdetail.cli.main import main; "
        f"code = main(['detect', {str(photos / 'skimage_astronaut.png')!r}, '--json']); "
        "print(code, [name for name in ('torch', 'diffusers') if name in sys.modules])"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert finished.stdout.splitlines()[-1] == "0 []"
