"""What a caller can ask for: one record, validated in one place for library, command line and HTTP.

Defaults and ranges are those of the endpoint's contract; a wrong value raises
:class:`~afterdetail.errors.InvalidInput` (library) or is answered 422 (HTTP), naming the field.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from enum import StrEnum
from numbers import Integral
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictStr,
    Tag,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from afterdetail.errors import InvalidInput, UnknownName
from afterdetail.types import GEOMETRY, SIZE


class Base(StrEnum):
    """The base models a picture can be repainted with."""

    SDXL = "sdxl"
    SD15 = "sd15"


class Sampler(StrEnum):
    """The sampler names of the hosted endpoint, then the four more its SDK knew."""

    PNDM = "PNDM"
    LMS = "LMS"
    KLMS = "KLMS"
    DDIM = "DDIM"
    DDPM = "DDPM"
    HEUN = "HEUN"
    K_HEUN = "K_HEUN"
    K_EULER = "K_EULER"
    K_EULER_ANCESTRAL = "K_EULER_ANCESTRAL"
    DPM_SOLVER_MULTISTEP = "DPM_SOLVER_MULTISTEP"
    DPM_PLUS_PLUS_2M_KARRAS = "DPM_PLUS_PLUS_2M_KARRAS"
    DPM_SINGLE = "DPM_SINGLE"
    DPM_2 = "DPM_2"
    DPM_2_ANCESTRAL = "DPM_2_ANCESTRAL"
    DPM_PLUS_PLUS_SDE_KARRAS = "DPM_PLUS_PLUS_SDE_KARRAS"
    UNI_PC = "UNI_PC"
    LCM = "LCM"
    DPM_PLUS_PLUS_2M_SDE = "DPM_PLUS_PLUS_2M_SDE"
    DPM_PLUS_PLUS_2M_SDE_KARRAS = "DPM_PLUS_PLUS_2M_SDE_KARRAS"
    DPM_2_KARRAS = "DPM_2_KARRAS"
    DPM_2_ANCESTRAL_KARRAS = "DPM_2_ANCESTRAL_KARRAS"


class Order(StrEnum):
    """Which object of a picture is repainted first."""

    CONFIDENCE = "confidence"
    LEFT_TO_RIGHT = "left_to_right"
    CENTER_TO_EDGE = "center_to_edge"
    AREA = "area"


MAX_SEED = 2**32 - 1

MAX_EXTENT = 65_535
"""Pixels: the longest side a JPEG can have. A mask option above it could mean nothing more."""

MAX_PROMPT = 20_000
"""Characters. The text encoder's bound is :data:`~afterdetail.prompts.windows.MAX_WINDOWS`."""

MIN_TILE = 128
"""Pixels: no detector's input is smaller."""


def _one_number(value: Any) -> Any:
    """JSON has one kind of number: 20.0 is the integer 20. A boolean or a string is neither."""
    if isinstance(value, bool | np.bool_):
        raise PydanticCustomError("number_type", "a number is needed, not a boolean")
    if isinstance(value, str):
        raise PydanticCustomError("number_type", "a number is needed, not text")
    return int(value) if isinstance(value, Integral) else value


SEED_KINDS = frozenset({"integer", "list", "null"})
"""Pydantic names the branches of a union in what it says of a wrong value; nobody else does."""


def _seed_kind(value: Any) -> str:
    """The branch whose complaint is the helpful one when a seed is wrong."""
    if value is None:
        return "null"
    return "list" if isinstance(value, list | tuple) else "integer"


def _as_any_of(schema: dict[str, Any]) -> None:
    schema["anyOf"] = schema.pop("oneOf")


NUMBER = BeforeValidator(_one_number)

# Ranges stand before NUMBER, or they would be lost from the JSON schema.
Count = Annotated[int, Field(ge=1), NUMBER]
Extent = Annotated[int, Field(ge=0, le=MAX_EXTENT), NUMBER]
Shift = Annotated[int, Field(ge=-MAX_EXTENT, le=MAX_EXTENT), NUMBER]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), NUMBER]
Strength = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), NUMBER]
Seed = Annotated[int, Field(gt=0, le=MAX_SEED), NUMBER]
Seeds = Annotated[list[Seed], Field(min_length=1, fail_fast=True)]
Prompt = Annotated[StrictStr, Field(max_length=MAX_PROMPT)]
Weight = Annotated[float, Field(allow_inf_nan=False), NUMBER]


