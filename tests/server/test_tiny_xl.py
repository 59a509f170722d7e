"""The embedded SDXL, its refiner and its LoRA over HTTP, from a start with ``--models tiny``."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from afterdetail.config import Settings
from afterdetail.pipeline import Detailer
from afterdetail.server.app import create_app
from afterdetail.types import RGB

Body = dict[str, object]


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with Detailer("tiny", "cpu") as detailer:
        yield TestClient(create_app(detailer, Settings()))


@pytest.fixture(scope="module")
def large(astronaut: bytes, body: Body) -> Body:
    """A face in a picture of a size that both bases take."""
    out = io.BytesIO()
    Image.open(io.BytesIO(astronaut)).convert("RGB").resize((1024, 1024)).save(out, "JPEG")
    given = {"init_image": base64.b64encode(out.getvalue()).decode(), "image_encoding": "png"}
    return body | given | {"steps": 5, "strength": 1.0, "seed": 3}


def painted(client: TestClient, body: Body) -> RGB:
    response = client.post("/adetailer", json=body)
    assert response.status_code == 200, response.text[:500]
    assert response.json()["num_objects_inpainted"] == 1
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(response.json()["image_b64"]))))


def test_a_large_picture_is_sdxls_and_each_wish_shows(client: TestClient, large: Body) -> None:
    wishes: list[Body] = [
        {"inpainting_base_model": "sdxl"},
        {"use_refiner": True},
        {"inpainting_base_model": "sdxl", "loras": {"tiny-xl-tan": 1.0}},
        {"inpainting_base_model": "sd15"},
    ]
    pictures = [painted(client, large | wish) for wish in wishes]
    assert len({picture.tobytes() for picture in pictures}) == len(wishes)
    assert np.array_equal(painted(client, large), pictures[0])


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ({"inpainting_base_model": "sd15", "use_refiner": True}, "refiner_unsupported"),
        ({"inpainting_base_model": "sd15", "loras": {"tiny-xl-tan": 1}}, "adapter_incompatible"),
        ({"inpainting_base_model": "sdxl", "loras": {"tiny-tan": 1}}, "adapter_incompatible"),
    ],
)
def test_what_is_of_another_base_is_refused(
    client: TestClient, large: Body, wish: Body, code: str
) -> None:
    response = client.post("/adetailer", json=large | wish)
    assert response.status_code == 422
    assert response.json()["detail"][0]["type"] == code
