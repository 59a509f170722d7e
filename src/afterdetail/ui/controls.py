"""The request's fields as controls on the page, in groups, and what they hold as options."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from afterdetail.errors import InvalidInput
from afterdetail.models.catalogue import Catalogue, Kind
from afterdetail.options import LibraryOptions, Order, Sampler, validated
from afterdetail.prompts import styles
from afterdetail.schema.v1 import ServedStage
from afterdetail.stages import Stage


@dataclass(frozen=True, slots=True)
class Group:
    """Controls under one heading."""

    title: str
    fields: tuple[str, ...]
    open: bool = False


GROUPS = (
    Group("Prompt", ("prompt", "negative_prompt", "objects", "style_preset"), open=True),
    Group("Detection", ("detector", "confidence"), open=True),
    Group("Inpainting", ("strength", "steps", "sampler", "cfg_scale", "seed"), open=True),
    Group(
        "Mask",
        (
            "mask_dilation",
            "mask_blur",
            "mask_padding",
            "mask_offset_x",
            "mask_offset_y",
            "union_masks",
            "invert_masks",
            "soft_inpainting",
            "color_match",
        ),
    ),
    Group(
        "Selection",
        (
            "max_num_detections",
            "k_largest",
            "min_area_ratio",
            "max_area_ratio",
            "order",
            "tile",
        ),
    ),
    Group(
        "Model",
        (
            "inpainting_base_model",
            "checkpoint",
            "loras",
            "clip_skip",
            "inpaint_size",
            "size_conditioning",
            "use_refiner",
        ),
    ),
)
FIELDS = tuple(field for group in GROUPS for field in group.fields)
FINDING = ("detector", "confidence", "tile")
"""A change of these changes what is found, and so the ids."""
SHAPING = tuple(
    field
    for title in ("Mask", "Selection")
    for group in GROUPS
    if group.title == title
    for field in group.fields
    if field not in FINDING
)
"""A change of these changes what would be done with it."""

OWN_DEFAULTS: Mapping[str, Any] = {"strength": 0.4}
"""As other tools for people have it: the endpoint's would make another face of the first."""
AUTOMATIC = "automatic"
ZERO_IS_NONE = ("max_num_detections", "k_largest", "tile")
"""As in the other tools; an empty number is zero to Gradio."""
PROMPT_OF = re.compile(r"(\d{1,4})\s*[:=]\s*(.*)")
LORA = re.compile(r"\s*(?P<name>[^=:,]+?)\s*(?:[=:]\s*(?P<weight>[^,]*?)\s*)?")


def build(field: str, catalogue: Catalogue) -> gr.components.Component:
    """The control of one field, with the endpoint's default in it."""
    named: Mapping[str, Callable[[], Any]] = {
        "sampler": lambda: [item.value for item in Sampler],
        "order": lambda: [item.value for item in Order],
        "inpaint_size": lambda: [AUTOMATIC, *_sizes(catalogue)],
        "style_preset": styles.names,
        "inpainting_base_model": lambda: [AUTOMATIC, *(base.value for base in catalogue.bases())],
        "clip_skip": lambda: [AUTOMATIC, *map(str, range(4))],
        "checkpoint": lambda: [AUTOMATIC, *catalogue.names(Kind.CHECKPOINT)],
    }
    if field in named:
        return _dropdown(field, named[field]())
    if field == "detector":
        detectors = list(catalogue.names(Kind.DETECTOR))
        return gr.Dropdown(detectors, value=[_default(field)], multiselect=True, **_named(field))
    if field == "loras":
        known = ", ".join(catalogue.names(Kind.LORA)[:12]) or "none here yet"
        return _text(field, "name=weight, name=weight", f"Those here: {known}.")
    return PLAIN[field](field)


def _sizes(catalogue: Catalogue) -> list[str]:
    bases = catalogue.bases().values()
    return [f"{width}x{height}" for spec in bases for width, height in spec.sizes]


def _default(field: str) -> Any:
    return OWN_DEFAULTS.get(field, LibraryOptions.model_fields[field].default)


def _dropdown(field: str, choices: Sequence[str]) -> gr.Dropdown:
    default = _default(field) or AUTOMATIC
    value = str(getattr(default, "value", default))
    return gr.Dropdown(list(choices), value=value, **_named(field))


