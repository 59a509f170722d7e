"""``POST /adetailer`` and the health pages, as an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST

from afterdetail.config import Settings, load_settings
from afterdetail.schema.openapi import ERRORS, REQUEST_BODY, with_request_schema
from afterdetail.schema.response import AdetailerResponse
from afterdetail.server import a1111, errors, v1
from afterdetail.server.later import PREFIX, Later, wants_later
from afterdetail.server.metrics import may_read
from afterdetail.server.middleware import Accounts, BearerTokens, RequestIds
from afterdetail.server.service import Service
from afterdetail.server.traces import Traced, Traces, make_traces

if TYPE_CHECKING:
    from afterdetail.pipeline import Detailer

PAGE = "/ui"
Page: TypeAlias = Callable[[FastAPI, Service], None]


def create_app(
    detailer: Detailer | Future[Detailer],
    settings: Settings | None = None,
    traces: Traces | None = None,
    page: Page | None = None,
) -> FastAPI:
    """The application around a detailer, or around one that is still being loaded.

    Args:
        detailer: until a future is done, requests are answered 503 ``loading``.
        settings: default: those of the environment.
        traces: default: those that the settings ask for.
        page: puts the page for people at ``/ui``; it has a login form of its own.
    """
    settings = settings or load_settings()
    traces = traces or make_traces(settings)
    loading = detailer if isinstance(detailer, Future) else _done(detailer)
    service = Service.of(settings, loading, traces)

    later = Later(service)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        resuming = asyncio.create_task(later.resume())
        yield
        resuming.cancel()
        await later.close()
        service.close()
        if traces:
            traces.close()

    app = FastAPIOffline(  # the API page without scripts from other hosts
        title="afterdetail",
        summary="Finds faces and hands in a picture, repaints them, puts them back.",
        lifespan=lifespan,
        redoc_url=None,
    )
    tokens = settings.all_tokens()
    if tokens:
        app.add_middleware(BearerTokens, tokens=tokens, own_login=PAGE if page else None)
    app.add_middleware(RequestIds)
    app.add_middleware(Accounts, metrics=service.metrics)
    if traces:
        app.add_middleware(Traced, traces=traces)  # the last one added is the outermost
    errors.install(app)
    _add_routes(app, service, later)
    v1.add_routes(app, service)
    a1111.add_routes(app, service)
    with_request_schema(app, secured=bool(tokens), others=v1.REQUESTS)
    app.state.service = service
    if page:
        page(app, service)
    return app


def _add_routes(app: FastAPI, service: Service, later: Later) -> None:
    @app.post(
        "/adetailer",
        response_model=AdetailerResponse,
        responses=ERRORS,
        openapi_extra={"requestBody": REQUEST_BODY},
    )
    async def adetailer(request: Request) -> Response:
        """Find the objects of a picture, repaint each one, and send the picture back."""
        if wants_later(request):
            return await later.accept(request)
        return await service.answer(request)

    @app.get(PREFIX + "/{response_id}", include_in_schema=False)
    async def poll(request: Request, response_id: str) -> Response:
        return await later.state(request, response_id)

    @app.get(PREFIX + "/{response_id}/result", include_in_schema=False)
    async def result(request: Request, response_id: str) -> Response:
        return await later.result(request, response_id)

    @app.get("/health/live", include_in_schema=False)
    async def live() -> dict[str, str]:
        service.check_live()
        return {"status": "live"}

    @app.get("/health/ready", include_in_schema=False)
    async def ready() -> dict[str, str]:
        service.check_ready()
        return {"status": "ready"}

    @app.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        if not may_read(request.scope, service.settings.metrics_token):
            return errors.unauthorized(request.scope)
        return Response(service.metrics.page(), media_type=CONTENT_TYPE_LATEST)


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future
