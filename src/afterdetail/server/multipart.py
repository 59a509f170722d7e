"""``multipart/form-data`` (RFC 7578): fields and one file, of a body that was read already."""

from __future__ import annotations

import re
from dataclasses import dataclass

from afterdetail.schema.response import FieldProblem
from afterdetail.schema.translate import RequestInvalid

PICTURE = ("image", "init_image")
"""What the part with the picture may be called."""
MAX_PARTS = 100
MAX_HEADERS = 4096
"""Bytes of one part's headers."""
BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;",]{1,70}))', re.IGNORECASE)
NAME = re.compile(r'[;\s]name="([^"]{0,100})"', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Form:
    """The fields by name, and the file called ``init_image`` or ``image``, if there is one."""

    fields: dict[str, str]
    picture: bytes | None


def parse(content_type: str, body: bytes) -> Form:
    """
    Raises:
        RequestInvalid: it is not written as RFC 7578 has it, has too many parts, or its text is not
            UTF-8.
    """
    match = BOUNDARY.search(content_type)
    if match is None:
        raise _wrong("its Content-Type names no boundary")
    delimiter = b"\r\n--" + (match[1] or match[2]).encode("latin-1", "replace")
    parts = (b"\r\n" + body).split(delimiter, MAX_PARTS + 2)
    if len(parts) > MAX_PARTS + 2:
        raise _wrong(f"it has more than {MAX_PARTS} parts")
    if len(parts) < 2 or not parts[-1].startswith(b"--"):
        raise _wrong("its last boundary is missing")
    fields: dict[str, str] = {}
    picture = None
    for part in parts[1:-1]:
        name, content = _part(part)
        if name in PICTURE:
            if picture is not None:
                raise _wrong("it has two pictures; send one")
            picture = content
        else:
            fields[name] = _text(name, content)
    return Form(fields, picture)


def _part(part: bytes) -> tuple[str, bytes]:
    head, divided, content = part.partition(b"\r\n\r\n")
    name = NAME.search(head[:MAX_HEADERS].decode("utf-8", "replace"))
    if not divided or name is None:
        raise _wrong("a part has no name")
    return name[1], content


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        text = f"the part {name[:80]!r} is not UTF-8 text; a picture's part is called image"
        raise _wrong(text) from None


def _wrong(problem: str) -> RequestInvalid:
    text = f"the body is not multipart/form-data as it should be: {problem}"
    return RequestInvalid([FieldProblem(loc=["body"], msg=text, type="multipart_invalid")])
