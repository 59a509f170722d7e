"""Every row of the contract's request table, through HTTP: what is served and what is refused."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from afterdetail.config import Settings
from afterdetail.options import MAX_SEED, Sampler
from afterdetail.prompts import styles
from afterdetail.schema.request import AdetailerRequest
from afterdetail.types import RGB

if TYPE_CHECKING:
    from tests.server.conftest import Open, Source

Body = dict[str, object]

SERVED: list[tuple[str, Any]] = [
    ("image_encoding", "jpeg"),
    ("image_encoding", "png"),
    ("prompt", None),
    ("prompt", ""),
    ("prompt", "a (smiling:1.2) [old] ((woman)), \\(laughing\\) (unbalanced"),
    ("prompt", "a face, " * 200),
    ("negative_prompt", None),
    ("negative_prompt", "blurry"),
    *(("sampler", name.value) for name in Sampler),
    ("steps", 1),
    ("steps", 3.0),
    ("inpainting_base_model", None),
    ("inpainting_base_model", "sd15"),
    ("checkpoint", None),
    ("loras", None),
    ("loras", {}),
    ("use_refiner", False),
    ("style_preset", "base"),
    ("style_preset", styles.names()[-1].upper()),
    ("strength", 0.01),
    ("strength", 1),
    ("cfg_scale", 0.5),
    ("cfg_scale", 1),
    ("cfg_scale", 50),
    ("seed", None),
    ("seed", MAX_SEED),
    ("seed", [7, MAX_SEED]),
    ("mask_dilation", 0),
    ("mask_dilation", 65_535),
    ("mask_blur", 0),
    ("mask_blur", 64),
    ("mask_padding", 0),
    ("mask_padding", 65_535),
    ("max_num_detections", None),
    ("max_num_detections", 1),
    ("confidence", 0.9),
    ("confidence", 1),
    ("detector", "face_full_mediapipe"),
    ("detector", "face_short_mediapipe"),
    ("detector", "face_mesh_mediapipe"),
    ("detector", "eyes_mesh_mediapipe"),
    ("union_masks", False),
    ("union_masks", True),
]

REFUSED: list[tuple[str, Any, str]] = [
    ("init_image", 5, "string_type"),
    ("init_image", "", "image_empty"),
    ("init_image", "not base64!", "invalid_base64"),
    ("init_image", "R0lGODlhAQABAAAAACw=", "image_unsupported"),
    ("image_encoding", None, "enum"),
    ("image_encoding", "webp", "enum"),
    ("prompt", 5, "string_type"),
    ("negative_prompt", ["a"], "string_type"),
    ("sampler", None, "enum"),
    ("sampler", "EULER", "enum"),
    ("steps", None, "int_type"),
    ("steps", 0, "greater_than_equal"),
    ("steps", 201, "less_than_equal"),
    ("steps", 1.5, "int_from_float"),
    ("steps", "20", "number_type"),
    ("inpainting_base_model", "sd21", "enum"),
    ("checkpoint", 1, "string_type"),
    ("checkpoint", "nosuch", "unknown_name"),
    ("checkpoint", "octoai:nosuch", "unknown_name"),
    ("loras", ["a"], "dict_type"),
    ("loras", {"a": "1"}, "number_type"),
    ("loras", {"nosuch": None}, "unknown_name"),
    ("use_refiner", None, "bool_type"),
    ("use_refiner", True, "refiner_unsupported"),
    ("style_preset", None, "string_type"),
    ("style_preset", "nosuch", "unknown_name"),
    ("strength", 0, "greater_than"),
    ("strength", 1.01, "less_than_equal"),
    ("cfg_scale", 0, "greater_than"),
    ("cfg_scale", 50.01, "less_than_equal"),
    ("seed", 0, "greater_than"),
    ("seed", 2**32, "less_than_equal"),
    ("seed", [], "too_short"),
    ("seed", [1, 0], "greater_than"),
    ("seed", "1", "number_type"),
    ("mask_dilation", -1, "greater_than_equal"),
    ("mask_blur", -1, "greater_than_equal"),
    ("mask_blur", None, "int_type"),
    ("mask_padding", -1, "greater_than_equal"),
    ("mask_padding", 10**30, "less_than_equal"),
    ("max_num_detections", 0, "greater_than_equal"),
    ("confidence", -0.1, "greater_than_equal"),
    ("confidence", 1.1, "less_than_equal"),
    ("detector", None, "enum"),
    ("detector", "person_yolov8n-seg", "enum"),
    ("detector", "../face_full_mediapipe", "enum"),
    ("union_masks", "true", "bool_type"),
]


def test_no_field_is_forgotten() -> None:
    by_value = {"init_image", "init_image_url"}  # have tests of their own below
    assert by_value | {field for field, _ in SERVED} == AdetailerRequest.model_fields.keys()
    refused = {field for field, *_ in REFUSED} | {"init_image_url"}
    assert refused == AdetailerRequest.model_fields.keys()


def pixels(image_b64: str) -> RGB:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(image_b64))).convert("RGB"))


@pytest.mark.parametrize(("field", "value"), SERVED)
def test_served(client: TestClient, body: Body, field: str, value: object) -> None:
    response = client.post("/adetailer", json=body | {field: value})
    assert response.status_code == 200, response.text[:500]
    answer = response.json()
    assert answer.keys() == {
        "image_b64", "num_objects_inpainted", "num_objects_detected", "num_removed_for_safety",
    }  # fmt: skip
    assert pixels(answer["image_b64"]).shape == (512, 512, 3)
    assert answer["num_objects_inpainted"] == answer["num_objects_detected"]
    assert answer["num_removed_for_safety"] == 0


@pytest.mark.parametrize(("field", "value", "code"), REFUSED)
def test_refused(client: TestClient, body: Body, field: str, value: object, code: str) -> None:
    response = client.post("/adetailer", json=body | {field: value})
    assert response.status_code == 422
    assert response.json().keys() == {"detail"}
    (problem,) = response.json()["detail"]
    assert problem.keys() == {"loc", "msg", "type"}
    assert (problem["loc"][:2], problem["type"]) == (["body", field], code)


@pytest.mark.parametrize("detector", ["face_yolov8n", "hand_yolov8n"])
def test_a_detector_without_weights_is_named(
    client: TestClient, body: Body, detector: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    response = client.post("/adetailer", json=body | {"detector": detector})
    assert response.status_code == 422
    (problem,) = response.json()["detail"]
    assert problem["type"] == "model_unavailable"
    assert detector in problem["msg"]
    assert str(tmp_path) not in response.text


@pytest.mark.parametrize("missing", ["detector", "init_image"])
def test_a_required_field_is_missing(client: TestClient, body: Body, missing: str) -> None:
    kept = {name: value for name, value in body.items() if name != missing}
    assert client.post("/adetailer", json=kept).status_code == 422


def test_both_images_are_one_too_many(client: TestClient, body: Body) -> None:
    response = client.post("/adetailer", json=body | {"init_image_url": "http://example.org/"})
    assert response.status_code == 422
    assert response.json()["detail"][0]["type"] == "image_ambiguous"


@pytest.mark.parametrize(
    ("name", "encode"),
    [
        ("padded", lambda text: text),
        ("unpadded", lambda text: text.rstrip("=")),
        ("in lines", lambda text: "\n".join(text[i : i + 76] for i in range(0, len(text), 76))),
        ("as data: URI", lambda text: "data:image/png;base64," + text),
    ],
)
def test_base64_in_all_its_forms(client: TestClient, body: Body, name: str, encode: Any) -> None:
    response = client.post("/adetailer", json=body | {"init_image": encode(body["init_image"])})
    assert response.status_code == 200, name
    assert response.json()["num_objects_detected"] == 1


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_pictures_of_all_formats(
    client: TestClient, body: Body, astronaut: bytes, file_format: str
) -> None:
    out = io.BytesIO()
    Image.open(io.BytesIO(astronaut)).save(out, file_format)
    sent = base64.b64encode(out.getvalue()).decode()
    response = client.post("/adetailer", json=body | {"init_image": sent})
    assert response.status_code == 200
    assert response.json()["num_objects_inpainted"] == 1


def test_a_url_gives_what_its_picture_gives(
    open_client: Open, client: TestClient, body: Body, source: Source
) -> None:
    settings = Settings(url_ports=(source.port,), allow_private_urls=True)
    fetched = body | {"init_image": None, "init_image_url": source.url("/picture")}
    by_url = open_client(settings).post("/adetailer", json=fetched)
    assert by_url.status_code == 200
    assert by_url.json() == client.post("/adetailer", json=body).json()


@pytest.mark.parametrize(
    ("encoding", "magic"), [("jpeg", b"\xff\xd8\xff"), ("png", b"\x89PNG"), (None, b"\xff\xd8\xff")]
)
def test_the_encoding_asked_for(
    client: TestClient, body: Body, encoding: str | None, magic: bytes
) -> None:
    kept = {name: value for name, value in body.items() if name != "image_encoding"}
    asked = {"image_encoding": encoding} if encoding else {}
    answer = client.post("/adetailer", json=kept | asked).json()
    assert base64.b64decode(answer["image_b64"], validate=True).startswith(magic)


def test_unknown_fields_are_listed(client: TestClient, body: Body) -> None:
    extra = {"width": 512, "a, b\r\nX-Injected: 1": None, "naïve": float("1e3")}
    response = client.post("/adetailer", json=body | extra)
    assert response.status_code == 200
    listed = "width, a%2C%20b%0D%0AX-Injected%3A%201, na%C3%AFve"
    assert response.headers["X-Ignored-Fields"] == listed
    assert "X-Injected" not in response.headers


def test_many_unknown_fields_are_listed_in_part(client: TestClient, body: Body) -> None:
    response = client.post("/adetailer", json=body | {f"x{n}" * 50: 0 for n in range(1000)})
    assert response.status_code == 200
    assert response.headers["X-Ignored-Fields"].endswith(", ...")
    assert len(response.headers["X-Ignored-Fields"]) < 4000


def test_no_unknown_fields_no_header(client: TestClient, body: Body) -> None:
    assert "X-Ignored-Fields" not in client.post("/adetailer", json=body).headers


def test_the_same_seed_gives_the_same_pixels(client: TestClient, body: Body) -> None:
    first, again, other = (
        client.post("/adetailer", json=body | {"seed": seed}).json() for seed in (5, 5, 6)
    )
    assert first == again
    assert first["image_b64"] != other["image_b64"]


def test_options_reach_the_pixels(client: TestClient, body: Body) -> None:
    """A padding, a blur and a guidance of another value each give another picture."""
    # Without a prompt guidance has nothing to guide to: any scale gives the same picture.
    guided = {"prompt": "a face", "cfg_scale": 50}
    changes: list[Body] = [{}, {"mask_padding": 0}, {"mask_blur": 30}, guided]
    changes += [{"prompt": "a face"}, {"sampler": "DDPM"}, {"strength": 1}, {"steps": 4}]
    pictures = [client.post("/adetailer", json=body | change).json()["image_b64"]
                for change in changes]  # fmt: skip
    assert len(set(pictures)) == len(changes)


def test_the_counts_of_four_faces(client: TestClient, body: Body, astronaut: bytes) -> None:
    tile = np.asarray(Image.open(io.BytesIO(astronaut)).convert("RGB"))
    out = io.BytesIO()
    Image.fromarray(np.tile(tile, (2, 2, 1))).save(out, "PNG")
    sent = base64.b64encode(out.getvalue()).decode()
    answer = client.post(
        "/adetailer", json=body | {"init_image": sent, "max_num_detections": 3}
    ).json()
    assert answer["num_objects_detected"] == 4
    assert answer["num_objects_inpainted"] == 3
    changed = (pixels(answer["image_b64"]) != np.tile(tile, (2, 2, 1))).any(axis=2)
    quarters = [changed[y : y + 512, x : x + 512].any() for y in (0, 512) for x in (0, 512)]
    assert sorted(quarters) == [False, True, True, True]