class DetailOptions(BaseModel):
    """How to find and repaint the objects of one picture.

    The fields, their defaults and their ranges are the request fields of ``POST /adetailer``,
    except the picture itself and its encoding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    prompt: Prompt | None = None
    """What to paint; null is the empty prompt. `(x)` weighs x by 1.1, `[x]` by 1/1.1, `(x:1.3)` by
    1.3; weights nest, a backslash makes a bracket a character. Up to 64 windows of 75 tokens."""
    negative_prompt: Prompt | None = None
    """What not to paint, written like the prompt."""
    sampler: Sampler = Sampler.DDIM
    """The schedulers available for image generation."""
    steps: Annotated[int, Field(ge=1, le=200), NUMBER] = 20
    """Steps of the whole noise schedule; max(1, int(steps x strength)) of them are run."""
    inpainting_base_model: Base | None = None
    """The base model to be used for inpainting. Typically should match the model used to generate
    init_image. Null: the base of checkpoint, else the one that suits the size of the picture."""
    checkpoint: StrictStr | None = None
    """Name of a checkpoint to use for inpainting."""
    loras: dict[StrictStr, Weight | None] | None = None
    """A dict mapping the name of a LoRA to apply to its weight; a null weight is 1."""
    use_refiner: StrictBool = False
    """Run the lowest noise levels (t < 200 of 1000) on the refiner model. Only with sdxl."""
    style_preset: StrictStr = "base"
    """Name of a style, whose wording is put around both prompts; `base` changes nothing."""
    strength: Strength = 0.9
    """How much to repaint: near 0 keeps the picture, 1 forgets the pixels under the mask."""
    cfg_scale: Annotated[float, Field(gt=0, le=50, allow_inf_nan=False), NUMBER] = 7.5
    """How closely to adhere to the prompt. Must be a positive number no greater than 50.0. At 1 and
    below there is no guidance, and the negative prompt has no effect."""
    seed: Annotated[
        Annotated[Seed, Tag("integer")]
        | Annotated[Seeds, Tag("list")]
        | Annotated[None, Tag("null")],
        Discriminator(_seed_kind),
        Field(json_schema_extra=_as_any_of),
    ] = None
    """Integer number or list of integers for the random generators; each greater than 0 and less
    than 2^32. Integer: object i, most confident first, uses seed + i. List: object i uses entry i,
    cycling. Null: random."""
    mask_dilation: Extent = 4
    """Size, in pixels, of the dilation kernel that grows each mask (by half of it on every side).
    Must be greater than or equal to 0 and recommended to be less than 64."""
    mask_blur: Extent = 4
    """Radius (sigma), in pixels, of the Gaussian blur of each dilated mask. Must be greater than or
    equal to 0 and recommended to be less than 64."""
    mask_padding: Extent = 32
    """Context, in pixels, around the blurred mask that the model sees and does not change; slid
    inward at an edge of the picture. Must be greater than or equal to 0 and recommended to be less
    than 10% the size of an inpainting mask."""
    max_num_detections: Count | None = None
    """Inpaint at most this many objects, starting with the most confident matches."""
    confidence: Share = 0.3
    """Sensitivity of the detector: lower considers more image fragments for inpainting."""
    detector: StrictStr = "face_full_mediapipe"
    """Name of the detection model."""
    union_masks: StrictBool = False
    """Join the masks of all detected objects into one and repaint it in one job."""


class LibraryOptions(DetailOptions):
    """What the library and the command line take: the endpoint's options and a few more."""

    detector: StrictStr = "face_full_mediapipe"
    """Name of the detection model, or a YOLOv8 weights file (.pt, .onnx, .safetensors). Several,
    divided by commas, look together; what two of them find counts once."""
    tile: Annotated[int, Field(ge=MIN_TILE, le=MAX_EXTENT), NUMBER] | None = None
    """Look at the picture in overlapping tiles of this many pixels, too: finds objects that are
    much smaller than a tenth of it."""

    order: Order = Order.CONFIDENCE
    """Which object comes first: it has the first seed and the first part of the prompt, and later
    ones that overlap it are painted over it."""
    min_area_ratio: Share = 0.0
    """Leave objects whose box has a smaller share of the picture's area."""
    max_area_ratio: Share = 1.0
    """Leave objects whose box has a larger share of the picture's area."""
    k_largest: Count | None = None
    """Inpaint at most this many objects, those with the largest boxes."""
    mask_dilation: Shift = 4
    """Size, in pixels, of the kernel that grows each mask (by half of it on every side), or shrinks
    it, if negative."""
    mask_offset_x: Shift = 0
    """Move each mask this many pixels to the right."""
    mask_offset_y: Shift = 0
    """Move each mask this many pixels down."""
    invert_masks: StrictBool = False
    """Join the masks of all objects and repaint everything else, in one job."""
    soft_inpainting: StrictBool = False
    """Let the strength fall off with the blurred mask: where it is half, the picture is repainted
    from half of the steps on (differential diffusion, Levin and Fried 2023). Wants a wide blur."""
    color_match: StrictBool = False
    """Take the low frequencies of what was painted from the picture around and under it: removes
    shifts of colour and light. For low strengths: colours that a prompt asks for go with them."""
    clip_skip: Annotated[int, Field(ge=0, le=10), NUMBER] | None = None
    """Leave out this many layers at the end of the text encoders (other tools' "clip skip 2" is 1);
    null: as many as the model's catalogue entry says."""
    inpaint_size: Annotated[StrictStr, Field(pattern=f"^{SIZE}$")] | None = None
    """Repaint at this of the model's own sizes (`512x512`); null: at the one that fits the object
    best."""
    size_conditioning: Annotated[StrictStr, Field(pattern=GEOMETRY)] | None = None
    """What SDXL is told of the picture: the width and height that it had, and how many pixels were
    cropped on its left and top (`512x512`, `1024x1024+0+256`); null: as large as it is painted, and
    not cropped. Changes little."""
    prompt_marks: StrictBool = True
    """Read the marks of other tools in both prompts: `[SEP]` divides the parts for one object after
    the other (the last is for all the rest), `[SKIP]` as a part skips the object, `[PROMPT]` stands
    for main_prompt, and so does an empty part; `<lora:name:0.8>` applies a LoRA."""
    main_prompt: Prompt | None = None
    """The prompt that the whole picture was made with: what `[PROMPT]` stands for."""
    main_negative_prompt: Prompt | None = None
    """The same of the negative prompt."""


