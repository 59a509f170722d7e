"""The API page says what the hosted endpoint's reference said, plus what the contract adds."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import pytest

from afterdetail.config import Settings, parse_tokens
from afterdetail.schema.request import AdetailerRequest
from afterdetail.server.app import create_app

ADDED_SAMPLERS = [
    "DPM_PLUS_PLUS_2M_SDE", "DPM_PLUS_PLUS_2M_SDE_KARRAS", "DPM_2_KARRAS", "DPM_2_ANCESTRAL_KARRAS",
]  # fmt: skip
SAMPLERS = [
    "PNDM", "LMS", "KLMS", "DDIM", "DDPM", "HEUN", "K_HEUN", "K_EULER", "K_EULER_ANCESTRAL",
    "DPM_SOLVER_MULTISTEP", "DPM_PLUS_PLUS_2M_KARRAS", "DPM_SINGLE", "DPM_2", "DPM_2_ANCESTRAL",
    "DPM_PLUS_PLUS_SDE_KARRAS", "UNI_PC", "LCM",
]  # fmt: skip
DETECTORS = [
    "face_yolov8n", "hand_yolov8n", "face_full_mediapipe", "face_short_mediapipe",
    "face_mesh_mediapipe", "eyes_mesh_mediapipe",
]  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A field as the reference prints it, and what the contract adds to it."""

    name: str
    types: tuple[str, ...]
    default: object = None
    options: tuple[str, ...] = ()
    added: tuple[tuple[str, float], ...] = ()
    """Ranges, which the reference has in words or not at all."""


# In the order of the reference. Defaults of image_encoding and sampler are ours.
REFERENCE = [
    Row("init_image", ("string", "null")),
    Row("init_image_url", ("string", "null")),
    Row("image_encoding", ("string",), "jpeg", ("jpeg", "png")),
    Row("prompt", ("string", "null")),
    Row("negative_prompt", ("string", "null")),
    Row("sampler", ("string",), "DDIM", (*SAMPLERS, *ADDED_SAMPLERS)),
    Row("steps", ("integer",), 20, added=(("minimum", 1), ("maximum", 200))),
    Row("inpainting_base_model", ("string", "null"), None, ("sdxl", "sd15")),
    Row("checkpoint", ("string", "null")),
    Row("loras", ("object", "null")),
    Row("use_refiner", ("boolean",), False),
    Row("style_preset", ("string",), "base"),
    Row("strength", ("number",), 0.9, added=(("exclusiveMinimum", 0), ("maximum", 1))),
    Row("cfg_scale", ("number",), 7.5, added=(("exclusiveMinimum", 0), ("maximum", 50))),
    Row("seed", ("integer", "array", "null")),
    Row("mask_dilation", ("integer",), 4, added=(("minimum", 0), ("maximum", 65_535))),
    Row("mask_blur", ("integer",), 4, added=(("minimum", 0), ("maximum", 65_535))),
    Row("mask_padding", ("integer",), 32, added=(("minimum", 0), ("maximum", 65_535))),
    Row("max_num_detections", ("integer", "null")),
    Row("confidence", ("number",), 0.3, added=(("minimum", 0), ("maximum", 1))),
    Row("detector", ("string",), "required", tuple(DETECTORS)),
    Row("union_masks", ("boolean",), False),
]
RANGES = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def page(settings: Settings | None = None) -> dict[str, Any]:
    return create_app(Future(), settings or Settings(tokens=())).openapi()


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    components: dict[str, Any] = page()["components"]["schemas"]
    return components


def branches(schema: dict[str, Any], schemas: dict[str, Any]) -> list[dict[str, Any]]:
    """A field's schema without indirections, one entry for each type it may have."""
    if "$ref" in schema:
        return branches(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "anyOf" in schema:
        return [part for item in schema["anyOf"] for part in branches(item, schemas)]
    return [schema]


def test_the_page_has_the_fields_of_the_reference_in_its_order(schemas: dict[str, Any]) -> None:
    assert list(schemas["AdetailerRequest"]["properties"]) == [row.name for row in REFERENCE]
    assert schemas["AdetailerRequest"]["required"] == ["detector"]


@pytest.mark.parametrize("row", REFERENCE, ids=lambda row: row.name)
def test_each_field(row: Row, schemas: dict[str, Any]) -> None:
    field = schemas["AdetailerRequest"]["properties"][row.name]
    parts = branches(field, schemas)
    assert tuple(part["type"] for part in parts) == row.types
    assert field.get("default", "required") == row.default
    assert tuple(part["enum"] for part in parts if "enum" in part) == (
        (list(row.options),) if row.options else ()
    )
    assert {name: field[name] for name in RANGES if name in field} == dict(row.added)
    assert field["description"]


def test_a_lora_has_a_weight_or_null(schemas: dict[str, Any]) -> None:
    loras = schemas["AdetailerRequest"]["properties"]["loras"]["anyOf"][0]
    weights = branches(loras["additionalProperties"], schemas)
    assert [part["type"] for part in weights] == ["number", "null"]


def test_a_seed_lies_inside_its_range_alone_and_in_a_list(schemas: dict[str, Any]) -> None:
    one, many, _ = schemas["AdetailerRequest"]["properties"]["seed"]["anyOf"]
    for seed in (one, many["items"]):
        assert (seed["exclusiveMinimum"], seed["maximum"]) == (0, 2**32 - 1)
    assert many["minItems"] == 1


def test_the_response_has_exactly_four_fields(schemas: dict[str, Any]) -> None:
    response = schemas["AdetailerResponse"]
    types = {
        name: tuple(part["type"] for part in branches(field, schemas))
        for name, field in response["properties"].items()
    }
    assert types == {
        "image_b64": ("string", "null"),
        "num_objects_inpainted": ("integer",),
        "num_objects_detected": ("integer",),
        "num_removed_for_safety": ("integer",),
    }
    assert response["required"] == list(types)


def test_the_operation() -> None:
    document = page()
    assert document["paths"].keys() == {"/adetailer", "/v1/detect", "/v1/detail"}
    (post,) = document["paths"]["/adetailer"].items()
    method, operation = post
    assert method == "post"
    assert operation["requestBody"]["required"] is True
    assert operation["requestBody"]["content"].keys() == {"application/json"}
    statuses = {200, 401, 408, 413, 415, 422, 429, 500, 502, 503, 504}
    assert {int(status) for status in operation["responses"]} == statuses


def test_every_reference_on_the_page_leads_somewhere() -> None:
    document = page()
    names = document["components"]["schemas"].keys()
    found: set[str] = set()

    def walk(node: object) -> None:
        if isinstance(node, dict):
            if isinstance(target := node.get("$ref"), str):
                found.add(target.removeprefix("#/components/schemas/"))
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(document)
    assert found <= names
    assert AdetailerRequest.__name__ in found


def test_the_token_is_on_the_page_where_one_is_needed() -> None:
    assert "securitySchemes" not in page()["components"]
    secured = page(Settings(tokens=parse_tokens("anna:12345678")))
    assert secured["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert secured["paths"]["/adetailer"]["post"]["security"] == [{"bearer": []}]


def test_the_page_is_the_same_each_time_it_is_asked_for() -> None:
    app = create_app(Future(), Settings(tokens=()))
    first = str(app.openapi())
    assert str(app.openapi()) == first
