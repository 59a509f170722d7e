"""Every option has a control, and what a control holds is the option."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("gradio", reason="needs Gradio: pip install 'afterdetail[ui]'")

from afterdetail.errors import InvalidInput
from afterdetail.models.catalogue import load_catalogue
from afterdetail.stages import Stage
from afterdetail.ui.controls import ABOUT, FIELDS, FINDING, SHAPING, build, outline_of, stage_of

TYPED_ELSEWHERE = {"prompt_marks", "main_prompt", "main_negative_prompt"}
"""For programs: what the whole picture was made with is not known here."""


@pytest.fixture(scope="module")
def at_first() -> dict[str, Any]:
    """What the controls hold when nobody has touched them."""
    catalogue = load_catalogue("tiny")
    return {field: build(field, catalogue).value for field in FIELDS}


def stage(at_first: dict[str, Any], **changed: Any) -> Stage:
    return stage_of([*(at_first | changed).values()])


def test_untouched_they_are_the_defaults_but_for_what_people_start_with(
    at_first: dict[str, Any],
) -> None:
    assert stage(at_first).model_dump() == Stage(strength=0.4).model_dump()


def test_every_option_has_one() -> None:
    assert set(FIELDS) == Stage.model_fields.keys() - TYPED_ELSEWHERE
    assert len(set(FIELDS)) == len(FIELDS)
    assert ABOUT.keys() == set(FIELDS)
    assert {*FINDING, *SHAPING} <= set(FIELDS)


@pytest.mark.parametrize(
    ("field", "held", "meant"),
    [
        ("prompt", "  a face ", "a face"),
        ("detector", ["face_full_mediapipe"], "face_full_mediapipe"),
        (
            "detector",
            ["hand_mediapipe", "eyes_mesh_mediapipe"],
            "hand_mediapipe,eyes_mesh_mediapipe",
        ),
        ("seed", "7", 7),
        ("seed", "7, 8,", [7, 8]),
        ("max_num_detections", 0, None),
        ("k_largest", 2, 2),
        ("loras", "freckles=0.8, old : 1.5, plain", {"freckles": 0.8, "old": 1.5, "plain": 1}),
        ("clip_skip", "0", 0),
        ("inpaint_size", "128x128", "128x128"),
        ("size_conditioning", " ", None),
        ("size_conditioning", "64x96+0+8", "64x96+0+8"),
        ("sampler", "LCM", "LCM"),
        ("steps", 30.0, 30),
    ],
)
def test_what_is_typed_is_understood(
    at_first: dict[str, Any], field: str, held: object, meant: object
) -> None:
    assert getattr(stage(at_first, **{field: held}), field) == meant


@pytest.mark.parametrize(
    ("field", "held", "message"),
    [
        ("seed", "lucky", "Seed: 'lucky' is not a whole number"),
        ("seed", "0", "Seed: "),
        ("loras", "freckles=much", "LoRAs: 'freckles=much' is not written as name=weight"),
        ("detector", [], "Detectors: choose at least one"),
        ("objects", "an old man", "Prompts of single objects: 'an old man' is not written as"),
        ("steps", 0, "Steps: "),
        ("cfg_scale", 99, "CFG scale: "),
    ],
)
def test_what_is_wrong_is_named_by_its_label(
    at_first: dict[str, Any], field: str, held: object, message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        stage(at_first, **{field: held})
    assert str(caught.value).startswith(message)


def test_objects_left_out_by_hand_are_skipped(at_first: dict[str, Any]) -> None:
    made = stage_of([*at_first.values()], {3, 1})
    assert {number: options.skip for number, options in made.objects.items()} == {1: True, 3: True}


def test_single_objects_have_prompts_of_their_own(at_first: dict[str, Any]) -> None:
    held = at_first | {"objects": "0: an old man\n\n 2 = a (x:1.2) girl "}
    made = stage_of([*held.values()], {2, 4})
    assert {number: options.prompt for number, options in made.objects.items()} == {
        0: "an old man",
        2: None,
        4: None,
    }
    assert made.objects[2].skip, "what was left out by hand stays out"


def test_what_is_found_does_not_depend_on_how_it_is_painted(at_first: dict[str, Any]) -> None:
    held = at_first | {"seed": "lucky", "loras": "x=y", "objects": "?", "mask_blur": 9}
    assert outline_of([*held.values()]).mask_blur == 9
