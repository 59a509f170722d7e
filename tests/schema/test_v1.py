"""What the richer endpoint takes, and how its options are inherited."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from afterdetail.results import DetailedObject, Outcome
from afterdetail.schema.translate import RequestInvalid
from afterdetail.schema.v1 import DetailRequest, DetectRequest, parse_call, parse_form, report
from afterdetail.stages import Stage
from afterdetail.types import Box, Detection

PICTURE = base64.b64encode(b"picture").decode()


def body(**fields: Any) -> bytes:
    return json.dumps({"init_image": PICTURE, **fields}).encode()


def test_nothing_but_a_picture_is_one_stage_at_the_defaults() -> None:
    call = parse_call(DetailRequest, body())
    assert call.picture == b"picture"
    assert call.stages == (Stage(),)
    assert call.request.image_encoding == "png"
    assert not call.preview


def test_stages_inherit_what_is_beside_them() -> None:
    stages = [{"prompt": "[PROMPT], eyes", "steps": 9}, {"objects": {"1": {"skip": True}}}]
    first, second = parse_call(
        DetailRequest, body(prompt="a woman", strength=0.3, stages=stages)
    ).stages
    assert (first.prompt, first.main_prompt) == ("[PROMPT], eyes", "a woman")
    assert (first.steps, first.strength) == (9, 0.3)
    assert (second.prompt, second.objects[1].skip) == ("a woman", True)


def test_a_picture_may_be_elsewhere() -> None:
    call = parse_call(DetailRequest, b'{"init_image_url": "https://example.org/a.png"}')
    assert (call.picture, call.image_field) == (None, "init_image_url")


@pytest.mark.parametrize(
    ("given", "loc"),
    [
        (b"{}", ["body"]),
        (body(init_image_url="https://example.org"), ["body"]),
        (b"[]", ["body"]),
        (body(steps=0), ["body", "steps"]),
        (body(stepps=3), ["body", "stepps"]),
        (body(preview=True), ["body", "preview"]),
        (body(tile=128), ["body", "tile"]),
        (body(detector="a," * 200), ["body", "detector"]),
        (body(stages=[]), ["body", "stages"]),
        (body(stages=[{}] * 17), ["body", "stages"]),
        (body(stages=[{}, {"steps": 0}]), ["body", "stages", 1, "steps"]),
        (body(stages=[{"stages": []}]), ["body", "stages", 0, "stages"]),
        (body(objects={"0": {"seed": -1}}), ["body", "objects", "0", "seed"]),
    ],
)
def test_what_is_wrong_is_told_with_its_place(given: bytes, loc: list[str | int]) -> None:
    with pytest.raises(RequestInvalid) as caught:
        parse_call(DetailRequest, given)
    assert caught.value.problems[0].loc == loc


@pytest.mark.parametrize(
    ("given", "closest"),
    [
        (body(strenght=0.4), "strength"),
        (body(stages=[{"detectr": "x"}]), "detector"),
        (body(objects={"0": {"negativ_prompt": "x"}}), "negative_prompt"),
        (body(stages=[{"objects": {"0": {"lora": {}}}}]), "loras"),
    ],
)
def test_of_names_that_there_are_not_the_closest_are_told(given: bytes, closest: str) -> None:
    with pytest.raises(RequestInvalid, match=f"unknown option '.*'; closest: {closest}"):
        parse_call(DetailRequest, given)


def test_options_that_exclude_each_other_are_refused_once_inherited() -> None:
    given = body(union_masks=True, stages=[{"objects": {"0": {"prompt": "x"}}}])
    with pytest.raises(RequestInvalid, match="joined masks"):
        parse_call(DetailRequest, given)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"prompt": "123", "steps": "7"}, {"prompt": "123", "steps": 7}),
        ({"order": "area", "seed": "[1, 2]"}, {"order": "area", "seed": [1, 2]}),
        ({"options": '{"steps": 3, "strength": 0.5}', "steps": "4"}, {"steps": 4, "strength": 0.5}),
        ({"union_masks": "true"}, {"union_masks": True}),
        ({"loras": '{"a": 0.5}'}, {"loras": {"a": 0.5}}),
        ({"prompt": "null"}, {"prompt": "null"}),
    ],
)
def test_a_form_has_text_and_json(fields: dict[str, str], expected: dict[str, Any]) -> None:
    call = parse_form(DetectRequest, {**fields, "preview": "true"}, b"picture")
    assert call.stages == (Stage.model_validate(expected),)
    assert call.preview


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"steps": "x"}, "a number is needed"),
        ({"options": "{"}, "options is not valid JSON"),
        ({"loras": "{"}, "valid dictionary"),
    ],
)
def test_a_form_that_is_wrong_is_refused(fields: dict[str, str], said: str) -> None:
    with pytest.raises(RequestInvalid, match=said):
        parse_form(DetailRequest, fields, b"picture")


def test_an_object_on_the_wire() -> None:
    found = Detection("face", 0.87654, Box(1, 2, 3.456, 4), (((1.0, 2.0), (3.0, 4.125)),))
    told = report(DetailedObject(found, Outcome.SKIPPED, None, "too small", id=3, stage=1))
    assert json.loads(told.model_dump_json()) == {
        "stage": 1,
        "id": 3,
        "label": "face",
        "score": 0.8765,
        "box": [1, 2, 3.46, 4],
        "polygons": [[[1, 2], [3, 4.12]]],
        "outcome": "skipped",
        "reason": "too small",
        "seed": None,
    }
