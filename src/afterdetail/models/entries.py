"""One ``[[model]]`` table of a catalogue, as it is written: its keys, checked one by one."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)

from afterdetail.options import Base
from afterdetail.types import Size, parse_size

NAME = re.compile(r"[^\W_][\w .+()-]{0,99}")
"""No separators of paths or lists, nothing that starts like an option or a hidden file."""
PICKLED = (".ckpt", ".pt", ".pth", ".bin", ".pkl")


class Kind(StrEnum):
    BASE = "base"
    CHECKPOINT = "checkpoint"
    REFINER = "refiner"
    VAE = "vae"
    LORA = "lora"
    EMBEDDING = "embedding"
    DETECTOR = "detector"

    @property
    def field(self) -> str:
        """The request field to blame when such a model is missing."""
        return FIELDS[self]


FIELDS = {
    Kind.BASE: "inpainting_base_model",
    Kind.CHECKPOINT: "checkpoint",
    Kind.REFINER: "use_refiner",
    Kind.VAE: "inpainting_base_model",
    Kind.LORA: "loras",
    Kind.EMBEDDING: "prompt",
    Kind.DETECTOR: "detector",
}


class Outline(StrEnum):
    """What of a detected object is repainted."""

    BOX = "box"
    SEGMENTATION = "segmentation"


class Prediction(StrEnum):
    """What a UNet was trained to tell of a noised latent."""

    EPSILON = "epsilon"
    VELOCITY = "v_prediction"


def _sizes(value: Any) -> Any:
    return [parse_size(str(item)) for item in value] if isinstance(value, list) else value


def _name(value: Any) -> Any:
    if isinstance(value, str) and not NAME.fullmatch(value):
        raise ValueError(
            "a name begins with a letter or digit and has letters, digits, spaces and . _ + ( ) -"
        )
    return value


class Entry(BaseModel):
    """One ``[[model]]`` table as it is written."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[StrictStr, BeforeValidator(_name)]
    kind: Kind
    base: Base | None = None
    package: StrictStr | None = None
    hub: Annotated[StrictStr, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None
    file: StrictStr | None = None
    revision: StrictStr | None = None
    path: StrictStr | None = None
    copied: StrictBool = False
    sha256: Annotated[StrictStr, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    licence: StrictStr = "unknown"
    sizes: Annotated[tuple[Size, ...], BeforeValidator(_sizes)] = ()
    label: StrictStr = ""
    classes: tuple[StrictStr | StrictInt, ...] = ()
    outline: Outline = Outline.BOX
    trigger_words: tuple[StrictStr, ...] = ()
    clip_skip: Annotated[StrictInt, Field(ge=0, le=10)] = 0
    prediction: Prediction | None = None
    zero_snr: StrictBool = False
    of: StrictStr | None = None
    vae: StrictStr | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.base is None) != (self.kind is Kind.DETECTOR):
            word = "no base" if self.kind is Kind.DETECTOR else "a base, sd15 or sdxl"
            raise ValueError(f"a {self.kind} has {word}")
        if self.of is not None and self.kind not in (Kind.REFINER, Kind.LORA):
            raise ValueError("only a refiner or a lora is made for one model ('of')")
        weights = self.file or self.path or ""
        if self.kind is not Kind.DETECTOR and weights.lower().endswith(PICKLED):
            raise ValueError(f"{weights}: diffusion weights must be .safetensors, never a pickle")
        if self.copied and self.path is None:
            raise ValueError("only a file at a path can be a copy ('copied')")
        inside = [
            part for place in (self.package, self.hub and self.file) for part in _parts(place)
        ]
        if ".." in inside:
            raise ValueError("a path inside a repository or the package has no '..'")
        return self


def _parts(place: str | None) -> list[str]:
    return re.split(r"[/\\]", place or "")