Options = TypeVar("Options", bound=LibraryOptions)


def random_seed() -> int:
    """Any of 1..2^32-1."""
    return secrets.randbelow(MAX_SEED) + 1


def seeded(options: Options) -> Options:
    """Options that know their seed, so that a picture can tell what it was made with."""
    if options.seed is not None:
        return options
    return options.model_copy(update={"seed": random_seed()})


def parse_options(options: Mapping[str, object]) -> LibraryOptions:
    """Validate options given by name.

    Raises:
        InvalidInput: an unknown name or a value outside its range, with ``field`` set.
    """
    return validated(LibraryOptions, options)


def validated(kind: type[Options], options: Mapping[str, object]) -> Options:
    """The options as a record of this kind. Raises as :func:`parse_options`."""
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0]) if first["loc"] else "objects"
        if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
            raise UnknownName("option", field, kind.model_fields, field=field) from None
        if first["type"] == "enum":
            known = re.findall("'([^']+)'", first["ctx"]["expected"])
            raise UnknownName(field, str(first["input"]), known, field=field) from None
        tags = SEED_KINDS if field == "seed" else frozenset()
        place = ".".join(str(part) for part in first["loc"] if part not in tags)
        message = f"{place}: {first['msg']}, not {first['input']!r:.80}" if place else first["msg"]
        raise InvalidInput(first["type"], message, field=field) from None
