"""How a picture was detailed, as text in its file: in A1111's style for people and other tools,
and as JSON to do it again from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from afterdetail.errors import InvalidInput
from afterdetail.images.codec import Encoding, encode
from afterdetail.images.metadata import (
    JPEG_TEXTS,
    PARAMETERS,
    Metadata,
    read_metadata,
    write_metadata,
)
from afterdetail.options import LibraryOptions
from afterdetail.types import Picture, Size

OURS = ", ADetailer model:"
"""What an earlier turn has written begins so; the last turn is the one that is told."""
FORMAT = 2
"""Of the JSON."""

# The names under which the A1111 extension writes its settings, and reads them back.
NAMES: Mapping[str, str] = {
    "detector": "ADetailer model",
    "prompt": "ADetailer prompt",
    "negative_prompt": "ADetailer negative prompt",
    "confidence": "ADetailer confidence",
    "k_largest": "ADetailer mask only top k largest",
    "min_area_ratio": "ADetailer mask min ratio",
    "max_area_ratio": "ADetailer mask max ratio",
    "mask_offset_x": "ADetailer x offset",
    "mask_offset_y": "ADetailer y offset",
    "mask_dilation": "ADetailer dilate erode",
    "mask_blur": "ADetailer mask blur",
    "strength": "ADetailer denoising strength",
    "mask_padding": "ADetailer inpaint padding",
    "steps": "ADetailer steps",
    "cfg_scale": "ADetailer CFG scale",
    "sampler": "ADetailer sampler",
    "checkpoint": "ADetailer checkpoint",
}
ALWAYS = ("detector", "confidence", "mask_dilation", "mask_blur", "strength", "mask_padding")
"""Written at their defaults too, as the extension does."""


def told(metadata: Metadata, stages: Sequence[LibraryOptions], model: str, size: Size) -> Metadata:
    """The metadata of a picture, and how it has been detailed.

    Args:
        stages: each with the seed that was used. Of a detector that is a file, only the name is
            told.
        model: the name of the first stage's checkpoint, or of the base model.
    """
    texts = {
        **metadata.texts,
        PARAMETERS: _parameters(metadata.texts.get(PARAMETERS, ""), stages, model, size),
        JPEG_TEXTS: _as_json(stages, model),
    }
    return Metadata(metadata.exif, texts)


def finished(
    picture: Picture,
    encoding: Encoding,
    given: bytes,
    stages: Sequence[LibraryOptions],
    model: str,
) -> bytes:
    """The file of a detailed picture, with the metadata of the one given, and its own.

    Args:
        stages, model: as for :func:`told`.
    """
    metadata = told(read_metadata(given), stages, model, picture.size)
    return write_metadata(encode(picture, encoding), encoding, metadata)


def stages_in(metadata: Metadata) -> list[dict[str, object]]:
    """The options that a picture was detailed with, by stage.

    Raises:
        InvalidInput: it does not say.
    """
    return _said(metadata).stages


def model_in(metadata: Metadata) -> str:
    """The name of the model. Raises as :func:`stages_in`."""
    return _said(metadata).model


@dataclass(frozen=True, slots=True)
class _Said:
    stages: list[dict[str, object]]
    model: str


def _said(metadata: Metadata) -> _Said:
    try:
        said = json.loads(metadata.texts[JPEG_TEXTS])
        if said["format"] == FORMAT:
            return _Said([dict(stage) for stage in said["stages"]], str(said["model"]))
    except (KeyError, ValueError, TypeError):
        pass
    raise InvalidInput(
        "metadata_missing",
        "the picture does not say how it was detailed; those that afterdetail has written do",
    )


def _as_json(stages: Iterable[LibraryOptions], model: str) -> str:
    given = [stage.model_dump(mode="json", exclude_defaults=True) for stage in stages]
    for stage in given:
        if "detector" in stage:
            stage["detector"] = _bare(stage["detector"])
    return json.dumps({"format": FORMAT, "model": model, "stages": given}, ensure_ascii=False)


def _parameters(before: str, stages: Sequence[LibraryOptions], model: str, size: Size) -> str:
    """In A1111's form, with our settings behind those of the picture, if it has any."""
    ours = ", ".join(f"{name}: {_quoted(value)}" for name, value in _settings(stages))
    before = before.split(OURS)[0].rstrip()
    if before:
        return f"{before}, {ours}"
    options = stages[0]
    head = infotext(
        options.prompt or "",
        options.negative_prompt or "",
        {
            "Steps": options.steps,
            "Sampler": options.sampler.value,
            "CFG scale": f"{options.cfg_scale:g}",
            "Seed": _first_seed(options),
            "Size": f"{size[0]}x{size[1]}",
            "Model": model,
        },
    )
    return f"{head}, {ours}"


def infotext(prompt: str, negative_prompt: str, settings: Mapping[str, object]) -> str:
    """A1111's form: the prompt, the negative prompt if there is one, and a line of settings."""
    negative = [f"Negative prompt: {negative_prompt}"] if negative_prompt else []
    line = ", ".join(f"{name}: {_quoted(str(value))}" for name, value in settings.items())
    return "\n".join([prompt, *negative, line])


def _settings(stages: Iterable[LibraryOptions]) -> Iterable[tuple[str, str]]:
    defaults = LibraryOptions.model_fields
    for number, stage in enumerate(stages, start=1):
        values = stage.model_dump(mode="json")
        for name, label in NAMES.items():
            if name in ALWAYS or values.get(name) not in (None, defaults[name].default):
                value = values[name]
                yield label + ordinal(number), _bare(value) if name == "detector" else str(value)
    yield "ADetailer version", "afterdetail"


def ordinal(number: int) -> str:
    """What the extension puts behind the names of its tabs: nothing, 2nd, 3rd, 4th."""
    return "" if number == 1 else f" {number}{ {2: 'nd', 3: 'rd'}.get(number, 'th') }"


def _first_seed(options: LibraryOptions) -> int:
    seed = options.seed
    return (seed[0] if isinstance(seed, list) else seed) or -1


def _bare(detectors: str) -> str:
    """Names without the folders that files are in: nobody else needs to know those."""
    return ",".join(name.strip().replace("\\", "/").split("/")[-1] for name in detectors.split(","))


def _quoted(value: str) -> str:
    """As A1111 does, where a value would break the line apart."""
    return json.dumps(value, ensure_ascii=False) if any(c in value for c in ",:\n") else value