def _text(field: str, placeholder: str, info: str | None = None, lines: int = 1) -> gr.Textbox:
    about = _named(field) | ({"info": info} if info else {})
    return gr.Textbox(placeholder=placeholder, lines=lines, **about)


def _slider(low: float, high: float, step: float) -> Callable[[str], gr.Slider]:
    return lambda field: gr.Slider(low, high, _default(field), step=step, **_named(field))


def _number(field: str) -> gr.Number:
    return gr.Number(0, precision=0, minimum=0, **_named(field))


def _checkbox(field: str) -> gr.Checkbox:
    return gr.Checkbox(_default(field), **_named(field))


PLAIN: Mapping[str, Callable[[str], gr.components.Component]] = {
    "prompt": lambda field: _text(field, "a photo of a (smiling:1.2) woman", lines=2),
    "negative_prompt": lambda field: _text(field, "blurry, deformed"),
    "objects": lambda field: _text(field, "1: an old man", lines=2),
    "confidence": _slider(0, 1, 0.01),
    "max_num_detections": _number,
    "tile": _number,
    "strength": _slider(0.05, 1, 0.05),
    "steps": _slider(1, 200, 1),
    "cfg_scale": _slider(0.5, 50, 0.5),
    "seed": lambda field: _text(field, "random"),
    "mask_dilation": _slider(-128, 128, 1),
    "mask_blur": _slider(0, 128, 1),
    "mask_padding": _slider(0, 256, 1),
    "mask_offset_x": _slider(-256, 256, 1),
    "mask_offset_y": _slider(-256, 256, 1),
    "k_largest": _number,
    "min_area_ratio": _slider(0, 1, 0.001),
    "max_area_ratio": _slider(0, 1, 0.001),
    "union_masks": _checkbox,
    "invert_masks": _checkbox,
    "soft_inpainting": _checkbox,
    "color_match": _checkbox,
    "size_conditioning": lambda field: _text(field, "1024x1024+0+0"),
    "use_refiner": _checkbox,
}

ABOUT: Mapping[str, tuple[str, str]] = {
    "prompt": ("Prompt", "What to paint; empty is fine. (x:1.3) gives x more weight."),
    "negative_prompt": ("Negative prompt", "What not to paint."),
    "objects": ("Prompts of single objects", "One a line, by the number in the picture."),
    "style_preset": ("Style", "Wording put around both prompts."),
    "detector": ("Detectors", "What to look for; several look together."),
    "confidence": ("Detection confidence", "Lower finds more."),
    "max_num_detections": ("At most", "Objects, the most confident first; 0: all."),
    "tile": ("Tile size", "Pixels; looks for small objects in tiles, too. 0: off."),
    "strength": ("Denoising strength", "Low keeps the object, high invents a new one."),
    "steps": ("Steps", "Of the whole schedule; strength says how many of them run."),
    "sampler": ("Sampler", "How noise is taken away."),
    "cfg_scale": ("CFG scale", "How closely to keep to the prompt; 1: no guidance."),
    "seed": ("Seed", "Empty: random. Several, by commas: one an object."),
    "order": ("Order", "Which comes first, for seeds and overlaps."),
    "k_largest": ("Only the largest", "So many; 0: all."),
    "min_area_ratio": ("Mask min area ratio", "Of the picture; leaves out smaller ones."),
    "max_area_ratio": ("Mask max area ratio", "Of the picture; leaves out larger ones."),
    "mask_dilation": ("Mask dilation", "Pixels, half on each side; below 0: erosion."),
    "mask_offset_x": ("Mask x offset", "Pixels to the right."),
    "mask_offset_y": ("Mask y offset", "Pixels down."),
    "invert_masks": ("Merge and invert", "Repaint all but the objects."),
    "soft_inpainting": ("Soft inpainting", "Less strength where the mask is soft."),
    "color_match": ("Colour match", "Give the object the light of what it replaces."),
    "clip_skip": ("CLIP skip", "Layers left out; other tools' 2 is 1 here."),
    "inpaint_size": ("Inpaint size", "Automatic: the model's size that fits best."),
    "size_conditioning": ("Size told", "SDXL only: the picture's, and its crop."),
    "mask_blur": ("Mask blur", "Pixels of soft edge."),
    "mask_padding": ("Inpaint padding", "Pixels of context that the model sees."),
    "union_masks": ("Merge masks", "All objects as one."),
    "inpainting_base_model": ("Base model", "Automatic: by the picture's size."),
    "checkpoint": ("Checkpoint", "Automatic: the base model itself."),
    "loras": ("LoRAs", ""),
    "use_refiner": ("Refiner", "SDXL only."),
}


