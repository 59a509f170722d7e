"""Several turns of finding and repainting, written down in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from afterdetail.cli.main import main
from afterdetail.cli.stages import stages_of
from afterdetail.errors import InvalidInput
from afterdetail.options import parse_options
from afterdetail.stages import Stage

JSON = """[{}, {"detector": "eyes_mesh_mediapipe", "prompt": "[PROMPT], green", "strength": 0.3}]"""
TOML = """
[[stage]]

[[stage]]
detector = "eyes_mesh_mediapipe"
prompt = "[PROMPT], green"
strength = 0.3
"""


def test_without_a_file_the_options_are_the_only_stage() -> None:
    assert stages_of(None, parse_options({"steps": 3})) == (Stage(steps=3),)


@pytest.mark.parametrize(("name", "text"), [("stages.json", JSON), ("stages.toml", TOML)])
def test_options_are_for_every_stage_without_its_own(name: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    assert stages_of(file, parse_options({"prompt": "a woman", "strength": 0.5})) == (
        Stage(prompt="a woman", strength=0.5),
        Stage(
            detector="eyes_mesh_mediapipe",
            prompt="[PROMPT], green",
            main_prompt="a woman",
            strength=0.3,
        ),
    )


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "", "not JSON"),
        ("a.toml", "x=", "not TOML"),
        ("a.json", "{}", "needs a list of JSON objects"),
        ("a.toml", "stage = 1", r"needs \[\[stage\]\] tables"),
        ("a.json", "[]", "a call has 1 to 16"),
        ("a.json", '[{"detectr": "x"}]', "unknown option 'detectr'; closest: detector"),
        ("a.toml", "[[stage]]\nsteps = 0", "steps: Input should be greater"),
    ],
)
def test_a_file_that_is_wrong_is_named(name: str, text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match=rf"{name}: .*{said}"):
        stages_of(file, parse_options({}))


def test_a_picture_in_two_stages_can_be_made_again(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "stages.toml").write_text(TOML, encoding="utf-8")
    face, out, again = (str(tmp_path / name) for name in ("face.png", "out.png", "again.png"))
    with Image.open(photos / "skimage_astronaut.png") as image:
        image.crop((100, 0, 356, 256)).save(face)
    stages = ("--stages", str(tmp_path / "stages.toml"))
    assert main(["detail", face, "-o", out, "--models", "tiny", "--steps", "3", *stages]) == 0
    assert main(["again", out, "--from", face, "-o", again]) == 0
    with Image.open(out) as one, Image.open(again) as other:
        assert "ADetailer model 2nd: eyes_mesh_mediapipe" in one.text["parameters"]  # type: ignore[attr-defined]
        assert np.array_equal(np.asarray(one), np.asarray(other))
