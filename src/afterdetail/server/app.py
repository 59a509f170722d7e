"""``POST /adetailer`` and the health pages, as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response

from afterdetail.config import Settings, load_settings
from afterdetail.schema.openapi import ERRORS, REQUEST_BODY, with_request_schema
from afterdetail.schema.response import AdetailerResponse, FieldProblem
from afterdetail.server import errors
from afterdetail.server.middleware import BearerTokens, RequestIds
from afterdetail.server.service import Service

if TYPE_CHECKING:
    from afterdetail.pipeline import Detailer

ASYNC_OFF = frozenset({"", "0", "false"})


def create_app(detailer: Detailer | Future[Detailer], settings: Settings | None = None) -> FastAPI:
    """The application around a detailer, or around one that is still being loaded.

    Args:
        detailer: until a future is done, requests are answered 503 ``loading``.
        settings: default: those of the environment.
    """
    settings = settings or load_settings()
    service = Service.of(settings, detailer if isinstance(detailer, Future) else _done(detailer))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="afterdetail",
        summary="Finds faces and hands in a picture, repaints them, puts them back.",
        lifespan=lifespan,
        redoc_url=None,
    )
    tokens = settings.all_tokens()
    if tokens:
        app.add_middleware(BearerTokens, tokens=tokens)
    app.add_middleware(RequestIds)  # the last one added is the outermost
    errors.install(app)
    _add_routes(app, service)
    with_request_schema(app, secured=bool(tokens))
    app.state.service = service
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.post(
        "/adetailer",
        response_model=AdetailerResponse,
        responses=ERRORS,
        openapi_extra={"requestBody": REQUEST_BODY},
    )
    async def adetailer(request: Request) -> Response:
        """Find the objects of a picture, repaint each one, and send the picture back."""
        if request.headers.get("x-octoai-async", "").lower() not in ASYNC_OFF:
            return _async_unavailable()
        return await service.answer(request)

    @app.get("/health/live", include_in_schema=False)
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/health/ready", include_in_schema=False)
    async def ready() -> dict[str, str]:
        service.ready()
        return {"status": "ready"}


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


def _async_unavailable() -> Response:
    return errors.unprocessable(
        FieldProblem(
            loc=["header", "X-OctoAI-Async"],
            msg="the asynchronous form is not served yet; send the request without this header",
            type="async_unavailable",
        )
    )
