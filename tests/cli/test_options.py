"""Request fields as options of a command."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import typer

from afterdetail.cli.detail import detail
from afterdetail.cli.options import takes_changes, takes_detail_options
from afterdetail.errors import InvalidInput
from afterdetail.options import LibraryOptions


def parsed(*arguments: str) -> LibraryOptions:
    """What a command with these options would be given."""
    given: list[LibraryOptions] = []
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    def command(options: LibraryOptions) -> None:
        given.append(options)

    app.command()(takes_detail_options(command))
    app(list(arguments), standalone_mode=False)
    return given[0]


def test_nothing_given_is_all_defaults() -> None:
    assert parsed() == LibraryOptions()


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        ([], {}),
        (["--strength", "0.9"], {"strength": 0.9}),  # the default, but given
        (["--seed", "5", "--sampler", "lms"], {"seed": 5, "sampler": "LMS"}),
        (["--union-masks", "--no-color-match"], {"union_masks": True, "color_match": False}),
    ],
)
def test_changes_are_what_was_given(arguments: list[str], changes: dict[str, Any]) -> None:
    given: list[dict[str, object]] = []
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    def command(changes: dict[str, object]) -> None:
        given.append(changes)

    app.command()(takes_changes(command))
    app(arguments, standalone_mode=False)
    assert given == [changes]


def test_every_request_field_is_an_option_of_detail() -> None:
    parameters = inspect.signature(detail).parameters
    assert LibraryOptions.model_fields.keys() <= parameters.keys()
    assert "options" not in parameters


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        (["--prompt", "a (happy) face"], {"prompt": "a (happy) face"}),
        (["--negative-prompt", "blurry"], {"negative_prompt": "blurry"}),
        (["--sampler", "k_euler"], {"sampler": "K_EULER"}),
        (["--sampler", "UNI_PC"], {"sampler": "UNI_PC"}),
        (["--steps", "7"], {"steps": 7}),
        (["--inpainting-base-model", "sd15"], {"inpainting_base_model": "sd15"}),
        (["--checkpoint", "mine"], {"checkpoint": "mine"}),
        (["--lora", "a=0.5", "--loras", "b"], {"loras": {"a": 0.5, "b": None}}),
        (["--lora", "a=-1"], {"loras": {"a": -1.0}}),
        (["--use-refiner"], {"use_refiner": True}),
        (["--style-preset", "Pokémon"], {"style_preset": "Pokémon"}),
        (["--strength", "0.25"], {"strength": 0.25}),
        (["--cfg-scale", "1"], {"cfg_scale": 1.0}),
        (["--seed", "5"], {"seed": 5}),
        (["--seed", "5", "--seed", "9"], {"seed": [5, 9]}),
        (["--mask-dilation", "0"], {"mask_dilation": 0}),
        (["--mask-blur", "12"], {"mask_blur": 12}),
        (["--mask-padding", "64"], {"mask_padding": 64}),
        (["--max-num-detections", "3"], {"max_num_detections": 3}),
        (["--confidence", "0"], {"confidence": 0.0}),
        (["--detector", "face_yolov8n"], {"detector": "face_yolov8n"}),
        (["--detector", "a,b.pt"], {"detector": "a,b.pt"}),
        (["--tile", "640"], {"tile": 640}),
        (["--union-masks"], {"union_masks": True}),
        (["--no-prompt-marks"], {"prompt_marks": False}),
    ],
)
def test_an_option_sets_its_field(arguments: list[str], fields: dict[str, Any]) -> None:
    assert parsed(*arguments) == LibraryOptions(**fields)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--steps", "0"], "--steps: "),
        (["--strength", "nan"], "--strength: "),
        (["--cfg-scale", "51"], "--cfg-scale: "),
        (["--seed", "0"], "--seed: Input should be greater than 0"),
        (["--sampler", "euler"], "--sampler: unknown sampler 'EULER'; closest: K_EULER"),
        (["--seed", "1", "--seed", "4294967296"], "--seed: "),
        (["--mask-blur", "-1"], "--mask-blur: "),
        (["--lora", "a=much"], "--lora: 'a=much' is not NAME=WEIGHT"),
        (["--lora", "a=inf"], "--loras: "),
    ],
)
def test_a_value_out_of_range_names_its_option(arguments: list[str], named: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parsed(*arguments)
    assert str(caught.value).startswith(named)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "many"], "'--steps': Input should be a valid integer"),
        (["--order", "best"], "'best' is not one of 'confidence'"),
        (["--mask-feather", "3"], "No such option: --mask-feather"),
    ],
)
def test_what_is_no_value_or_no_option_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(typer.TyperException) as caught:
        parsed(*arguments)
    assert message.lower() in caught.value.format_message().lower()
