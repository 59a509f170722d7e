"""What a client of ``POST /adetailer`` gets for a picture that is done."""

from __future__ import annotations

import base64
from urllib.parse import quote

from starlette.responses import Response

from afterdetail import images
from afterdetail.results import DetailResult
from afterdetail.schema.request import ImageEncoding
from afterdetail.schema.response import AdetailerResponse
from afterdetail.types import Picture

MAX_IGNORED_SHOWN = 32


def to_response(result: DetailResult, encoding: ImageEncoding) -> Response:
    """The picture and the counts as JSON; objects that failed are told in a header."""
    body = AdetailerResponse(
        image_b64=None if result.withheld else as_base64(result.picture, encoding),
        num_objects_inpainted=result.num_objects_inpainted,
        num_objects_detected=result.num_objects_detected,
        num_removed_for_safety=result.num_removed_for_safety,
    )
    failed = result.num_objects_failed
    headers = {"X-Objects-Failed": str(failed)} if failed else None
    return Response(body.model_dump_json(), headers=headers, media_type="application/json")


def as_base64(picture: Picture, encoding: ImageEncoding) -> str:
    """A picture as a field of JSON can carry it."""
    return base64.b64encode(images.encode(picture, encoding.value)).decode("ascii")


def header_list(names: tuple[str, ...]) -> str:
    """Names that a client made up, as a header can carry them."""
    shown = [quote(name[:64], safe="") for name in names[:MAX_IGNORED_SHOWN]]
    return ", ".join(shown + ["..."] * (len(names) > MAX_IGNORED_SHOWN))
