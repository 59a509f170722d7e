"""What requests of all doors have in common: how much work they are, and where their picture is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from afterdetail import images
from afterdetail.errors import InvalidInput
from afterdetail.stages import Stage
from afterdetail.types import Picture

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


def decode(data: bytes, max_pixels: int, *, field: str) -> Picture:
    try:
        return images.decode(data, max_pixels=max_pixels)
    except InvalidInput as error:
        error.field = field
        raise
