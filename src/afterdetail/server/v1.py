"""``POST /v1/detect`` and ``POST /v1/detail``: the richer endpoint beside the contract's."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from afterdetail.lifetime import Lifetime
from afterdetail.results import DetailResult, Listener, Progress
from afterdetail.schema.openapi import ERRORS, REF
from afterdetail.schema.v1 import (
    Call,
    CallRequest,
    DetailRequest,
    DetailResponse,
    DetectRequest,
    DetectResponse,
    parse_call,
    parse_form,
)
from afterdetail.server import multipart
from afterdetail.server.admission import Permit
from afterdetail.server.body import media_type
from afterdetail.server.calls import WORK_OF_LOOKING, Effort
from afterdetail.server.service import Service
from afterdetail.server.v1_answers import EVENTS, JSON, detailed, seen, wanted
from afterdetail.server.v1_stream import EventStream, events
from afterdetail.types import Picture

IMAGES = ("image/png", "image/jpeg", "image/webp")
"""What a body may be besides JSON and forms; its options are then in the query."""
FORM = "multipart/form-data"
OTHER_BODIES = (*IMAGES, FORM)
REQUESTS = (DetectRequest, DetailRequest)
"""What the API page has to describe."""


@dataclass(frozen=True, slots=True)
class Doors:
    """Both endpoints, on the service that the contract's endpoint is on."""

    service: Service

    async def detect(self, request: Request) -> Response:
        """What :meth:`detail` would do."""
        with self.service.door.inside():
            parse = partial(_parse, request, DetectRequest)
            lifetime = self.service.lifetime()
            call, permit = await self.service.let_in(request, parse, OTHER_BODIES)
            permit.work = WORK_OF_LOOKING * len(call.stages)
            work = self.service.begin(self._detect(call, permit, lifetime, wanted(request)), permit)
            return await self.service.while_connected(request, work, lifetime)

    async def detail(self, request: Request) -> Response:
        """Find, repaint, tell."""
        with self.service.door.inside():
            parse = partial(_parse, request, DetailRequest)
            lifetime = self.service.lifetime()
            call, permit = await self.service.let_in(request, parse, OTHER_BODIES)
            self.service.admission.know(permit, Effort.of(call.stages))
            answer = wanted(request)
            if answer == EVENTS:
                return self._stream(request, call, permit, lifetime)
            work = self.service.begin(self._detail(call, permit, lifetime, answer), permit)
            return await self.service.while_connected(request, work, lifetime)

    async def _detect(
        self, call: Call, permit: Permit, lifetime: Lifetime, answer: str
    ) -> Response:
        def work(picture: Picture) -> Response:
            dry = self.service.loaded().look(picture, call.stages, lifetime)
            return seen(call, dry, answer)

        return await self.service.work_on(call, permit, lifetime, work)

    async def _detail(
        self,
        call: Call,
        permit: Permit,
        lifetime: Lifetime,
        answer: str,
        listener: Listener | None = None,
    ) -> Response:
        def work(picture: Picture) -> tuple[DetailResult, Response]:
            result = self.service.loaded().run(picture, call.stages, lifetime, listener)
            return result, detailed(call, result, answer)

        result, response = await self.service.work_on(call, permit, lifetime, work)
        self.service.learn(result, permit)
        return response

    def _stream(
        self, request: Request, call: Call, permit: Permit, lifetime: Lifetime
    ) -> EventStream:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Progress | None] = asyncio.Queue()

        def listener(progress: Progress) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, progress)

        work = self.service.begin(self._detail(call, permit, lifetime, JSON, listener), permit)
        work.add_done_callback(lambda _: queue.put_nowait(None))
        return EventStream(
            events(request.scope, work, queue, lifetime), work, lifetime, self.service.door
        )


def _parse(request: Request, kind: type[CallRequest], body: bytes) -> Call:
    """A body in one of its forms."""
    given = media_type(request)
    if given == FORM:
        form = multipart.parse(request.headers["content-type"], body)
        return parse_form(kind, form.fields, form.picture)
    if given in IMAGES:
        return parse_form(kind, dict(request.query_params), body)
    return parse_call(kind, body)


def add_routes(app: FastAPI, service: Service) -> None:
    """Put both endpoints into the application."""
    doors = Doors(service)

    @app.post(
        "/v1/detect",
        response_model=DetectResponse,
        responses=ERRORS,
        openapi_extra=_request_body(DetectRequest),
    )
    async def detect(request: Request) -> Response:
        """Tell what `/v1/detail` would do with the same options, without repainting anything."""
        return await doors.detect(request)

    @app.post(
        "/v1/detail",
        response_model=DetailResponse,
        responses=ERRORS,
        openapi_extra=_request_body(DetailRequest),
    )
    async def detail(request: Request) -> Response:
        """Find the objects of a picture in one or more stages, repaint them, tell of each."""
        return await doors.detail(request)


def _request_body(kind: type[CallRequest]) -> dict[str, Any]:
    schema = {"$ref": REF.format(model=kind.__name__)}
    file = {"type": "string", "format": "binary"}
    form = {"type": "object", "properties": {"image": file, "options": {"type": "string"}}}
    return {
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": schema},
                FORM: {"schema": form},
                **{kind: {"schema": file} for kind in IMAGES},
            },
        }
    }
