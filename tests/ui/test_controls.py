"""Every option has a control, and what a control holds is the option."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("gradio", reason="needs Gradio: pip install 'afterdetail[ui]'")

from afterdetail.errors import InvalidInput
from afterdetail.models.catalogue import load_catalogue
from afterdetail.options import LibraryOptions
from afterdetail.stages import Stage
from afterdetail.ui.controls import ABOUT, FIELDS, FINDING, SHAPING, build, stage_of

TYPED_ELSEWHERE = {"prompt_marks", "main_prompt", "main_negative_prompt"}
"""For programs: what the whole picture was made with is not known here."""


@pytest.fixture(scope="module")
def at_first() -> dict[str, Any]:
    """What the controls hold when nobody has touched them."""
    catalogue = load_catalogue("tiny")
    return {field: build(field, catalogue).value for field in FIELDS}


def stage(at_first: dict[str, Any], **changed: Any) -> Stage:
    return stage_of([*(at_first | changed).values()])


def test_untouched_they_are_the_defaults(at_first: dict[str, Any]) -> None:
    assert stage(at_first).model_dump() == Stage().model_dump()


def test_every_option_has_one() -> None:
    assert set(FIELDS) == LibraryOptions.model_fields.keys() - TYPED_ELSEWHERE
    assert len(set(FIELDS)) == len(FIELDS)
    assert ABOUT.keys() == set(FIELDS)
    assert {*FINDING, *SHAPING} <= set(FIELDS)


@pytest.mark.parametrize(
    ("field", "held", "meant"),
    [
        ("prompt", "  a face ", "a face"),
        ("seed", "7", 7),
        ("seed", "7, 8,", [7, 8]),
        ("max_num_detections", 0, None),
        ("k_largest", 2, 2),
        ("loras", "freckles=0.8, old : 1.5, plain", {"freckles": 0.8, "old": 1.5, "plain": 1}),
        ("clip_skip", "0", 0),
        ("inpaint_size", "128x128", "128x128"),
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
