"""From the wire to options: JSON, base64, sizes."""

from __future__ import annotations

import base64

import pytest

from afterdetail.errors import InvalidInput, UnknownName
from afterdetail.models.catalogue import load_catalogue
from afterdetail.options import Base
from afterdetail.schema.request import AdetailerRequest
from afterdetail.schema.translate import (
    MAX_PROBLEMS,
    SLICE,
    RequestInvalid,
    decode_base64,
    parse_request,
    resolve,
)
from afterdetail.types import Size

ONLY_SD15 = load_catalogue("sd15")
BYTES = bytes(range(256))
TEXT = base64.b64encode(BYTES).decode()
MINIMAL = b'{"detector": "face_full_mediapipe", "init_image": "AA"}'


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", b""),
        ("AA==", b"\0"),
        ("AA", b"\0"),
        (TEXT, BYTES),
        (TEXT.rstrip("="), BYTES),
        ("\r\n".join(TEXT[i : i + 76] for i in range(0, len(TEXT), 76)) + "\n", BYTES),
        ("data:image/png;base64," + TEXT, BYTES),
        ("DATA:image/svg+xml;charset=utf-8;BASE64,AA==", b"\0"),
        (" data:image/webp;base64,AA", b"\0"),
    ],
)
def test_base64_in_all_its_forms(text: str, data: bytes) -> None:
    assert decode_base64(text) == data


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "AAAAA",
        "AA=",
        "AA=A",
        "A===",
        "=",
        "AA==AA==",
        "-_-_",
        "A*==",
        "é",
        "AA\x00A",
        "data:text/plain;base64,AA==",
        "data:image/png,AA==",
        "https://example.org/a.png",
    ],
)
def test_anything_else_is_not_base64(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_base64(text)
    assert (caught.value.code, caught.value.field) == ("invalid_base64", "init_image")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "json_invalid"),
        (b"{", "json_invalid"),
        (b"\xff\xfe", "json_invalid"),
        (b"{'detector': 1}", "json_invalid"),
        (MINIMAL + b"x", "json_invalid"),
        (b"[" * 100_000, "json_invalid"),
        (b'{"prompt": "\\ud800"}', "json_invalid"),
        (b"null", "dict_type"),
        (b"[]", "dict_type"),
        (b'"text"', "dict_type"),
    ],
)
def test_a_body_that_is_no_object(body: bytes, code: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        parse_request(body)
    assert [(item.loc, item.type) for item in caught.value.problems] == [(["body"], code)]


def test_an_empty_object_lacks_its_detector() -> None:
    with pytest.raises(RequestInvalid) as caught:
        parse_request(b"{}")
    assert [(item.loc, item.type) for item in caught.value.problems] == [
        (["body", "detector"], "missing")
    ]


def test_everything_wrong_is_told_at_once() -> None:
    with pytest.raises(RequestInvalid) as caught:
        parse_request(b'{"steps": 0, "seed": [1, -1], "loras": {"a": "b"}, "cfg_scale": NaN}')
    assert [item.loc for item in caught.value.problems] == [
        ["body", "steps"],
        ["body", "loras", "a"],
        ["body", "cfg_scale"],
        ["body", "seed", 1],
        ["body", "detector"],
    ]


def test_a_flood_of_mistakes_is_counted_not_listed() -> None:
    loras = ",".join(f'"{number}": "x"' for number in range(MAX_PROBLEMS + 1))
    with pytest.raises(RequestInvalid) as caught:
        parse_request(b'{"detector": "face_yolov8n", "loras": {%s}}' % loras.encode())
    assert [item.type for item in caught.value.problems] == ["too_many_errors"]


def test_a_long_name_is_not_repeated_in_full() -> None:
    with pytest.raises(RequestInvalid) as caught:
        parse_request(b'{"detector": "face_yolov8n", "loras": {"%s": "x"}}' % (b"n" * 10_000))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"detector": "face_yolov8n"}', "image_missing"),
        (b'{"detector": "face_yolov8n", "init_image": null}', "image_missing"),
        (
            b'{"detector": "face_yolov8n", "init_image": "", "init_image_url": ""}',
            "image_ambiguous",
        ),
    ],
)
def test_exactly_one_image(body: bytes, code: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        parse_request(body)
    assert [item.type for item in caught.value.problems] == [code]


def test_unknown_fields_are_set_apart() -> None:
    incoming = parse_request(MINIMAL[:-1] + b', "width": 5, "\\u00e9": NaN}')
    assert incoming.ignored == ("width", "é")
    assert incoming.request.detector == "face_full_mediapipe"


@pytest.mark.parametrize("style", ["base", "BASE", "Anime"])
def test_styles_in_any_case(style: str) -> None:
    body = MINIMAL[:-1] + b', "style_preset": "%s"}' % style.encode()
    assert parse_request(body).request.style_preset == style


def test_an_unknown_style_is_told_the_closest() -> None:
    with pytest.raises(UnknownName) as caught:
        parse_request(MINIMAL[:-1] + b', "style_preset": "animee"}')
    assert caught.value.field == "style_preset"
    assert "anime" in caught.value.public


def request(**fields: object) -> AdetailerRequest:
    return AdetailerRequest.model_validate(
        {"detector": "face_full_mediapipe", "init_image": "AA"} | fields
    )


@pytest.mark.parametrize("size", [(512, 512), (384, 704), (1024, 1536)])
def test_a_listed_size_is_resolved_with_its_base(size: Size) -> None:
    options = resolve(request(steps=3), size, ONLY_SD15, any_size=False)
    assert options.inpainting_base_model is Base.SD15
    assert options.steps == 3
    assert not hasattr(options, "init_image")


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (500, 500), (704, 512), (640, 1536)])
def test_an_unlisted_size_is_answered_with_the_list(size: Size) -> None:
    with pytest.raises(InvalidInput, match="384x704, 448x576, 512x512") as caught:
        resolve(request(), size, ONLY_SD15, any_size=False)
    assert (caught.value.code, caught.value.field) == ("image_dimensions", "init_image")
    assert resolve(request(), size, ONLY_SD15, any_size=True).inpainting_base_model is Base.SD15


def test_the_size_is_told_of_the_field_that_was_sent() -> None:
    by_url = request(init_image=None, init_image_url="https://example.org/a.png")
    with pytest.raises(InvalidInput) as caught:
        resolve(by_url, (5, 5), ONLY_SD15, any_size=False)
    assert caught.value.field == "init_image_url"


@pytest.mark.parametrize("length", [SLICE - 1, SLICE, SLICE + 1, 3 * SLICE + 2])
@pytest.mark.parametrize("line", [None, 76, 5])
def test_long_base64_is_decoded_in_slices(length: int, line: int | None) -> None:
    data = bytes(range(256)) * (length // 256 + 1)
    text = base64.b64encode(data[: length // 4 * 3 + length % 3]).decode()
    lines = [text[i : i + line] for i in range(0, len(text), line)] if line else [text]
    assert decode_base64("\n".join(lines)) == base64.b64decode(text)


def test_padding_ends_it() -> None:
    with pytest.raises(InvalidInput):
        decode_base64("A" * (SLICE - 4) + "AA==" + "AAAA")


def test_millions_of_values_are_not_even_parsed() -> None:
    with pytest.raises(RequestInvalid) as caught:
        parse_request(b'{"x": [' + b"0," * 200_000 + b"0]}")
    assert caught.value.code == "too_many_values"


def test_the_picture_is_not_kept_twice() -> None:
    incoming = parse_request(MINIMAL)
    assert (incoming.picture, incoming.request.init_image) == (b"\0", "")
