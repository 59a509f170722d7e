"""One validation for the library, the command line and HTTP."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from afterdetail.errors import InvalidInput, UnknownName
from afterdetail.options import MAX_PROMPT, MAX_SEED, DetailOptions, Sampler, parse_options


def test_the_library_takes_a_little_more_than_the_endpoint() -> None:
    more = parse_options({}).model_dump().items() - DetailOptions().model_dump().items()
    assert dict(more) == {
        "tile": None,
        "order": "confidence",
        "min_area_ratio": 0.0,
        "max_area_ratio": 1.0,
        "k_largest": None,
        "mask_offset_x": 0,
        "mask_offset_y": 0,
        "invert_masks": False,
        "soft_inpainting": False,
        "color_match": False,
        "clip_skip": None,
        "inpaint_size": None,
        "size_conditioning": None,
        "prompt_marks": True,
        "main_prompt": None,
        "main_negative_prompt": None,
    }


def test_only_the_library_shrinks_masks() -> None:
    assert parse_options({"mask_dilation": -4}).mask_dilation == -4
    with pytest.raises(ValidationError, match="mask_dilation"):
        DetailOptions(mask_dilation=-1)


def test_no_options_are_the_defaults_of_the_contract() -> None:
    assert DetailOptions().model_dump(mode="json") == {
        "prompt": None,
        "negative_prompt": None,
        "sampler": "DDIM",
        "steps": 20,
        "inpainting_base_model": None,
        "checkpoint": None,
        "loras": None,
        "use_refiner": False,
        "style_preset": "base",
        "strength": 0.9,
        "cfg_scale": 7.5,
        "seed": None,
        "mask_dilation": 4,
        "mask_blur": 4,
        "mask_padding": 32,
        "max_num_detections": None,
        "confidence": 0.3,
        "detector": "face_full_mediapipe",
        "union_masks": False,
    }


@pytest.mark.parametrize(
    ("field", "given", "kept"),
    [
        ("steps", 20.0, 20),
        ("steps", np.int64(3), 3),
        ("strength", 1, 1.0),
        ("strength", np.float32(0.5), 0.5),
        ("seed", 1, 1),
        ("seed", MAX_SEED, MAX_SEED),
        ("seed", (3, 4.0), [3, 4]),
        ("sampler", "K_EULER", Sampler.K_EULER),
        ("loras", {"a": None, "b": 0, "c": -1.5}, {"a": None, "b": 0.0, "c": -1.5}),
        ("confidence", 0, 0.0),
        ("mask_blur", 65_535, 65_535),
        ("max_num_detections", 10**30, 10**30),
        ("prompt", "", ""),
    ],
)
def test_accepts(field: str, given: object, kept: object) -> None:
    value = getattr(parse_options({field: given}), field)
    assert value == kept
    assert type(value) is type(kept)


WRONG: list[tuple[str, Any]] = [
    ("prompt", 5),
    ("prompt", "x" * (MAX_PROMPT + 1)),
    ("sampler", "ddim"),
    ("sampler", None),
    ("steps", 0),
    ("steps", 201),
    ("steps", 1.5),
    ("steps", True),
    ("steps", "20"),
    ("steps", math.nan),
    ("steps", 10**400),
    ("inpainting_base_model", "sd21"),
    ("checkpoint", 1),
    ("loras", ["a"]),
    ("loras", {"a": "1"}),
    ("loras", {"a": math.inf}),
    ("use_refiner", 1),
    ("use_refiner", "true"),
    ("style_preset", None),
    ("strength", 0),
    ("strength", 1.01),
    ("strength", math.nan),
    ("strength", -math.inf),
    ("cfg_scale", 0),
    ("cfg_scale", 50.5),
    ("cfg_scale", 10**400),
    ("seed", 0),
    ("seed", MAX_SEED + 1),
    ("seed", -1),
    ("seed", 1.5),
    ("seed", "1"),
    ("seed", []),
    ("seed", [1, 0]),
    ("seed", {"a": 1}),
    ("mask_blur", 65_536),
    ("mask_padding", 1e300),
    ("max_num_detections", 0),
    ("order", "size"),
    ("min_area_ratio", -0.1),
    ("max_area_ratio", 1.1),
    ("k_largest", 0),
    ("mask_offset_x", 70_000),
    ("inpaint_size", "512"),
    ("inpaint_size", "0x512"),
    ("size_conditioning", "512"),
    ("size_conditioning", "512x512+8"),
    ("confidence", -0.1),
    ("confidence", 1.1),
    ("detector", None),
    ("union_masks", 0),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_refuses_naming_the_field(field: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=field) as caught:
        parse_options({field: value})
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


def test_an_unknown_option_is_told_the_closest_names() -> None:
    with pytest.raises(UnknownName, match="mask_blur"):
        parse_options({"mask_blurr": 3})


def test_options_cannot_be_changed() -> None:
    options = DetailOptions()
    with pytest.raises(ValidationError):
        options.steps = 3


def test_the_first_wrong_seed_of_a_list_ends_its_reading() -> None:
    with pytest.raises(ValidationError) as caught:
        DetailOptions.model_validate({"seed": [0] * 1000})
    assert caught.value.error_count() == 1


@pytest.mark.parametrize("field", DetailOptions.model_fields)
def test_every_option_is_described(field: str) -> None:
    assert DetailOptions.model_fields[field].description
