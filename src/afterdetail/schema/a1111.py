"""AUTOMATIC1111's ``img2img``, as users of the ADetailer extension call it, in our terms.

What has no counterpart here is accepted at its neutral value and refused by name otherwise: nothing
that was asked for is left out in silence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from afterdetail.models.catalogue import Catalogue, Kind
from afterdetail.options import MAX_EXTENT, MAX_SEED, Order, Sampler, random_seed
from afterdetail.schema.a1111_args import UNSET, AdetailerArgs, Img2ImgRequest, OverrideSettings
from afterdetail.schema.a1111_samplers import find_sampler
from afterdetail.schema.response import FieldProblem
from afterdetail.schema.translate import RequestInvalid, decode_base64, json_object, problems_of
from afterdetail.stages import MAX_STAGES, Stage
from afterdetail.types import Size

ADETAILER = "adetailer"
ARGS: list[str | int] = ["body", "alwayson_scripts", "ADetailer", "args"]
"""Where in a request the extension's arguments are."""
MEDIAPIPE = {
    "mediapipe_face_full": "face_full_mediapipe",
    "mediapipe_face_short": "face_short_mediapipe",
    "mediapipe_face_mesh": "face_mesh_mediapipe",
    "mediapipe_face_mesh_eyes_only": "eyes_mesh_mediapipe",
}
"""The extension's names of detectors that have others here."""
ORDERS = {
    "None": Order.CONFIDENCE,
    "Position (left to right)": Order.LEFT_TO_RIGHT,
    "Position (center to edge)": Order.CENTER_TO_EDGE,
    "Area (large to small)": Order.AREA,
}
"""The values of the setting ``ad_bbox_sortby``."""
SETTINGS = frozenset(OverrideSettings.model_fields)
OF_NO_EFFECT = ("samples_", "save_", "grid_", "jpeg_", "return_", "outdir_", "enable_pnginfo")
"""Settings that begin so are about files of the web UI's."""


@dataclass(frozen=True, slots=True)
class Img2Img:
    """A request in our terms. ``size`` is what to scale the picture to first, if to anything."""

    request: Img2ImgRequest
    picture: bytes
    stages: tuple[Stage, ...]
    size: Size | None
    address: str | None = None
    image_field: str = "init_images"


def parse_img2img(body: bytes, catalogue: Catalogue) -> Img2Img:
    """A JSON body, base64 included.

    Raises:
        RequestInvalid: fields are missing, wrong, or ask for what is not served.
        InvalidInput: the picture is not base64, or a name is not known.
    """
    fields = json_object(body)
    try:
        request = Img2ImgRequest.model_validate(fields)
    except ValidationError as error:
        raise RequestInvalid(problems_of(error)) from None
    _refuse(request.unserved(), ["body"])
    skip, tabs = _scripts(request.alwayson_scripts or {})
    if not skip and request.denoising_strength != 0:
        raise _unserved(
            ["body", "denoising_strength"],
            "this server details pictures and does not repaint whole ones: "
            "send 0, or true as the second of ADetailer's args (skip img2img)",
        )
    stages = tuple(
        _stage(tab, request, catalogue)
        for tab in tabs
        if tab.active and tab.ad_denoising_strength > 0
    )
    picture = decode_base64(request.init_images[0], field="init_images")
    return Img2Img(request, picture, stages, None if skip else _size(request))


def _size(request: Img2ImgRequest) -> Size | None:
    """What img2img would scale the picture to; None where the request does not say."""
    if request.width is None or request.height is None:
        return None
    return request.width, request.height


def _scripts(scripts: Mapping[str, Any]) -> tuple[bool, list[AdetailerArgs]]:
    """Whether to skip img2img, and the extension's tabs."""
    skip = False
    tabs: list[AdetailerArgs] = []
    for name, script in scripts.items():
        args = script.get("args", []) if isinstance(script, dict) else script
        if name.lower() == ADETAILER:
            skip, tabs = _adetailer(args)
        elif any(_asks(arg) for arg in (args if isinstance(args, list) else [args])):
            raise _unserved(
                ["body", "alwayson_scripts", name], f"{name:.80} is not served here; leave it out"
            )
    return skip, tabs


def _asks(arg: Any) -> bool:
    """Whether an argument of a script may turn it on."""
    return bool(arg.get("enabled", arg.get("enable", arg)) if isinstance(arg, dict) else arg)


def _adetailer(args: Any) -> tuple[bool, list[AdetailerArgs]]:
    if not isinstance(args, list):
        raise RequestInvalid([FieldProblem(loc=ARGS, msg="args is not a list", type="list_type")])
    enabled = args[0] if args and isinstance(args[0], bool) else True
    skip = len(args) > 1 and args[1] is True
    given = [(number, arg) for number, arg in enumerate(args) if isinstance(arg, dict)]
    if len(given) > MAX_STAGES:
        text = f"{len(given)} tabs are given; {MAX_STAGES} are allowed"
        raise RequestInvalid([FieldProblem(loc=ARGS, msg=text, type="too_long")])
    tabs = [_tab(arg, [*ARGS, number]) for number, arg in given] if enabled else []
    return skip and enabled, tabs


def _tab(arg: dict[str, Any], place: list[str | int]) -> AdetailerArgs:
    try:
        tab = AdetailerArgs.model_validate(arg)
    except ValidationError as error:
        raise _invalid(error, place) from None
    if tab.active:
        _refuse(tab.unserved(), place)
    return tab


