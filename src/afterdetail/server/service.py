"""What happens to one request, from its body to its response."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from afterdetail import images
from afterdetail.config import Settings
from afterdetail.errors import DeadlineExceeded, InvalidInput, Loading
from afterdetail.lifetime import Lifetime
from afterdetail.schema.request import AdetailerRequest, ImageEncoding
from afterdetail.schema.response import AdetailerResponse
from afterdetail.schema.translate import decode_base64, parse_request, resolve
from afterdetail.server.body import read_json_body
from afterdetail.server.fetch import Fetcher
from afterdetail.types import Picture

if TYPE_CHECKING:
    from afterdetail.pipeline import Detailer
    from afterdetail.results import DetailResult

T = TypeVar("T")

MAX_IGNORED_SHOWN = 32


@dataclass(frozen=True, slots=True)
class Service:
    """What answering a request takes."""

    settings: Settings
    detailer: Future[Detailer]
    fetcher: Fetcher
    pool: ThreadPoolExecutor

    def ready(self) -> Detailer:
        """
        Raises:
            Loading: the models are not there yet, or could not be loaded.
        """
        if not self.detailer.done() or self.detailer.exception() is not None:
            raise Loading("the models are being loaded; try again soon")
        return self.detailer.result()

    async def in_thread(self, deadline: float, work: Callable[[], T]) -> T:
        """Run blocking work on the bounded pool; after the deadline nobody waits for it."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await loop.run_in_executor(self.pool, work)
        except TimeoutError:
            limit = self.settings.request_timeout
            raise DeadlineExceeded(f"not done within {limit:g} seconds") from None

    async def answer(self, request: Request) -> Response:
        """The whole way of one request."""
        settings = self.settings
        deadline = time.monotonic() + settings.request_timeout
        detailer = self.ready()
        body = await read_json_body(
            request, max_bytes=settings.max_body_bytes, seconds=settings.upload_timeout
        )
        incoming = await self.in_thread(deadline, partial(parse_request, body))
        del body  # tens of megabytes, not to be kept while objects are repainted
        work = partial(self._detail, detailer, incoming.request, deadline)
        if incoming.request.init_image_url is not None:
            work = partial(work, await self.fetcher.fetch(incoming.request.init_image_url))
        response = await self.in_thread(deadline, work)
        if incoming.ignored:
            response.headers["X-Ignored-Fields"] = _header_list(incoming.ignored)
        return response

    def _detail(
        self,
        detailer: Detailer,
        request: AdetailerRequest,
        deadline: float,
        fetched: bytes | None = None,
    ) -> Response:
        """The part that blocks: decode, detail, encode."""
        data = decode_base64(request.init_image or "") if fetched is None else fetched
        picture = _decode(data, self.settings.max_pixels, field=request.image_field)
        options = resolve(
            request,
            picture.size,
            detailer.catalogue,
            any_size=self.settings.resolutions == "any",
        )
        result = detailer.run(picture, options, Lifetime(deadline))
        return to_response(result, request.image_encoding)


def _decode(data: bytes, max_pixels: int, *, field: str) -> Picture:
    try:
        return images.decode(data, max_pixels=max_pixels)
    except InvalidInput as error:
        error.field = field
        raise


def to_response(result: DetailResult, encoding: ImageEncoding) -> Response:
    """The picture and the counts as JSON; objects that failed are told in a header."""
    image = None
    if not result.withheld:
        data = images.encode(result.picture, encoding.value)
        image = base64.b64encode(data).decode("ascii")
    body = AdetailerResponse(
        image_b64=image,
        num_objects_inpainted=result.num_objects_inpainted,
        num_objects_detected=result.num_objects_detected,
        num_removed_for_safety=result.num_removed_for_safety,
    )
    failed = result.num_objects_failed
    headers = {"X-Objects-Failed": str(failed)} if failed else None
    return Response(body.model_dump_json(), headers=headers, media_type="application/json")


def _header_list(names: tuple[str, ...]) -> str:
    """Names that a client made up, as a header can carry them."""
    shown = [quote(name[:64], safe="") for name in names[:MAX_IGNORED_SHOWN]]
    return ", ".join(shown + ["..."] * (len(names) > MAX_IGNORED_SHOWN))
