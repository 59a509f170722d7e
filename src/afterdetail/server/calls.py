"""What requests that are not the contract's have in common: their work, and the picture of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from afterdetail.lifetime import Lifetime
from afterdetail.server.admission import Permit
from afterdetail.server.service import Service, decode
from afterdetail.stages import Stage
from afterdetail.types import Picture

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


async def work_on(
    service: Service,
    source: Source,
    permit: Permit,
    lifetime: Lifetime,
    work: Callable[[Picture], T],
) -> T:
    """Fetch the picture, wait for a turn, decode and work in a thread."""
    data = await service.picture(source.picture, source.address, permit)

    def in_a_thread() -> T:
        lifetime.check()
        return work(decode(data, service.settings.max_pixels, field=source.image_field))

    return await service.take_turn(permit, lifetime, in_a_thread)
