"""Write the parts of docs/endpoint.md that say what the code says: its fields, errors, sizes.

python scripts/make_reference.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from afterdetail import errors
from afterdetail.errors import AfterdetailError
from afterdetail.models.resolutions import RESOLUTIONS
from afterdetail.schema.openapi import ERRORS
from afterdetail.schema.request import AdetailerRequest
from afterdetail.schema.response import AdetailerResponse
from afterdetail.server.body import NotJson
from afterdetail.server.tables import StoreUnavailable

OF_THE_SERVER = (NotJson, StoreUnavailable)
"""The errors of ``POST /adetailer`` that only the server has."""
PAGE = Path(__file__).parents[1] / "docs" / "endpoint.md"
PART = re.compile(r"(<!-- from the code: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def request_fields() -> str:
    return _fields(AdetailerRequest)


def response_fields() -> str:
    return _fields(AdetailerResponse)


def sizes() -> str:
    """The sizes of each base, as rows."""
    rows = [
        f"| `{base}` | {', '.join(f'{width}x{height}' for width, height in listed)} |"
        for base, listed in RESOLUTIONS.items()
    ]
    return "\n".join(["| base model | width x height |", "|---|---|", *rows])


def statuses() -> str:
    """What a client can meet besides 200."""
    rows = [
        f"| {status} | {_codes(int(status))} | {answer['description']} |"
        for status, answer in ERRORS.items()
    ]
    return "\n".join(["| status | `code` | meaning |", "|---|---|---|", *rows])


def _codes(status: int) -> str:
    """The codes of the error classes of a status; 422 has one for each thing that can be wrong."""
    kinds = [kind for kind in (*vars(errors).values(), *OF_THE_SERVER) if _is_error(kind)]
    codes = {kind.code for kind in kinds if kind.status == status and "code" in vars(kind)}
    return ", ".join(f"`{code}`" for code in sorted(codes))


PARTS: Mapping[str, Any] = {
    "request_fields": request_fields,
    "response_fields": response_fields,
    "sizes": sizes,
    "statuses": statuses,
}


def rendered(page: str) -> str:
    """The page with its generated parts as the code has them now."""
    return PART.sub(lambda found: f"{found[1]}{PARTS[found[2]]()}\n{found[3]}", page)


def _fields(model: type[BaseModel]) -> str:
    rows = [
        f"| `{name}` | {_type(field.annotation)} | {_default(field)} | {_described(field)} |"
        for name, field in model.model_fields.items()
    ]
    return "\n".join(["| field | type | default | meaning |", "|---|---|---|---|", *rows])


def _type(annotation: Any) -> str:
    """As JSON has it."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type(item) for item in inner))
    if origin is list:
        return f"list of {_type(inner[0])}s"
    if origin is dict:
        return f"object of {_type(inner[1])}"
    if origin is Literal:
        return "string"
    if hasattr(annotation, "__metadata__"):
        return _type(inner[0])
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "string"
    names = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}
    return names[annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    return f"`{json.dumps(value.value if isinstance(value, Enum) else value)}`"


def _described(field: FieldInfo) -> str:
    text = " ".join((field.description or "").split()).replace("|", "\\|")
    choices = _choices(field.annotation)
    return f"{text} One of {', '.join(f'`{item}`' for item in choices)}." if choices else text


def _choices(annotation: Any) -> list[str]:
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [str(item.value) for item in annotation]
    return [name for item in get_args(annotation) for name in _choices(item)]


def _is_error(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, AfterdetailError)


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
