"""Answers of the endpoints below ``/v1``: JSON, or the picture alone, as the client prefers."""

from __future__ import annotations

from dataclasses import replace

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from afterdetail import images, preview
from afterdetail.errors import AfterdetailError
from afterdetail.results import DetailResult, DryRun
from afterdetail.schema.request import ImageEncoding
from afterdetail.schema.v1 import Call, detail_response, detect_response
from afterdetail.server.answers import as_base64
from afterdetail.types import Picture

JSON = "application/json"
EVENTS = "text/event-stream"
ENCODINGS = {"image/png": ImageEncoding.PNG, "image/jpeg": ImageEncoding.JPEG}
"""The pictures that an answer may be."""


class Withheld(AfterdetailError):
    """There is no picture to send where nothing but a picture was asked for."""

    status, code = 403, "removed_for_safety"

    def __init__(self) -> None:
        super().__init__("the safety checker refused everything that was painted")


def wanted(request: Request) -> str:
    """The media type to answer with: of those offered the client's favourite, else JSON."""
    offers = {JSON: JSON, EVENTS: EVENTS, "image/*": "image/png", "*/*": JSON}
    offers |= {kind: kind for kind in ENCODINGS}
    best, answer = 0.0, JSON
    for item in request.headers.get("accept", "").split(","):
        kind, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = next((_number(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
        if kind in offers and quality > best:
            best, answer = quality, offers[kind]
    return answer


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def seen(call: Call, dry: DryRun, answer: str) -> Response:
    """A dry run as JSON, or as the preview picture alone."""
    if answer in ENCODINGS:
        return Response(images.encode(_preview(dry), ENCODINGS[answer].value), media_type=answer)
    drawn = None
    if call.preview:
        drawn = as_base64(_preview(dry), call.request.image_encoding)
    return _json(detect_response(dry, drawn))


def _preview(dry: DryRun) -> Picture:
    named = [
        replace(item.detection, label=f"{item.stage}.{item.id} {item.detection.label}")
        for item in dry.objects
    ]
    return preview.draw(dry.picture, named, dry.masks)


def detailed(call: Call, result: DetailResult, answer: str) -> Response:
    """A result as JSON, or as the picture alone with the counts in headers."""
    if answer not in ENCODINGS:
        image = None
        if not result.withheld:
            image = as_base64(result.picture, call.request.image_encoding)
        return _json(detail_response(result, image))
    if result.withheld:
        raise Withheld()
    headers = {
        "X-Objects-Detected": str(result.num_objects_detected),
        "X-Objects-Inpainted": str(result.num_objects_inpainted),
        "X-Objects-Failed": str(result.num_objects_failed),
        "X-Removed-For-Safety": str(result.num_removed_for_safety),
    }
    data = images.encode(result.picture, ENCODINGS[answer].value)
    return Response(data, headers=headers, media_type=answer)


def _json(body: BaseModel) -> Response:
    return Response(body.model_dump_json(), media_type=JSON)