def _named(field: str) -> dict[str, str]:
    label, info = ABOUT[field]
    return {"label": label, "info": info, "elem_id": f"option-{field}"}


def stage_of(values: Sequence[object], skipped: Collection[int] = ()) -> Stage:
    """What the controls hold, in the order of ``FIELDS``, as the one stage of a call.

    Args:
        skipped: ids of objects to leave as they are.

    Raises:
        InvalidInput: a value outside its range; the control's label is named.
    """
    given = _held(values)
    given["seed"] = _seed(str(given["seed"] or ""))
    given["loras"] = _loras(str(given["loras"] or ""))
    given["clip_skip"] = None if given["clip_skip"] is None else int(str(given["clip_skip"]))
    return _checked(given, _prompts(str(given["objects"] or "")), skipped)


def outline_of(values: Sequence[object], skipped: Collection[int] = ()) -> Stage:
    """The same of the controls alone that say what is found and what its masks are: what is wrong
    with others is no reason not to show it.
    """
    given = _held(values)
    return _checked({name: given[name] for name in (*FINDING, *SHAPING)}, {}, skipped)


def _held(values: Sequence[object]) -> dict[str, object]:
    """
    Raises:
        InvalidInput: no detector is chosen.
    """
    given = dict(zip(FIELDS, map(_meant, values), strict=True))
    if given["detector"] is None:
        raise InvalidInput("detector_missing", "Detectors: choose at least one", field="detector")
    return given


def _checked(
    given: Mapping[str, object], prompts: Mapping[int, str], skipped: Collection[int]
) -> Stage:
    none = {name for name in ZERO_IS_NONE if not given[name]}
    kept = {name: value for name, value in given.items() if value is not None and name not in none}
    objects: dict[int, dict[str, object]] = {
        **{number: {"prompt": prompt} for number, prompt in prompts.items()},
        **{number: {"skip": True} for number in sorted(skipped)},
    }
    try:
        return validated(ServedStage, {**kept, "objects": objects})
    except InvalidInput as error:
        label = ABOUT.get(error.field or "", (error.field,))[0]
        text = f"{label}: {str(error).removeprefix(f'{error.field}: ')}"
        raise InvalidInput(error.code, text, field=error.field) from None


def _meant(value: object) -> object:
    """An empty text and the first choice of some lists are no value."""
    if isinstance(value, list):
        return ",".join(value) or None
    if isinstance(value, str):
        value = value.strip()
    return None if value in ("", AUTOMATIC) else value


def _seed(text: str) -> int | list[int] | None:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        return None
    if not all(re.fullmatch(r"\d{1,10}", part) for part in parts):
        raise InvalidInput(
            "seed_invalid",
            f"Seed: {text[:40]!r} is not a whole number, nor several divided by commas",
            field="seed",
        )
    seeds = [int(part) for part in parts]
    return seeds[0] if len(seeds) == 1 else seeds


def _prompts(text: str) -> dict[int, str]:
    """By the ids of objects, from lines such as ``1: an old man``."""
    prompts: dict[int, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        match = PROMPT_OF.fullmatch(line)
        if match is None:
            text = f"{ABOUT['objects'][0]}: {line[:60]!r} is not written as 1: an old man"
            raise InvalidInput("objects_invalid", text, field="objects")
        prompts[int(match[1])] = match[2]
    return prompts


def _loras(text: str) -> dict[str, float] | None:
    weights: dict[str, float] = {}
    for part in filter(str.strip, text.split(",")):
        match = LORA.fullmatch(part)
        try:
            if match is None:
                raise ValueError
            weights[match["name"]] = float(match["weight"] or 1)
        except ValueError:
            text = f"LoRAs: {part.strip()[:60]!r} is not written as name=weight"
            raise InvalidInput("lora_invalid", text, field="loras") from None
    return weights or None
