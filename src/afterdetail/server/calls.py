"""The way of a request that is not the contract's: let in, read, take a turn, work in a thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from starlette.requests import Request

from afterdetail.lifetime import Lifetime
from afterdetail.server.admission import Permit
from afterdetail.server.body import check_headers, read_body
from afterdetail.server.service import Service, client_of, decode, in_thread
from afterdetail.stages import Stage
from afterdetail.types import Picture

C = TypeVar("C")
T = TypeVar("T")


WORK_OF_LOOKING = 1.0
"""Row-steps that a detector is counted as: none of the engine's, but it takes its time, too."""


@dataclass(frozen=True, slots=True)
class Effort:
    """All stages together, as admission counts one request's work: in steps of guided jobs."""

    steps: int
    max_num_detections: int | None
    union_masks: bool
    strength: float = 1.0
    cfg_scale: float = 2.0

    @classmethod
    def of(cls, stages: Sequence[Stage]) -> Effort:
        rows = sum(
            max(1, int(stage.steps * stage.strength)) * (2 if stage.cfg_scale > 1 else 1)
            for stage in stages
        )
        counts = [stage.max_num_detections or stage.k_largest for stage in stages]
        return cls(
            steps=max(1, rows // 2),
            max_num_detections=max((count for count in counts if count), default=None)
            if all(counts)
            else None,
            union_masks=all(stage.union_masks or stage.invert_masks for stage in stages),
        )


class Source(Protocol):
    """Where a request has its picture: in ``picture``, or at ``address``."""

    @property
    def picture(self) -> bytes | None: ...
    @property
    def address(self) -> str | None: ...
    @property
    def image_field(self) -> str: ...


async def receive(
    service: Service,
    request: Request,
    parse: Callable[[bytes], C],
    others: Collection[str] = frozenset(),
) -> tuple[C, Permit, Lifetime]:
    """Let a request in and read it.

    Args:
        parse: its body; in the one thread for that.
        others: media types that are taken beside JSON.

    Raises:
        AfterdetailError: it is not let in, or not what it should be. The permit is given back.
    """
    settings = service.settings
    lifetime = Lifetime(time.monotonic() + settings.request_timeout)
    service.check_ready()
    size = check_headers(request, max_bytes=settings.max_body_bytes, others=others)
    permit = service.admission.admit(client_of(request), size)
    try:
        chunks = await read_body(
            request, max_bytes=settings.max_body_bytes, seconds=settings.upload_timeout
        )
        permit.size = sum(map(len, chunks))
        body = await in_thread(service.parser, partial(b"".join, chunks))
        return await in_thread(service.parser, partial(parse, body)), permit, lifetime
    except BaseException:
        service.admission.release(permit)
        raise


async def take_turn(
    service: Service,
    source: Source,
    permit: Permit,
    lifetime: Lifetime,
    work: Callable[[Picture], T],
) -> T:
    """Fetch the picture, wait for a turn, decode and work in a thread."""
    data = source.picture
    if data is None:
        data = await service.fetcher.fetch(source.address or "")

    def in_a_thread() -> T:
        lifetime.check()
        return work(decode(data, service.settings.max_pixels, field=source.image_field))

    async with service.turns.turn(permit.client):
        permit.at_work = True
        return await in_thread(service.workers, in_a_thread, lifetime)
