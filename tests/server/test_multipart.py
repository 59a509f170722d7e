"""Forms as browsers and curl send them."""

from __future__ import annotations

import os

import pytest

from afterdetail.schema.translate import RequestInvalid
from afterdetail.server.multipart import MAX_PARTS, Form, parse

TYPE = "multipart/form-data; boundary=xyz"


def part(name: str, content: bytes, more: str = "") -> bytes:
    return f'--xyz\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + (
        content + b"\r\n"
    )


END = b"--xyz--\r\n"


def test_an_empty_form_has_nothing() -> None:
    assert parse(TYPE, END) == Form({}, None)


@pytest.mark.parametrize("name", ["image", "init_image"])
@pytest.mark.parametrize("content", [b"", b"\r\n\r\n--xy\r\n", bytes(range(256)) * 99])
def test_a_file_comes_through_as_it_is(name: str, content: bytes) -> None:
    head = '; filename="a.png"\r\nContent-Type: image/png'
    form = parse(TYPE, part("prompt", "a wömän".encode()) + part(name, content, head) + END)
    assert form == Form({"prompt": "a wömän"}, content)


@pytest.mark.parametrize(
    "content_type",
    ['multipart/form-data; boundary="xyz"', "Multipart/Form-Data; charset=utf-8; BOUNDARY=xyz"],
)
def test_boundaries_in_all_their_forms(content_type: str) -> None:
    assert parse(content_type, b"preamble\r\n" + part("a", b"1") + END).fields == {"a": "1"}


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", part("a", b"1") + END),
        (TYPE, b""),
        (TYPE, part("a", b"1")),
        (TYPE, b"--xyz\r\n\r\n1\r\n" + END),
        (TYPE, b"--xyz\r\nContent-Disposition: form-data\r\n\r\n1\r\n" + END),
        (TYPE, part("a", b"\xff") + END),
        (TYPE, part("a", b"1") * (MAX_PARTS + 1) + END),
        (TYPE, part("image", b"1") + part("init_image", b"2") + END),
        (TYPE, os.urandom(1000)),
    ],
    ids=[
        "no-boundary",
        "empty",
        "no-end",
        "no-head",
        "no-name",
        "not-text",
        "many",
        "two-pictures",
        "noise",
    ],
)
def test_what_is_wrong_is_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(RequestInvalid) as caught:
        parse(content_type, body)
    assert caught.value.problems[0].type == "multipart_invalid"


def test_a_picture_under_another_name_is_told_its_own() -> None:
    with pytest.raises(RequestInvalid, match=r"'file' .* a picture's part is called image"):
        parse(TYPE, part("file", b"\x89PNG\r\n") + END)
