"""Stages, and what they inherit."""

from __future__ import annotations

from typing import Any

import pytest

from afterdetail.errors import InvalidInput, UnknownName
from afterdetail.options import DetailOptions
from afterdetail.stages import MAX_STAGES, Stage, as_stage, parse_stages


def test_without_stages_there_is_one() -> None:
    assert parse_stages(None, {"steps": 3}) == (Stage(steps=3),)


def test_stages_inherit_what_they_do_not_say() -> None:
    first, second = parse_stages(
        [{"detector": "face_yolov8n"}, {"steps": 9}], {"steps": 3, "strength": 0.2}
    )
    assert (first.detector, first.steps, first.strength) == ("face_yolov8n", 3, 0.2)
    assert (second.steps, second.strength) == (9, 0.2)


def test_the_shared_prompt_is_the_main_one_of_stages_with_their_own() -> None:
    first, second = parse_stages([{"prompt": "[PROMPT], eyes"}, {}], {"prompt": "a woman"})
    assert (first.prompt, first.main_prompt) == ("[PROMPT], eyes", "a woman")
    assert (second.prompt, second.main_prompt) == ("a woman", None)


@pytest.mark.parametrize("count", [0, MAX_STAGES + 1])
def test_a_call_has_some_stages(count: int) -> None:
    with pytest.raises(InvalidInput, match="stages"):
        parse_stages([{}] * count, {})


@pytest.mark.parametrize("stages", [{"detector": "x"}, ["x"], [None]])
def test_stages_are_options_by_name(stages: Any) -> None:
    with pytest.raises(InvalidInput, match="stages: a list is needed"):
        parse_stages(stages, {})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"stepps": 3}, "steps"),
        ({"objects": {"x": {}}}, "objects.x"),
        ({"objects": {-1: {}}}, "objects.-1"),
        ({"objects": {0: {"promt": "a"}}}, "objects.0.promt"),
        ({"objects": {0: {"strength": 0}}}, "objects.0.strength"),
        ({"objects": {0: {"seed": 0}}}, "objects.0.seed"),
        ({"objects": {0: {"seed": 3}}, "union_masks": True}, "objects: 0"),
        ({"objects": {0: {"prompt": "x"}}, "invert_masks": True}, "objects: 0"),
        ({"objects": {number: {} for number in range(300)}}, "objects"),
    ],
)
def test_what_is_wrong_is_named(options: dict[str, Any], told: str) -> None:
    with pytest.raises((InvalidInput, UnknownName), match=told) as caught:
        parse_stages([options], {})
    assert "\n" not in str(caught.value)
    assert caught.value.field in options


def test_ids_may_be_text_as_in_json() -> None:
    (stage,) = parse_stages([{"objects": {"2": {"skip": True}}}], {})
    assert stage.objects[2].skip


def test_the_endpoints_prompts_are_plain_text() -> None:
    stage = as_stage(DetailOptions(prompt="a [SEP] b", steps=3))
    assert (stage.prompt_marks, stage.prompt, stage.steps) == (False, "a [SEP] b", 3)
    assert as_stage(stage) is stage
