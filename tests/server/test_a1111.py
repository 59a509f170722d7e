"""A1111's API as its best known client speaks it: ``webuiapi``, unchanged, over loopback."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from afterdetail.config import Settings, parse_tokens
from afterdetail.models.catalogue import Kind
from afterdetail.server.app import create_app

if TYPE_CHECKING:
    from tests.server.conftest import Open

    from afterdetail.pipeline import Detailer

webuiapi = pytest.importorskip("webuiapi")

Serve = Callable[[FastAPI], AbstractContextManager[str]]
FACE: dict[str, Any] = {"ad_model": "mediapipe_face_full", "ad_denoising_strength": 0.5}


@pytest.fixture(scope="module")
def url(detailer: Detailer, on_loopback: Serve) -> Iterator[str]:
    with on_loopback(create_app(detailer, Settings())) as url:
        yield url


@pytest.fixture(scope="module")
def api(url: str) -> Any:
    return webuiapi.WebUIApi(baseurl=f"{url}/sdapi/v1", sampler="DDIM", steps=2)


@pytest.fixture
def picture(photos: Path) -> Image.Image:
    return Image.open(photos / "skimage_astronaut.png").convert("RGB")


def img2img(api: Any, picture: Image.Image, *tabs: dict[str, Any], **fields: Any) -> Any:
    asked = {"denoising_strength": 0, "seed": 7, "alwayson_scripts": {}, **fields}
    return api.img2img(
        images=[picture],
        adetailer=[webuiapi.ADetailer(**tab) for tab in tabs],
        **asked,
    )


def test_the_client_finds_what_it_looks_for(api: Any, detailer: Detailer) -> None:
    assert api.has_adetailer
    assert not api.has_controlnet
    assert api.util_get_current_model() == "tiny"
    assert "tiny" in api.util_get_model_names()
    assert {"Euler a", "DPM++ 2M", "DDIM"} <= set(api.util_get_sampler_names())
    assert api.util_get_scheduler_names() == ["automatic", "karras", "uniform"]
    assert tuple(item["name"] for item in api.get_loras()) == detailer.catalogue.names(Kind.LORA)
    api.util_wait_for_ready(check_interval=0.1)


def test_the_scripts_arguments_are_told(api: Any) -> None:
    (script,) = api.custom_get("sdapi/v1/script-info")
    assert (script["name"], script["is_alwayson"]) == ("adetailer", True)
    arguments = {item["label"]: item for item in script["args"]}
    assert arguments["ad_confidence"]["value"] == 0.3
    assert {"None", "mediapipe_face_full", "face_yolov8n.pt"} <= set(
        arguments["ad_model"]["choices"]
    )


def test_without_the_extension_the_picture_comes_back(api: Any, picture: Image.Image) -> None:
    answer = img2img(api, picture)
    np.testing.assert_array_equal(np.asarray(answer.image), np.asarray(picture))
    assert answer.info["seed"] == -1


def test_a_face_is_detailed_as_the_endpoint_details_it(
    api: Any, client: TestClient, picture: Image.Image
) -> None:
    answer = img2img(api, picture, FACE, prompt="a woman", cfg_scale=3)
    assert answer.info["seed"] == 7
    (face,) = answer.info["afterdetail"]["objects"]
    assert (face["outcome"], face["seed"]) == ("inpainted", 7)
    assert "ADetailer model: face_full_mediapipe" in answer.info["infotexts"][0]
    file = io.BytesIO()
    picture.save(file, "PNG")
    same = client.post(
        "/adetailer",
        json={
            "init_image": base64.b64encode(file.getvalue()).decode(),
            "image_encoding": "png",
            "detector": "face_full_mediapipe",
            "strength": 0.5,
            "steps": 2,
            "seed": 7,
            "cfg_scale": 3,
            "prompt": "a woman",
        },
    ).json()
    expected = Image.open(io.BytesIO(base64.b64decode(same["image_b64"])))
    np.testing.assert_array_equal(np.asarray(answer.image), np.asarray(expected))


def test_two_tabs_are_two_stages(api: Any, picture: Image.Image) -> None:
    eyes = {**FACE, "ad_model": "mediapipe_face_mesh_eyes_only"}
    objects = img2img(api, picture, FACE, eyes).info["afterdetail"]["objects"]
    assert [(item["stage"], item["label"]) for item in objects] == [(0, "face"), (1, "eyes")]


def test_img2img_scales_the_picture_as_there(api: Any, picture: Image.Image) -> None:
    answer = img2img(api, picture, FACE, width=256, height=320)
    assert answer.image.size == (256, 320)
    assert answer.info["afterdetail"]["objects"][0]["outcome"] == "inpainted"


def test_skipping_img2img_keeps_the_size(url: str, api: Any, picture: Image.Image) -> None:
    payload = {
        "init_images": [webuiapi.webuiapi.b64_img(picture)],
        "denoising_strength": 0.75,
        "width": 128,
        "height": 128,
        "steps": 2,
        "send_images": True,
        "alwayson_scripts": {"ADetailer": {"args": [True, True, FACE]}},
    }
    answer = api.custom_post("sdapi/v1/img2img", payload)
    assert answer.image.size == picture.size
    assert answer.info["seed"] > 0
    assert answer.parameters["init_images"] is None
    kept = api.custom_post("sdapi/v1/img2img", {**payload, "send_images": False})
    assert kept.images == []
    assert url


@pytest.mark.parametrize(
    ("tab", "fields", "named"),
    [
        ({"ad_restore_face": True}, {}, "ad_restore_face"),
        ({"ad_controlnet_model": "control_v11p_sd15_inpaint"}, {}, "ad_controlnet_model"),
        ({"ad_model": "face_yolov9c.pt"}, {}, "face_yolov9c"),
        ({}, {"denoising_strength": 0.4}, "denoising_strength"),
        ({}, {"sampler_name": "Restart"}, "Restart"),
        ({}, {"width": 30_000, "height": 30_000}, "30000x30000"),
        ({}, {"width": 4, "height": 4000}, "4x4000"),
    ],
)
def test_what_is_not_served_is_refused_by_name(
    api: Any, picture: Image.Image, tab: dict[str, Any], fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(RuntimeError, match=named) as caught:
        img2img(api, picture, {**FACE, **tab}, **fields)
    assert caught.value.args[0] == 422


def test_tokens_go_as_user_and_password(
    detailer: Detailer, on_loopback: Serve, picture: Image.Image
) -> None:
    settings = Settings(tokens=parse_tokens("anna:12345678"))
    with on_loopback(create_app(detailer, settings)) as url:
        base = f"{url}/sdapi/v1"
        anna = webuiapi.WebUIApi(baseurl=base, username="anna", password="12345678")
        assert anna.has_adetailer
        assert img2img(anna, picture).image.size == picture.size
        small = picture.resize((8, 8))  # sent before the refusal, which does not wait for it, comes
        for user, password in (("bert", "12345678"), ("anna", "wrong"), ("", "")):
            stranger = webuiapi.WebUIApi(baseurl=base, username=user, password=password)
            with pytest.raises(RuntimeError) as caught:
                img2img(stranger, small)
            assert caught.value.args[0] == 401


@pytest.mark.parametrize("path", ["txt2img", "extra-single-image", "refresh-checkpoints", "a/b"])
def test_other_paths_of_the_web_ui_say_what_there_is(open_client: Open, path: str) -> None:
    answer = open_client(Settings()).post(f"/sdapi/v1/{path}", json={})
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith(f"{path} is not served here: of this API there are")


@pytest.mark.parametrize(
    "settings", [{}, {"sd_model_checkpoint": "tiny"}, {"samples_format": "jpg"}]
)
def test_settings_that_are_so_already_are_agreed_to(api: Any, settings: dict[str, Any]) -> None:
    assert api.set_options(settings) is None


def test_settings_are_not_kept(api: Any) -> None:
    (problem,) = api.set_options({"sd_model_checkpoint": "dreams"})["detail"]
    assert problem["loc"] == ["body", "sd_model_checkpoint"]
    assert "override_settings" in problem["msg"]
