"""How a picture was detailed, in words and as JSON."""

from __future__ import annotations

import pytest

from afterdetail.errors import InvalidInput
from afterdetail.images.infotext import model_in, stages_in, told
from afterdetail.images.metadata import Metadata
from afterdetail.options import parse_options

GENERATED = "a cat\nNegative prompt: dog\nSteps: 30, Sampler: Euler, Seed: 7, Size: 8x8"


def parameters(before: str = "", **options: object) -> str:
    metadata = Metadata(texts={"parameters": before} if before else {})
    return told(metadata, [parse_options(options)], "tiny", (64, 32)).texts["parameters"]


def test_a_picture_without_parameters_gets_some() -> None:
    assert parameters(prompt="a, b", negative_prompt="c", seed=5) == (
        "a, b\nNegative prompt: c\n"
        "Steps: 20, Sampler: DDIM, CFG scale: 7.5, Seed: 5, Size: 64x32, Model: tiny, "
        'ADetailer model: face_full_mediapipe, ADetailer prompt: "a, b", '
        "ADetailer negative prompt: c, ADetailer confidence: 0.3, ADetailer dilate erode: 4, "
        "ADetailer mask blur: 4, ADetailer denoising strength: 0.9, ADetailer inpaint padding: 32, "
        "ADetailer version: afterdetail"
    )


def test_the_generator_s_own_stay_in_front() -> None:
    text = parameters(GENERATED, k_largest=2)
    assert text.startswith(f"{GENERATED}, ADetailer model: face_full_mediapipe, ")
    assert "ADetailer mask only top k largest: 2" in text


def test_a_second_turn_replaces_the_first() -> None:
    once = parameters(GENERATED, strength=0.4)
    assert parameters(once, strength=0.5) == parameters(GENERATED, strength=0.5)


def test_stages_are_numbered_as_the_extension_s_tabs() -> None:
    stages = [parse_options({"seed": 5}), parse_options({"detector": "eyes_mesh_mediapipe"})]
    text = told(Metadata(), stages, "tiny", (8, 8)).texts["parameters"]
    assert "Seed: 5" in text
    assert "ADetailer model: face_full_mediapipe" in text
    assert "ADetailer model 2nd: eyes_mesh_mediapipe" in text
    assert text.count("ADetailer version") == 1


def test_folders_are_nobody_s_business() -> None:
    options = parse_options({"detector": "/home/me/face.pt,hand_mediapipe"})
    metadata = told(Metadata(), [options], "tiny", (8, 8))
    assert "/home/me" not in "".join(metadata.texts.values())
    assert stages_in(metadata)[0]["detector"] == "face.pt,hand_mediapipe"


def test_options_are_read_back() -> None:
    given: list[dict[str, object]] = [
        {"prompt": "ü", "seed": [1, 2], "loras": {"x": 0.5}, "sampler": "LCM"},
        {"seed": 3},
    ]
    stages = [parse_options(options) for options in given]
    metadata = told(Metadata(), stages, "tiny", (8, 8))
    assert [parse_options(options) for options in stages_in(metadata)] == stages
    assert model_in(metadata) == "tiny"


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"format": 99}', '{"format": 1}'])
def test_a_picture_that_does_not_say_is_refused(text: str | None) -> None:
    texts = {} if text is None else {"afterdetail": text}
    with pytest.raises(InvalidInput, match="does not say"):
        stages_in(Metadata(texts=texts))
