"""The API page: FastAPI's, plus the request schema, since the body is read by our own code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from afterdetail.schema.request import AdetailerRequest
from afterdetail.schema.response import HTTPValidationError, Problem

REF = "#/components/schemas/{model}"

REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {"schema": {"$ref": REF.format(model=AdetailerRequest.__name__)}}
    },
}

ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "No valid token, where the server has tokens"},
    408: {"model": Problem, "description": "The body arrived too slowly"},
    413: {"model": Problem, "description": "The body is over the byte limit"},
    415: {"model": Problem, "description": "The body is not JSON"},
    422: {"model": HTTPValidationError, "description": "Something in the request is wrong"},
    429: {"model": Problem, "description": "The queue is full; Retry-After says for how long"},
    500: {"model": Problem, "description": "No object could be inpainted, or a fault of ours"},
    502: {"model": Problem, "description": "init_image_url could not be fetched"},
    503: {"model": Problem, "description": "Not now: loading, out of memory, or out of order"},
    504: {"model": Problem, "description": "init_image_url or the request took too long"},
}


def with_request_schema(
    app: FastAPI, *, secured: bool, others: Iterable[type[BaseModel]] = ()
) -> None:
    """Put the requests' schemas, and the token where there are any, on the page of ``app``.

    Args:
        others: requests of other endpoints than the contract's.
    """
    kinds: tuple[type[BaseModel], ...] = (AdetailerRequest, *others)
    build = app.openapi

    def openapi() -> dict[str, Any]:
        page = build()  # FastAPI keeps it: the second call adds the same again
        components = page.setdefault("components", {})
        components.setdefault("schemas", {}).update(_request_schemas(kinds))
        if secured:
            components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
            for operations in page["paths"].values():
                for operation in operations.values():
                    operation["security"] = [{"bearer": []}]
        return page

    app.openapi = openapi  # type: ignore[method-assign]


def _request_schemas(kinds: Iterable[type[BaseModel]]) -> dict[str, Any]:
    schemas: dict[str, Any] = {}
    for kind in kinds:
        schema = kind.model_json_schema(ref_template=REF)
        schemas |= schema.pop("$defs", {})
        schemas[kind.__name__] = schema
    return schemas
