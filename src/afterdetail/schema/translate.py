"""From the wire to what the pipeline takes, once: every word of the request is settled here."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from afterdetail.errors import InvalidInput
from afterdetail.models.catalogue import Catalogue
from afterdetail.models.choose import choose
from afterdetail.models.resolutions import RESOLUTIONS, listed
from afterdetail.options import SEED_KINDS, Base, DetailOptions
from afterdetail.prompts import styles
from afterdetail.schema.request import AdetailerRequest, AnyDetectorRequest
from afterdetail.schema.response import FieldProblem
from afterdetail.types import Size

MAX_PROBLEMS = 50
"""A body of a million wrong entries is not answered with a million sentences."""
DATA_URI = re.compile(r"\s*data:image/[\w.+-]+(?:;[\w-]+=[\w.-]+)*;base64,", re.IGNORECASE)


class RequestInvalid(InvalidInput):
    """A body that is not a request; ``problems`` has everything that is wrong with it."""

    def __init__(self, problems: Iterable[FieldProblem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        super().__init__(first.type, f"{'.'.join(map(str, first.loc))}: {first.msg}")


MAX_VALUES = 100_000
"""Of a body. A request has tens; building millions would stop the whole process for seconds."""
SLICE = 1 << 16
"""Characters of base64 decoded at once: other threads wait for a third of a millisecond."""
SPACES = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as it came, and the names in it that mean nothing here.

    ``picture`` is the file in ``init_image``, which ``request`` no longer has; None if the picture
    is to be fetched.
    """

    request: AnyDetectorRequest
    ignored: tuple[str, ...]
    picture: bytes | None

    @property
    def address(self) -> str | None:
        """Where the picture is to be fetched from."""
        return self.request.init_image_url

    @property
    def image_field(self) -> str:
        """The field that the picture is in, or its address."""
        return self.request.image_field


def parse_request(body: bytes, *, any_detector: bool = False) -> Incoming:
    """Read a JSON body, base64 included.

    Args:
        any_detector: take any name for the detector, not only those of the hosted endpoint. Names
            are looked up in the catalogue, nowhere else.

    Raises:
        RequestInvalid: it is no JSON object, or fields are missing or wrong.
        UnknownName: there is no such style.
        InvalidInput: ``init_image`` is not base64.
    """
    fields = json_object(body)
    form = AnyDetectorRequest if any_detector else AdetailerRequest
    try:
        request = form.model_validate(fields)
    except ValidationError as error:
        raise RequestInvalid(problems_of(error)) from None
    styles.find(request.style_preset)
    ignored = tuple(name for name in fields if name not in form.model_fields)
    if request.init_image is None:
        return Incoming(request, ignored, None)
    picture = decode_base64(request.init_image)
    return Incoming(request.model_copy(update={"init_image": ""}), ignored, picture)


def decode_base64(text: str, *, field: str = "init_image") -> bytes:
    """The bytes of a picture sent by value.

    Standard alphabet, with or without padding, line breaks and a ``data:image/...;base64,`` in
    front (RFC 4648, RFC 2397).

    Raises:
        InvalidInput: anything else, as ``invalid_base64``.
    """
    prefix = DATA_URI.match(text[:200])
    payload = text[prefix.end() :] if prefix else text
    try:
        return _decode_slices(payload)
    except (UnicodeEncodeError, binascii.Error):
        raise InvalidInput(
            "invalid_base64", "not base64 of the standard alphabet (A-Z a-z 0-9 + /)", field=field
        ) from None


def _decode_slices(payload: str) -> bytes:
    """
    Raises:
        UnicodeEncodeError, binascii.Error: it is not base64.
    """
    decoded = bytearray()
    rest = b""
    for start in range(0, len(payload), SLICE):
        packed = rest + payload[start : start + SLICE].encode("ascii").translate(None, SPACES)
        whole = max(0, (len(packed) - 1) // 4 * 4)  # the last group may be the padded one
        if b"=" in packed[:whole]:
            raise binascii.Error("padding inside")
        decoded += binascii.a2b_base64(packed[:whole], strict_mode=True)
        rest = packed[whole:]
    if not rest.endswith(b"="):
        rest += b"=" * (-len(rest) % 4)
    return bytes(decoded + binascii.a2b_base64(rest, strict_mode=True))


def resolve(
    request: AnyDetectorRequest, size: Size, catalogue: Catalogue, *, any_size: bool
) -> DetailOptions:
    """The options to run, the base model chosen and the picture's size accepted.

    Raises:
        InvalidInput: a picture of a size the base does not take, as ``image_dimensions``; and what
            :func:`~afterdetail.models.choose.choose` raises.
    """
    options = request.options()
    base = choose(options, size, catalogue).model.base
    assert base is not None, "a model of kind 'base' has one"
    if not any_size:
        _check_size(size, base, field=request.image_field)
    return options.model_copy(update={"inpainting_base_model": base})


def _check_size(size: Size, base: Base, *, field: str) -> None:
    if size in RESOLUTIONS[base]:
        return
    raise InvalidInput(
        "image_dimensions",
        f"a picture of {size[0]}x{size[1]} is not supported by {base}; supported: {listed(base)}",
        field=field,
    )


def json_object(body: bytes, what: str = "the body") -> dict[str, Any]:
    """
    Args:
        what: how the sender calls it.

    Raises:
        RequestInvalid: the body is anything else, or has too many values.
    """
    if body.count(b",") > MAX_VALUES:
        text = f"{what} has more than {MAX_VALUES:,} values"
        raise RequestInvalid([FieldProblem(loc=["body"], msg=text, type="too_many_values")])
    try:
        value = from_json(body)
    except ValueError:  # its text would quote the body
        problem = FieldProblem(loc=["body"], msg=f"{what} is not valid JSON", type="json_invalid")
        raise RequestInvalid([problem]) from None
    if not isinstance(value, dict):
        problem = FieldProblem(loc=["body"], msg=f"{what} is not a JSON object", type="dict_type")
        raise RequestInvalid([problem])
    return value


def problems_of(error: ValidationError) -> list[FieldProblem]:
    """What is wrong, as the wire tells it; of too much, only how much."""
    if error.error_count() > MAX_PROBLEMS:
        count = f"{error.error_count()} things are wrong with the request"
        return [FieldProblem(loc=["body"], msg=count, type="too_many_errors")]
    return [
        FieldProblem(loc=["body", *_place(item["loc"])], msg=item["msg"], type=item["type"])
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]


def _place(loc: tuple[str | int, ...]) -> list[str | int]:
    """Where in the request; without pydantic's names for the branches of a union."""
    field, *inner = loc or ("",)
    places = [part for part in inner if field != "seed" or part not in SEED_KINDS]
    return [part[:80] if isinstance(part, str) else part for part in (field, *places) if part != ""]