def _invalid(error: ValidationError, place: list[str | int]) -> RequestInvalid:
    """What is wrong with a part of the request, with the part's own place."""
    return RequestInvalid(
        problem.model_copy(update={"loc": [*place, *problem.loc[1:]]})
        for problem in problems_of(error)
    )


def _refuse(asked: Mapping[str, bool], place: list[str | int]) -> None:
    problems = [
        FieldProblem(
            loc=[*place, name], msg=f"{name} is not served here; leave it out", type="unserved"
        )
        for name, is_asked in asked.items()
        if is_asked
    ]
    if problems:
        raise RequestInvalid(problems)


def _unserved(place: list[str | int], text: str) -> RequestInvalid:
    return RequestInvalid([FieldProblem(loc=place, msg=text, type="unserved")])


def _stage(tab: AdetailerArgs, request: Img2ImgRequest, catalogue: Catalogue) -> Stage:
    """A tab in our terms, with what it takes over from the request."""
    k = tab.ad_mask_k_largest or tab.ad_mask_k
    by_area = bool(tab.ad_mask_k_largest) or tab.ad_mask_filter_method == "Area"
    padding = tab.ad_inpaint_only_masked_padding if tab.ad_inpaint_only_masked else MAX_EXTENT
    size = f"{tab.ad_inpaint_width}x{tab.ad_inpaint_height}"
    chosen = _chosen(tab, request)
    stage = Stage(
        detector=_detector(tab.ad_model, catalogue),
        prompt=tab.ad_prompt,
        negative_prompt=tab.ad_negative_prompt,
        main_prompt=request.prompt,
        main_negative_prompt=request.negative_prompt,
        confidence=tab.ad_confidence,
        k_largest=k if k and by_area else None,
        max_num_detections=k if k and not by_area else None,
        min_area_ratio=tab.ad_mask_min_ratio,
        max_area_ratio=tab.ad_mask_max_ratio,
        order=ORDERS[chosen.order],
        mask_dilation=tab.ad_dilate_erode,
        mask_offset_x=tab.ad_x_offset,
        mask_offset_y=-tab.ad_y_offset,  # the extension's points up
        union_masks=tab.ad_mask_merge_invert == "Merge",
        invert_masks=tab.ad_mask_merge_invert == "Merge and Invert",
        mask_blur=tab.ad_mask_blur,
        mask_padding=padding,
        inpaint_size=size if tab.ad_use_inpaint_width_height else None,
        strength=tab.ad_denoising_strength,
        steps=tab.ad_steps if tab.ad_use_steps else request.steps,
        cfg_scale=tab.ad_cfg_scale if tab.ad_use_cfg_scale else request.cfg_scale,
        sampler=_sampler(tab, request),
        clip_skip=None if chosen.clip_skip is None else chosen.clip_skip - 1,
        seed=_seed(request.seed, chosen),
    )
    return _with_model(stage, chosen.checkpoint, catalogue)


def _detector(name: str, catalogue: Catalogue) -> str:
    """The name here of what is a file there."""
    wanted = MEDIAPIPE.get(name) or re.sub(r"\.(pt|onnx|safetensors)$", "", name)
    return catalogue.find(Kind.DETECTOR, wanted, field="ad_model").name


def _sampler(tab: AdetailerArgs, request: Img2ImgRequest) -> Sampler:
    """The tab's own, else the request's; and likewise how the noise falls."""
    name, field = request.sampler_name or request.sampler_index or "Euler", "sampler_name"
    scheduler = request.scheduler
    if tab.ad_use_sampler and tab.ad_sampler != "Use same sampler":
        name, field = tab.ad_sampler, "ad_sampler"
        if tab.ad_scheduler != "Use same scheduler":
            scheduler = tab.ad_scheduler
    return find_sampler(name, scheduler, field=field)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the web UI has as settings."""

    checkpoint: str | None
    clip_skip: int | None
    order: str
    same_seed: bool


def _chosen(tab: AdetailerArgs, request: Img2ImgRequest) -> Chosen:
    """The tab's own choices, before those of the request."""
    settings = request.override_settings or {}
    _refuse(
        {
            name: name not in SETTINGS and not name.startswith(OF_NO_EFFECT) and value not in UNSET
            for name, value in settings.items()
        },
        ["body", "override_settings"],
    )
    try:
        shared = OverrideSettings.model_validate(settings)
    except ValidationError as error:
        raise _invalid(error, ["body", "override_settings"]) from None
    own_checkpoint = tab.ad_checkpoint if tab.ad_use_checkpoint else None
    return Chosen(
        checkpoint=own_checkpoint or shared.sd_model_checkpoint,
        clip_skip=tab.ad_clip_skip if tab.ad_use_clip_skip else shared.CLIP_stop_at_last_layers,
        order=shared.ad_bbox_sortby,
        same_seed=shared.ad_same_seed_for_each_tap,
    )


def _seed(seed: int, chosen: Chosen) -> int | list[int] | None:
    if seed == -1:
        return [random_seed()] if chosen.same_seed else None
    first = seed or MAX_SEED  # 0 is a seed there
    return [first] if chosen.same_seed else first


def _with_model(stage: Stage, title: str | None, catalogue: Catalogue) -> Stage:
    """The stage with the model of a title, such as ``name.safetensors [0123456789]``."""
    if title is None:
        return stage
    name = re.sub(r"\.(safetensors|ckpt)$", "", re.sub(r" \[\w+\]$", "", title))
    for base, spec in catalogue.bases().items():
        if spec.name == name:
            return stage.model_copy(update={"inpainting_base_model": base})
    found = catalogue.find(Kind.CHECKPOINT, name, field="sd_model_checkpoint")
    return stage.model_copy(update={"checkpoint": found.name})
