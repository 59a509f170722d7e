"""What a caller can ask for: one record, validated in one place for library, command line and HTTP.

Defaults and ranges are those of the endpoint's contract; a wrong value raises
:class:`~afterdetail.errors.InvalidInput` (library) or is answered 422 (HTTP), naming the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    ValidationError,
)

from afterdetail.errors import InvalidInput, UnknownName


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


MAX_SEED = 2**32 - 1


def _integral(value: Any) -> Any:
    """JSON has one kind of number: 20.0 is the integer 20. A boolean or a string is neither."""
    if isinstance(value, bool):
        raise ValueError("a number is needed, not a boolean")
    if isinstance(value, str):
        raise ValueError("a number is needed, not text")
    return value


Integer = Annotated[int, BeforeValidator(_integral)]
Number = Annotated[float, BeforeValidator(_integral), Field(allow_inf_nan=False)]
Seed = Annotated[Integer, Field(gt=0, le=MAX_SEED)]


class DetailOptions(BaseModel):
    """How to find and repaint the objects of one picture.

    The fields, their defaults and their ranges are the request fields of ``POST /adetailer``,
    except the picture itself and its encoding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    prompt: StrictStr | None = None
    """What to paint. `(x)` weighs x by 1.1, `[x]` by 1/1.1, `(x:1.3)` by 1.3."""
    negative_prompt: StrictStr | None = None
    """What not to paint."""
    sampler: Sampler = Sampler.DDIM
    """The schedulers available for image generation."""
    steps: Annotated[Integer, Field(ge=1, le=200)] = 20
    """Steps of the whole schedule; steps x strength of them are run."""
    inpainting_base_model: Base | None = None
    """The base model to be used for inpainting. Null: the one that suits checkpoint and picture."""
    checkpoint: StrictStr | None = None
    """Name of a checkpoint to use for inpainting."""
    loras: dict[StrictStr, Number | None] | None = None
    """LoRA names and their weights; a null weight is 1."""
    use_refiner: StrictBool = False
    """SDXL: run the noise levels below t = 200 on the refiner model."""
    style_preset: StrictStr = "base"
    """Name of a wording put around the prompts; `base` changes nothing."""
    strength: Annotated[Number, Field(gt=0, le=1)] = 0.9
    """How much to repaint: 1 forgets the pixels under the mask."""
    cfg_scale: Annotated[Number, Field(gt=0, le=50)] = 7.5
    """How closely to follow the prompt; at 1 and below there is no guidance."""
    seed: Seed | Annotated[list[Seed], Field(min_length=1)] | None = None
    """Integer: object i uses seed + i. List: object i uses entry i, cycling. Null: random."""
    mask_dilation: Annotated[Integer, Field(ge=0)] = 4
    """Size of the dilation kernel, pixels. Recommended to be less than 64."""
    mask_blur: Annotated[Integer, Field(ge=0)] = 4
    """Radius of the Gaussian blur, pixels. Recommended to be less than 64."""
    mask_padding: Annotated[Integer, Field(ge=0)] = 32
    """Context around the mask, pixels. Recommended to be less than 10 % of the mask."""
    max_num_detections: Annotated[Integer, Field(ge=1)] | None = None
    """Inpaint at most this many objects, the most confident ones."""
    confidence: Annotated[Number, Field(ge=0, le=1)] = 0.3
    """Sensitivity of the detector: lower finds more."""
    detector: StrictStr = "face_full_mediapipe"
    """Name of the detection model."""
    union_masks: StrictBool = False
    """Join all masks into one and repaint it in one job."""


def parse_options(options: Mapping[str, object]) -> DetailOptions:
    """Validate options given by name.

    Raises:
        InvalidInput: an unknown name or a value outside its range, with ``field`` set.
    """
    try:
        return DetailOptions.model_validate(options)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            raise UnknownName("option", field, DetailOptions.model_fields, field=field) from None
        message = f"{field}: {first['msg']}, not {first['input']!r:.80}"
        raise InvalidInput(first["type"], message, field=field) from None
