"""What the ADetailer extension's users ask for, in our terms."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from afterdetail.errors import InvalidInput
from afterdetail.models.catalogue import Catalogue, Kind, ModelSpec, Source, load_catalogue
from afterdetail.options import MAX_EXTENT, MAX_SEED, Base, Sampler
from afterdetail.schema.a1111 import Img2Img, parse_img2img
from afterdetail.schema.a1111_samplers import SAMPLERS, find_sampler
from afterdetail.schema.translate import RequestInvalid
from afterdetail.stages import Stage

PICTURE = base64.b64encode(b"picture").decode()
CATALOGUE = Catalogue(
    (
        *load_catalogue("sd15").models,
        ModelSpec("photo", Kind.CHECKPOINT, Source(path="photo"), base=Base.SD15),
    )
)
FACE = {"ad_model": "face_yolov8n.pt"}


def parse(*args: Any, **fields: Any) -> Img2Img:
    scripts = {"alwayson_scripts": {"ADetailer": {"args": list(args)}}} if args else {}
    given = {"init_images": [PICTURE], "denoising_strength": 0, **scripts, **fields}
    return parse_img2img(json.dumps(given).encode(), CATALOGUE)


def stage(tab: dict[str, Any], **fields: Any) -> Stage:
    (only,) = parse(True, True, {**FACE, **tab}, **fields).stages
    return only


def test_without_the_extension_nothing_is_done() -> None:
    assert parse().stages == ()
    assert parse().picture == b"picture"


def test_the_extensions_defaults() -> None:
    assert stage({}, prompt="a woman", negative_prompt="blurry", seed=5) == Stage(
        detector="face_yolov8n",
        prompt="",
        negative_prompt="",
        main_prompt="a woman",
        main_negative_prompt="blurry",
        confidence=0.3,
        mask_dilation=4,
        mask_blur=4,
        mask_padding=32,
        strength=0.4,
        steps=50,
        cfg_scale=7.0,
        sampler=Sampler.K_EULER,
        seed=5,
    )


@pytest.mark.parametrize(
    ("args", "count"),
    [
        ((False, FACE), 0),
        ((True, FACE), 1),
        ((True, True, FACE, FACE), 2),
        ((FACE,), 1),
        ((True, False, {"ad_model": "None"}), 0),
        ((True, False, {**FACE, "ad_tab_enable": False}), 0),
        ((True, False, {**FACE, "ad_tap_enable": False}), 0),
        ((True, False, {**FACE, "ad_denoising_strength": 0}), 0),
        ((True, False, {}), 0),
    ],
)
def test_which_tabs_are_on(args: tuple[Any, ...], count: int) -> None:
    assert len(parse(*args).stages) == count


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ("mediapipe_face_full", "face_full_mediapipe"),
        ("mediapipe_face_short", "face_short_mediapipe"),
        ("mediapipe_face_mesh", "face_mesh_mediapipe"),
        ("mediapipe_face_mesh_eyes_only", "eyes_mesh_mediapipe"),
        ("face_yolov8n.pt", "face_yolov8n"),
        ("hand_yolov8n.pt", "hand_yolov8n"),
        ("person_yolov8n-seg.pt", "person_yolov8n-seg"),
        ("face_full_mediapipe", "face_full_mediapipe"),
    ],
)
def test_detectors(there: str, here: str) -> None:
    assert stage({"ad_model": there}).detector == here


@pytest.mark.parametrize(
    ("tab", "changed"),
    [
        ({"ad_prompt": "a [SEP] b"}, {"prompt": "a [SEP] b"}),
        ({"ad_mask_k_largest": 2.0}, {"k_largest": 2}),
        ({"ad_mask_k": 2}, {"k_largest": 2}),
        ({"ad_mask_k": 2, "ad_mask_filter_method": "Confidence"}, {"max_num_detections": 2}),
        ({"ad_mask_filter_method": "Confidence"}, {}),
        ({"ad_mask_min_ratio": 0.1, "ad_mask_max_ratio": 0.5},
         {"min_area_ratio": 0.1, "max_area_ratio": 0.5}),
        ({"ad_dilate_erode": -8}, {"mask_dilation": -8}),
        ({"ad_x_offset": 3, "ad_y_offset": 5}, {"mask_offset_x": 3, "mask_offset_y": -5}),
        ({"ad_mask_merge_invert": "Merge"}, {"union_masks": True}),
        ({"ad_mask_merge_invert": "Merge and Invert"}, {"invert_masks": True}),
        ({"ad_mask_blur": 12}, {"mask_blur": 12}),
        ({"ad_denoising_strength": 0.7}, {"strength": 0.7}),
        ({"ad_inpaint_only_masked_padding": 64}, {"mask_padding": 64}),
        ({"ad_inpaint_only_masked": False}, {"mask_padding": MAX_EXTENT}),
        ({"ad_inpaint_width": 640}, {}),
        ({"ad_use_inpaint_width_height": True}, {"inpaint_size": "512x512"}),
        ({"ad_steps": 9}, {}),
        ({"ad_use_steps": True, "ad_steps": 9}, {"steps": 9}),
        ({"ad_use_cfg_scale": True, "ad_cfg_scale": 3}, {"cfg_scale": 3.0}),
        ({"ad_use_sampler": True}, {"sampler": Sampler.DPM_PLUS_PLUS_2M_KARRAS}),
        ({"ad_use_sampler": True, "ad_sampler": "DPM++ 2M", "ad_scheduler": "Uniform"},
         {"sampler": Sampler.DPM_SOLVER_MULTISTEP}),
        ({"ad_use_sampler": True, "ad_sampler": "Use same sampler"}, {}),
        ({"ad_use_clip_skip": True, "ad_clip_skip": 2}, {"clip_skip": 1}),
        ({"ad_use_checkpoint": True, "ad_checkpoint": "photo"}, {"checkpoint": "photo"}),
        ({"ad_use_checkpoint": True, "ad_checkpoint": "Use same checkpoint"}, {}),
        ({"ad_use_checkpoint": True, "ad_checkpoint": "photo.safetensors [0a1b2c3d]"},
         {"checkpoint": "photo"}),
        ({"ad_use_checkpoint": True, "ad_checkpoint": "sd15"},
         {"inpainting_base_model": Base.SD15}),
        ({"ad_checkpoint": "photo"}, {}),
        ({"ad_use_vae": True, "ad_vae": "Use same VAE"}, {}),
        ({"ad_controlnet_model": "None", "ad_controlnet_weight": 0.5}, {}),
        ({"ad_use_noise_multiplier": True}, {}),
    ],
)  # fmt: skip
def test_arguments(tab: dict[str, Any], changed: dict[str, Any]) -> None:
    assert stage(tab, seed=5) == stage({}, seed=5).model_copy(update=changed)


@pytest.mark.parametrize(
    ("fields", "changed"),
    [
        ({"steps": 20, "cfg_scale": 5}, {"steps": 20, "cfg_scale": 5.0}),
        ({"seed": 0}, {"seed": MAX_SEED}),
        ({"sampler_name": "Euler a"}, {"sampler": Sampler.K_EULER_ANCESTRAL}),
        ({"sampler_name": None, "sampler_index": "DDIM"}, {"sampler": Sampler.DDIM}),
        ({"sampler_name": "LMS", "scheduler": "Karras"}, {"sampler": Sampler.KLMS}),
        ({"override_settings": {"sd_model_checkpoint": "photo"}}, {"checkpoint": "photo"}),
        ({"override_settings": {"CLIP_stop_at_last_layers": 2}}, {"clip_skip": 1}),
        ({"override_settings": {"ad_bbox_sortby": "Position (left to right)"}},
         {"order": "left_to_right"}),
        ({"override_settings": {"ad_same_seed_for_each_tap": True}}, {"seed": [5]}),
        ({"override_settings": {"samples_format": "png", "sd_vae": "Automatic"}}, {}),
        ({"eta": 1.0, "s_noise": 1, "image_cfg_scale": 1.5, "include_init_images": True}, {}),
    ],
)  # fmt: skip
def test_what_the_request_says(fields: dict[str, Any], changed: dict[str, Any]) -> None:
    assert stage({}, **{"seed": 5, **fields}) == stage({}, seed=5).model_copy(update=changed)


@pytest.mark.parametrize(
    ("fields", "size"),
    [({}, None), ({"width": 640, "height": 384}, (640, 384)), ({"width": 640}, None)],
)
def test_img2img_scales_unless_it_is_skipped(
    fields: dict[str, Any], size: tuple[int, int] | None
) -> None:
    assert parse(True, FACE, **fields).size == size
    assert parse(True, True, FACE, **fields).size is None


ARGS = ["body", "alwayson_scripts", "ADetailer", "args"]


@pytest.mark.parametrize(
    ("tab", "name"),
    [
        ({"ad_model_classes": "face"}, "ad_model_classes"),
        ({"ad_use_vae": True, "ad_vae": "best.vae"}, "ad_vae"),
        ({"ad_use_noise_multiplier": True, "ad_noise_multiplier": 1.1}, "ad_noise_multiplier"),
        ({"ad_restore_face": True}, "ad_restore_face"),
        ({"ad_controlnet_model": "control_v11p"}, "ad_controlnet_model"),
        ({"ad_mask_k": 2, "ad_mask_k_largest": 2}, "ad_mask_k"),
        ({"ad_new_option": 1}, "ad_new_option"),
        ({"ad_confidence": 2}, "ad_confidence"),
        ({"ad_steps": 0}, "ad_steps"),
    ],
)
def test_what_is_not_served_is_refused_by_name(tab: dict[str, Any], name: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        stage(tab)
    (problem,) = caught.value.problems
    assert problem.loc == [*ARGS, 2, name]
    assert problem.msg


def test_what_is_not_served_does_not_matter_where_the_tab_is_off() -> None:
    off = {**FACE, "ad_tab_enable": False, "ad_restore_face": True}
    assert parse(True, True, off).stages == ()


@pytest.mark.parametrize(
    ("fields", "loc"),
    [
        ({"init_images": []}, ["body", "init_images"]),
        ({"init_images": [PICTURE, PICTURE]}, ["body", "init_images"]),
        ({"denoising_strength": 0.5}, ["body", "denoising_strength"]),
        ({"batch_size": 2}, ["body", "batch_size"]),
        ({"n_iter": 2}, ["body", "n_iter"]),
        ({"mask": PICTURE}, ["body", "mask"]),
        ({"tiling": True}, ["body", "tiling"]),
        ({"restore_faces": True}, ["body", "restore_faces"]),
        ({"styles": ["photo"]}, ["body", "styles"]),
        ({"script_name": "x/y/z plot"}, ["body", "script_name"]),
        ({"override_settings": {"eta_noise_seed_delta": 31337}},
         ["body", "override_settings", "eta_noise_seed_delta"]),
        ({"override_settings": {"CLIP_stop_at_last_layers": 0}},
         ["body", "override_settings", "CLIP_stop_at_last_layers"]),
        ({"alwayson_scripts": {"ADetailer": {"args": "x"}}}, ARGS),
        ({"alwayson_scripts": {"ControlNet": {"args": [{"enabled": True}]}}},
         ["body", "alwayson_scripts", "ControlNet"]),
        ({"alwayson_scripts": {"roop": {"args": ["img", True]}}},
         ["body", "alwayson_scripts", "roop"]),
    ],
)  # fmt: skip
def test_requests_that_ask_for_more_are_refused(
    fields: dict[str, Any], loc: list[str | int]
) -> None:
    with pytest.raises(RequestInvalid) as caught:
        parse(*(() if "alwayson_scripts" in fields else (True, FACE)), **fields)
    assert caught.value.problems[0].loc == loc


@pytest.mark.parametrize("args", [[], [False], [{"enabled": False}], [None, 0, ""]])
def test_scripts_that_are_off_do_not_matter(args: list[Any]) -> None:
    assert parse(alwayson_scripts={"ControlNet": {"args": args}}).stages == ()


@pytest.mark.parametrize(
    ("tab", "fields", "field"),
    [
        ({"ad_model": "face_yolov9c.pt"}, {}, "ad_model"),
        ({"ad_model": "../../etc/passwd.pt"}, {}, "ad_model"),
        ({"ad_use_checkpoint": True, "ad_checkpoint": "nobody"}, {}, "sd_model_checkpoint"),
        ({"ad_use_sampler": True, "ad_sampler": "Restart"}, {}, "ad_sampler"),
        ({}, {"sampler_name": "DPM fast"}, "sampler_name"),
        ({}, {"scheduler": "Exponential"}, "scheduler"),
        ({}, {"init_images": ["?"]}, "init_images"),
    ],
)
def test_unknown_names(tab: dict[str, Any], fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        stage(tab, **fields)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("name", "scheduler", "expected"),
    [
        ("Euler", None, Sampler.K_EULER),
        ("euler a", "Automatic", Sampler.K_EULER_ANCESTRAL),
        ("k_dpmpp_2m", "", Sampler.DPM_PLUS_PLUS_2M_KARRAS),
        ("DPM++ 2M", "uniform", Sampler.DPM_SOLVER_MULTISTEP),
        ("DPM++ 2M Karras", "Automatic", Sampler.DPM_PLUS_PLUS_2M_KARRAS),
        ("DPM++ 2M SDE Karras", None, Sampler.DPM_PLUS_PLUS_2M_SDE_KARRAS),
        ("DPM++ SDE", None, Sampler.DPM_PLUS_PLUS_SDE_KARRAS),
        ("DPM2 a Karras", None, Sampler.DPM_2_ANCESTRAL_KARRAS),
        ("Heun", "Karras", Sampler.K_HEUN),
        ("PLMS", None, Sampler.PNDM),
        ("LCM", None, Sampler.LCM),
    ],
)
def test_samplers(name: str, scheduler: str | None, expected: Sampler) -> None:
    assert find_sampler(name, scheduler, field="sampler_name") is expected


def test_all_but_one_of_our_samplers_have_a_name_there() -> None:
    there = {one for item in SAMPLERS for one in (item.plain, item.karras)}
    assert set(Sampler) - there == {Sampler.DDPM, Sampler.DPM_SINGLE}
