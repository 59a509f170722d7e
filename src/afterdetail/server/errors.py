"""Errors on the wire: which status, which body, and nothing that a client should not see."""

from __future__ import annotations

import logging

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from afterdetail.errors import AfterdetailError, InvalidInput, Loading, TryLater
from afterdetail.schema.response import FieldProblem, HTTPValidationError, Problem
from afterdetail.schema.translate import RequestInvalid

log = logging.getLogger("afterdetail.server")

RETRY_AFTER = {"loading": 5, "out_of_memory": 5, "engine_stopped": 30, "device_lost": 30}
"""Seconds after which the same request is worth another try, by code."""
CUT_OFF = frozenset({"body_too_large", "upload_too_slow", "queue_full", "rate_limited"})
"""Answered while the body is still arriving: the rest of it is not read."""
HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}
HTTP_TEXTS = {404: "there is nothing here", 405: "this method is not served here"}


def request_id(scope: Scope) -> str:
    """The id that :class:`~afterdetail.server.middleware.RequestIds` gave the request."""
    return str(scope.get("state", {}).get("request_id", "-"))


def problem(
    scope: Scope, status: int, code: str, detail: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """The body of every error that is not a 422."""
    scope.setdefault("state", {})["outcome"] = code
    body = Problem(detail=detail, code=code, request_id=request_id(scope))
    return JSONResponse(body.model_dump(), status, headers)


def unauthorized(scope: Scope) -> JSONResponse:
    return problem(
        scope, 401, "unauthorized", "send a valid token as 'Authorization: Bearer TOKEN'",
        {"WWW-Authenticate": "Bearer"},
    )  # fmt: skip


def unprocessable(*problems: FieldProblem) -> JSONResponse:
    """The body of 422 answers."""
    return JSONResponse(HTTPValidationError(detail=list(problems)).model_dump(), 422)


def internal_error(scope: Scope) -> JSONResponse:
    return problem(
        scope, 500, "internal_error", "something went wrong here; the log knows it by request_id"
    )


def answer(scope: Scope, error: AfterdetailError) -> Response:
    """The response to an error raised on purpose."""
    if isinstance(error, InvalidInput):
        scope.setdefault("state", {})["outcome"] = "invalid"
    if isinstance(error, RequestInvalid):
        return unprocessable(*error.problems)
    if isinstance(error, InvalidInput):
        if str(error) != error.public:  # more than a client may read: for whoever runs the server
            log.warning("request %s: %s: %s", request_id(scope), error.code, error)
        loc: list[str | int] = ["body", error.field] if error.field else ["body"]
        return unprocessable(FieldProblem(loc=loc, msg=error.public, type=error.code))
    if error.status >= 500 and not isinstance(error, Loading):  # a state, not a fault
        log.error("request %s: %s: %s", request_id(scope), error.code, error)
    headers: dict[str, str] = {}
    if error.code in RETRY_AFTER:
        headers["Retry-After"] = str(RETRY_AFTER[error.code])
    if isinstance(error, TryLater):
        headers["Retry-After"] = str(error.retry_after)
    if error.code in CUT_OFF:
        headers["Connection"] = "close"
    return problem(scope, error.status, error.code, error.public, headers)


def install(app: FastAPI) -> None:
    """Answer errors in these forms. Unforeseen exceptions are for the ``RequestIds`` middleware."""

    async def on_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, AfterdetailError)
        return answer(request.scope, error)

    async def on_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status = error.status_code
        code = HTTP_CODES.get(status, "http_error")
        text = HTTP_TEXTS.get(status, "this cannot be answered")
        return problem(request.scope, status, code, text, dict(error.headers or {}))

    app.add_exception_handler(AfterdetailError, on_error)
    app.add_exception_handler(HTTPException, on_http_error)
